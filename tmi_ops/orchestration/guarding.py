"""The sensors that guard the objectives: they read, decide (`tmi_ops/objectives/acting.py`), launch the cure, alert.

Each guard also checks that all schedules and sensors tick, and alerts if one does not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
from dagster import (
    AssetCheckEvaluation,
    AssetCheckSeverity,
    DagsterInstance,
    DagsterRunStatus,
    Definitions,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from tmi_ops.automation.judging import TICK_GRACE, judge_automation
from tmi_ops.automation.reading import read_automation_facts
from tmi_ops.checks.finding import Finding, Severity, advise
from tmi_ops.errors import OpsError
from tmi_ops.objectives.acting import Decision, Judged, Memory, Order, Pace, Topic, decide, decide_unread
from tmi_ops.objectives.cures import Action, Cure
from tmi_ops.objectives.standing import Standing
from tmi_ops.objectives.timetable import DUMPS_SEEN_EVERY, Timetable
from tmi_ops.orchestration import backup, base_backup, drill, wal
from tmi_ops.orchestration.dagster_instance import instance_of
from tmi_ops.orchestration.policies import ENVIRONMENT_TAG
from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.readings import SHARED_FOR, recent_facts
from tmi_ops.orchestration.resources import Environment
from tmi_ops.settings import Objectives, Settings
from tmi_ops.text import format_duration

if TYPE_CHECKING:
    from tmi_ops.alerts.alert import Alert
    from tmi_ops.alerts.service import AlertService
    from tmi_ops.objectives.dumps import DumpReading
    from tmi_ops.objectives.facts import RecoverabilityFacts
    from tmi_ops.orchestration.schedules import AnyJob
    from tmi_ops.settings import Settings


ALERT = "automation"


def stuck_automation(here: Protected) -> tuple[Finding, ...]:
    """Critical findings about schedules, sensors and queues. None if Dagster's records are not in PostgreSQL."""
    if not os.environ.get("DAGSTER_PG_HOST"):
        return ()
    try:
        facts = read_automation_facts(os.environ, here.name)
    except psycopg.Error as error:
        what = f"Dagster's database could not be queried: {type(error).__name__}"
        return (Finding(Severity.CRITICAL, "records", what, advice=advise("tmi-ops doctor")),)
    findings = judge_automation(facts, here.automation.timezone)
    return tuple(one for one in findings if one.severity is Severity.CRITICAL)


def tell_of_automation(alerts: AlertService, stuck: tuple[Finding, ...], since: datetime | None) -> None:
    """Alert if it lasts; a daemon that has just started gets time for a first tick of everything."""
    now = datetime.now(UTC)
    if not stuck or since is None:
        alerts.resolve(ALERT, "All schedules, sensors and queues work.")
    elif now - since >= TICK_GRACE:
        alerts.raise_alert(automation_alert(stuck, since))


def automation_alert(stuck: tuple[Finding, ...], since: datetime) -> Alert:
    from tmi_ops.alerts.alert import Alert

    first, more = stuck[0], len(stuck) - 1
    others = f" {more} more: tmi-ops doctor." if more else ""
    return Alert(
        key=ALERT,
        severity=Severity.CRITICAL,
        summary="Dagster's automation is stuck",
        at_risk=f"{first.what[0].upper()}{first.what[1:]}.{others} Backups, verifications or alerts may be missing.",
        since=since,
        done="Nothing; a person must act. The external monitor no longer gets pings.",
        to_do="; ".join(first.advice.steps) or "tmi-ops doctor",
    )


MET_CHECK = "objective_met"
CURE_TAG = "tmi_ops/cures"
JOBS: Mapping[Action, str] = {
    Action.CATCH_UP_WAL: wal.JOB,
    Action.BACK_UP_INCREMENTAL: base_backup.JOB,
    Action.BACK_UP_BASE: base_backup.JOB,
    Action.BACK_UP_LOGICAL: backup.JOB,
    Action.VERIFY_BACKUP: backup.VERIFY_JOB,
    Action.RUN_DRILL: drill.DRILL_JOB,
}
# Not NOT_STARTED: such a run never reached the queue, and will not run.
_WAITING_OR_AT_WORK = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
# Dumps run nightly, so an hour for a dump and its verification before another starts loses nothing.
DUMP_COOLDOWN = timedelta(hours=1)
_ABOUT: Mapping[Topic, str] = {
    Topic.RPO: "Watches how much data would be lost if the server were lost now. At risk: launches the run that cures "
    "it, and again only after that run has had its time. Breached: raises an alert, and the check of `objectives/rpo` "
    "fails.",
    Topic.RTO: "Watches how long a recovery would take now. Above the objective: takes a base backup, incremental if "
    "the server supports it. If the last drill failed or is more than a week old: runs a drill.",
    Topic.STREAM: "Watches how much WAL the server keeps for the replication slot, and which receiver reads it. Alerts "
    "before the slot is lost or the server's disk is full, and catches up.",
    Topic.DUMPS: "Watches the age of this database's newest verified logical backup. Older than its cadence allows, or "
    "the newest failed verification: takes and verifies another. A second one missing: raises an alert. Base backups "
    "and WAL belong to the cluster; the guards of its environment watch those.",
}
_OF_AN_ASSET: Mapping[Topic, str] = {Topic.RPO: "rpo", Topic.RTO: "rto"}


