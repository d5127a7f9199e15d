"""The sensors that guard the objectives: they look, decide (`tmi_ops/objectives/acting.py`), begin the cure, tell."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from dagster import (
    AssetCheckEvaluation,
    AssetCheckSeverity,
    Definitions,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from tmi_ops.checks.finding import Finding
from tmi_ops.errors import OpsError
from tmi_ops.objectives.acting import Decision, Judged, Memory, Pace, Topic, decide, decide_unread
from tmi_ops.objectives.cures import Action
from tmi_ops.objectives.standing import Standing
from tmi_ops.objectives.timetable import DUMPS_SEEN_EVERY, Timetable
from tmi_ops.orchestration.cures import cure_jobs, cure_request, cures_at_work
from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.readings import SHARED_FOR, recent_facts
from tmi_ops.orchestration.resources import Environment
from tmi_ops.orchestration.watching import stuck_automation, tell_of_automation
from tmi_ops.settings import Objectives, Settings
from tmi_ops.words import time_words

if TYPE_CHECKING:
    from tmi_ops.objectives.dumps import DumpReading
    from tmi_ops.objectives.facts import RecoverabilityFacts

MET_CHECK = "objective_met"
# What a dump and its proof have before another is begun: nights decide, not minutes.
DUMP_COOLDOWN = timedelta(hours=1)
_ABOUT: Mapping[Topic, str] = {
    Topic.RPO: "How much would be lost, were the server lost now. At risk: the run that cures it begins, once, and "
    "again only after it had its time. Breached: an alert, and the check of `objectives/rpo` fails.",
    Topic.RTO: "How long a recovery would take now. Above the objective: a base backup, incremental where the server "
    "can. A drill that failed, or is more than a week old: a drill.",
    Topic.STREAM: "How much WAL the server keeps for the replication slot, and who receives it: tells before the slot "
    "is lost or the server's disk is full, and catches up.",
    Topic.DUMPS: "How old the newest proven logical backup of this database is. Older than its cadence allows, or the "
    "newest found bad: another is taken and proven. A second one missing: an alert. Base backups and WAL are its "
    "cluster's, whose guards look after them.",
}
_OF_AN_ASSET: Mapping[Topic, str] = {Topic.RPO: "rpo", Topic.RTO: "rto"}


def guarding_definitions(here: Protected, capabilities: Definitions) -> Definitions:
    """The sensors `rpo_guard`, `rto_guard` and `wal_stream_guard` of a cluster, `logical_backup_guard` of a database
    beside its environment's own, with the jobs of `capabilities` as cures."""
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
    @here.given
    def guard(context: SensorEvaluationContext, environment: Environment) -> SensorResult | SkipReason:
        memory, now = Memory.of(context.cursor), datetime.now(UTC)
        if memory.is_well_since(now, interval):
            return SkipReason(f"All was well {time_words((now - (memory.looked_at or now)).total_seconds())} ago.")
        settings = environment.settings
        decision = look(
            topic,
            environment,
            memory,
            min(SHARED_FOR, again / 2),
            lambda: cures_at_work(context.instance, here),
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
    """Remembering when this look was, and since when something that should run by itself does not."""
    known = before.as_of(now).stuck_since
    news = {"stuck_since": (known or now) if is_stuck else None, "looked_at": now}
    return replace(decision, memory=decision.memory.model_copy(update=news))


def tell(settings: Settings, topic: Topic, decision: Decision, stuck: tuple[Finding, ...] = ()) -> None:
    """Alerts, recovery notices, and the outside monitor that notices silence: silent, too, where anything is stuck."""
    from tmi_ops.alerts.dead_man import ping_heartbeat
    from tmi_ops.alerts.desk import AlertDesk

    desk = AlertDesk(settings)
    if decision.alert is not None:
        desk.raise_alert(decision.alert)
    elif decision.amended is not None:
        desk.amend(decision.amended)
    elif decision.resolution is not None:
        desk.resolve(topic.value, decision.resolution)
    tell_of_automation(settings, stuck, decision.memory.stuck_since)
    if topic in (Topic.RPO, Topic.DUMPS):  # of each database one retries what did not arrive
        desk.retry()
    if topic is Topic.RPO:
        if decision.standing is Standing.MET and not stuck:
            ping_heartbeat(settings, decision.said)
        elif decision.standing is Standing.BREACHED:
            ping_heartbeat(settings, decision.said, failed=True)


def _judge_dumps(environment: Environment, timetable: Timetable, now: datetime) -> "DumpReading":
    from tmi_ops.objectives.dumps import judge_dumps
    from tmi_ops.objectives.reading import read_dumps

    return judge_dumps(read_dumps(environment.settings, environment.open_store()), timetable.logical, now)


def _judge(topic: Topic, facts: "RecoverabilityFacts", objectives: Objectives) -> Judged:
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
    """The asset's check, when the verdict has changed since the look before."""
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
    """A breach is an error; a risk, and not to know, are warnings."""
    return AssetCheckSeverity.ERROR if standing is Standing.BREACHED else AssetCheckSeverity.WARN