def guarding_definitions(here: Protected, capabilities: Definitions) -> Definitions:
    """The sensors `rpo_guard`, `rto_guard` and `wal_stream_guard` of an environment, or `logical_backup_guard` of
    another database of its cluster, with the jobs of `capabilities` as cures."""
    if not here.is_environment:
        return Definitions(sensors=[_guard("logical_backup_guard", Topic.DUMPS, here, capabilities)])
    sensors = [
        _guard("rpo_guard", Topic.RPO, here, capabilities),
        _guard("rto_guard", Topic.RTO, here, capabilities),
        _guard("wal_stream_guard", Topic.STREAM, here, capabilities),
    ]
    return Definitions(sensors=sensors)


def _guard(name: str, topic: Topic, here: Protected, capabilities: Definitions) -> SensorDefinition:
    timetable = here.timetable
    interval, again = timetable.sensor_interval, timetable.look_again
    if topic is Topic.DUMPS:
        interval = max(interval, DUMPS_SEEN_EVERY)

    @sensor(
        name=here.called(name),
        jobs=cure_jobs(here, capabilities),
        minimum_interval_seconds=int(again.total_seconds()),
        default_status=here.sensor_status,
        description=_ABOUT[topic],
    )
    @here.looking
    def guard(context: SensorEvaluationContext, environment: Environment) -> SensorResult | SkipReason:
        memory, now = Memory.of(context.cursor), datetime.now(UTC)
        if memory.is_well_since(now, interval):
            ago = format_duration((now - (memory.looked_at or now)).total_seconds())
            return SkipReason(f"Met at the last check, {ago} ago.")
        settings = environment.settings
        decision = look(
            topic,
            environment,
            memory,
            min(SHARED_FOR, again / 2),
            lambda: cures_at_work(instance_of(context), here),
            timetable,
        )
        stuck = stuck_automation(here)
        decision = remembered(decision, memory, now, is_stuck=bool(stuck))
        tell(settings, topic, decision, stuck)
        context.log.info(" ".join([decision.said, *(f"Stuck: {one.what}." for one in stuck)]))
        requests = [cure_request(here, topic, decision.order)] if decision.order else []
        return SensorResult(
            run_requests=requests or None,
            skip_reason=None if requests else decision.said,
            cursor=decision.memory.model_dump_json(),
            asset_events=_check_events(here, topic, memory, decision),
        )

    return guard


def look(
    topic: Topic,
    environment: Environment,
    memory: Memory,
    shared_for: timedelta,
    running: Callable[[], frozenset[Action]],
    timetable: Timetable,
) -> Decision:
    """Read, judge and decide."""
    settings, now = environment.settings, datetime.now(UTC)
    pace = pace_of(topic, settings.objectives)
    try:
        if topic is Topic.DUMPS:
            judged: Judged = _judge_dumps(environment, timetable, now)
        else:
            judged = _judge(topic, recent_facts(environment, shared_for), settings.objectives)
    except OpsError as error:
        return decide_unread(topic, error.message, error.hint, memory, now, pace)
    return decide(topic, judged, memory, now, pace, running())


def pace_of(topic: Topic, objectives: Objectives) -> Pace:
    if topic is Topic.DUMPS:
        return Pace(DUMP_COOLDOWN, objectives.rpo)
    return Pace.of(objectives.rto if topic is Topic.RTO else objectives.rpo)


def remembered(decision: Decision, before: Memory, now: datetime, *, is_stuck: bool) -> Decision:
    """The decision with the time of this tick, and since when automation is stuck."""
    known = before.as_of(now).stuck_since
    news = {"stuck_since": (known or now) if is_stuck else None, "looked_at": now}
    return replace(decision, memory=decision.memory.model_copy(update=news))


def tell(settings: Settings, topic: Topic, decision: Decision, stuck: tuple[Finding, ...] = ()) -> None:
    """Send alerts and recovery notices, and ping the external monitor; do not ping it while automation is stuck."""
    from tmi_ops.alerts.dead_man import ping_heartbeat
    from tmi_ops.alerts.service import AlertService

    alerts = AlertService(settings)
    if decision.alert is not None:
        alerts.raise_alert(decision.alert)
    elif decision.amended is not None:
        alerts.amend(decision.amended)
    elif decision.resolution is not None:
        alerts.resolve(topic.value, decision.resolution)
    tell_of_automation(alerts, stuck, decision.memory.stuck_since)
    if topic in (Topic.RPO, Topic.DUMPS):  # one guard of each database retries
        alerts.retry()
    if topic is Topic.RPO:
        if decision.standing is Standing.MET and not stuck:
            ping_heartbeat(settings, decision.said)
        elif decision.standing is Standing.BREACHED:
            ping_heartbeat(settings, decision.said, failed=True)


def _judge_dumps(environment: Environment, timetable: Timetable, now: datetime) -> DumpReading:
    from tmi_ops.objectives.dumps import judge_dumps
    from tmi_ops.objectives.reading import read_dumps

    return judge_dumps(read_dumps(environment.settings, environment.open_store()), timetable.logical, now)


def _judge(topic: Topic, facts: RecoverabilityFacts, objectives: Objectives) -> Judged:
    from tmi_ops.objectives.rpo import judge_rpo
    from tmi_ops.objectives.rto import forecast_rto
    from tmi_ops.objectives.stream import judge_stream

    judges: Mapping[Topic, Callable[[RecoverabilityFacts, Objectives], Judged]] = {
        Topic.RPO: judge_rpo,
        Topic.RTO: forecast_rto,
        Topic.STREAM: judge_stream,
    }
    return judges[topic](facts, objectives)


def _check_events(here: Protected, topic: Topic, before: Memory, decision: Decision) -> list[AssetCheckEvaluation]:
    """The asset's check, if the status has changed since the tick before."""
    asset = _OF_AN_ASSET.get(topic)
    if asset is None or decision.standing in (None, before.standing):
        return []
    return [
        AssetCheckEvaluation(
            asset_key=here.key("objectives", asset),
            check_name=MET_CHECK,
            passed=decision.standing is Standing.MET,
            severity=severity_of(decision.standing),
            description=decision.said,
        )
    ]


def severity_of(standing: Standing | None) -> AssetCheckSeverity:
    """A breach is an error; at risk and unknown are warnings."""
    return AssetCheckSeverity.ERROR if standing is Standing.BREACHED else AssetCheckSeverity.WARN


def cure_jobs(here: Protected, definitions: Definitions) -> list[AnyJob]:
    """The jobs that cures launch."""
    names = {here.called(job) for job in JOBS.values()}
    return [job for job in definitions.jobs or () if job.name in names]


def cure_request(here: Protected, topic: Topic, order: Order) -> RunRequest:
    """The run of an order; Dagster launches the same key once."""
    return RunRequest(
        run_key=order.key,
        job_name=here.called(JOBS[order.cure.action]),
        run_config=_cure_config(here, order.cure),
        tags={CURE_TAG: topic.value},
    )


def cures_at_work(instance: DagsterInstance, here: Protected) -> frozenset[Action]:
    """Cures that run or are queued, whoever launched them."""
    runs = instance.get_runs(RunsFilter(statuses=_WAITING_OR_AT_WORK, tags={ENVIRONMENT_TAG: here.name}))
    names = {run.job_name for run in runs}
    return frozenset(action for action, job in JOBS.items() if here.called(job) in names)


def _cure_config(here: Protected, cure: Cure) -> dict[str, Any]:
    if cure.action is Action.BACK_UP_INCREMENTAL:
        return _step_config(here, ("backup", "base"), {"incremental": True})
    if cure.action is Action.RUN_DRILL:
        return _step_config(here, ("recovery", "drill"), {"latest": True})
    if cure.action is Action.VERIFY_BACKUP and cure.backup_id:
        return _step_config(here, ("backup", "logical_verified"), {"backup": cure.backup_id})
    return {}


def _step_config(here: Protected, path: tuple[str, ...], config: dict[str, Any]) -> dict[str, Any]:
    return {"ops": {here.key(*path).to_python_identifier(): {"config": config}}}
