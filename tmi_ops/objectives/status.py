"""What the status screen shows, each part read separately: one that cannot be read does not affect the others."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tmi_ops.alerts.record import AlertRecord
from tmi_ops.alerts.service import AlertService
from tmi_ops.automation.switch import read_automation
from tmi_ops.checks.finding import Finding, Severity, advise
from tmi_ops.errors import OpsError
from tmi_ops.health.last_reading import open_saved_text
from tmi_ops.health.record import LastAnswers, last_answers
from tmi_ops.objectives.acting import Judged
from tmi_ops.objectives.dumps import DumpReading, judge_dumps
from tmi_ops.objectives.facts import RecoverabilityFacts
from tmi_ops.objectives.history import Day, Worst, growth_per_day, read_history, worst_over
from tmi_ops.objectives.next_runs import Automatic, read_automatic
from tmi_ops.objectives.reading import read_recoverability
from tmi_ops.objectives.rpo import RpoReading, judge_rpo
from tmi_ops.objectives.rto import RtoForecast, forecast_rto
from tmi_ops.objectives.server import ask_about_wal
from tmi_ops.objectives.standing import Standing, worst_of
from tmi_ops.objectives.store_usage import OTHER, total_of
from tmi_ops.objectives.stream import StreamReading, judge_stream
from tmi_ops.objectives.timetable import plan_timetable
from tmi_ops.profile import Profile
from tmi_ops.profile.tmi import TMI
from tmi_ops.settings import Settings
from tmi_ops.store.objects import ObjectStore, open_store

DAY, MONTH = timedelta(days=1), timedelta(days=30)


@dataclass(frozen=True)
class Recoverability:
    """What the store says, with the status of each objective. `growth`: bytes a day; None: the history is too short.
    `dumps`: None for an environment's own database, whose RPO counts them."""

    facts: RecoverabilityFacts
    rpo: RpoReading
    rto: RtoForecast
    stream: StreamReading
    dumps: DumpReading | None
    worst_day: Worst
    worst_month: Worst
    growth: float | None


@dataclass(frozen=True)
class Status:
    """One environment at one moment.

    Args:
        recoverability: what the store says; None: it could not be read, and `store_problem` says why.
        database_problem: why the server could not be queried; None: it was.
        alerts: the open ones; None: they could not be read.
        health: the last results of the probes; None: they never ran, or the results cannot be read.
    """

    environment: str
    database: str
    store: str
    at: datetime
    recoverability: Recoverability | None
    store_problem: str | None
    database_problem: str | None
    automatic: Automatic
    alerts: tuple[AlertRecord, ...] | None
    health: LastAnswers | None
    profile: Profile = TMI

    @property
    def standing(self) -> Standing:
        """The worst status of the objectives; unknown if the store could not be read."""
        if self.recoverability is None:
            return Standing.UNKNOWN
        stuck = (Standing.AT_RISK,) if self.automatic.stuck else ()
        return worst_of([*(one.standing for one in self.judged), *stuck])

    @property
    def judged(self) -> tuple[Judged, ...]:
        """Every objective that could be judged, in display order."""
        found = self.recoverability
        if found is None:
            return ()
        # Without the database the stream is unknown; the RPO shows whether that matters.
        stream = () if self.database_problem else (found.stream,)
        return (found.rpo, found.rto, *stream, *([found.dumps] if found.dumps else []))

    @property
    def saw_all(self) -> bool:
        """Whether both the store and the database could be read."""
        return self.recoverability is not None and self.database_problem is None


def read_status(
    settings: Settings, variables: Mapping[str, str], dagster: Mapping[str, str], now: datetime | None = None
) -> Status:
    """Read everything in parallel.

    Args:
        variables: of the process and the .env files, for the time zone of the schedules.
        dagster: how to reach Dagster's database.
    """
    now = now or datetime.now(UTC)
    with ThreadPoolExecutor(4, thread_name_prefix="status") as pool:
        automatic = pool.submit(_automatic, settings, variables, dagster, now)
        alerts = pool.submit(_open_alerts, settings)
        health = pool.submit(lambda: last_answers(open_saved_text(settings)))
        recoverability, store_problem = _recoverability(settings, now)
        facts = recoverability.facts if recoverability else None
        database_problem = facts.server_problem if facts else _database_problem(settings)
        return Status(
            environment=settings.name,
            database=settings.postgres.describe(),
            store=settings.store.describe(),
            at=now,
            recoverability=recoverability,
            store_problem=store_problem,
            database_problem=database_problem,
            automatic=automatic.result(),
            alerts=alerts.result(),
            health=health.result(),
            profile=settings.profile,
        )


def judge_all(settings: Settings, store: ObjectStore, now: datetime | None = None) -> Recoverability:
    """Read the store and, if it answers, the server; judge the objectives, and read the history.

    Raises:
        StoreError: the store could not be read.
    """
    facts = read_recoverability(settings, store, now, whole=True)
    days = read_history(store, facts.server_now)
    return judge_facts(settings, facts, days)


def judge_facts(settings: Settings, facts: RecoverabilityFacts, days: list[Day]) -> Recoverability:
    """The status of all objectives. Pure."""
    objectives = settings.objectives
    rpo = judge_rpo(facts, objectives)
    return Recoverability(
        facts=facts,
        rpo=rpo,
        rto=forecast_rto(facts, objectives),
        stream=judge_stream(facts, objectives),
        dumps=_dumps(settings, facts),
        worst_day=worst_over(days, DAY, facts.server_now, rpo.value),
        worst_month=worst_over(days, MONTH, facts.server_now, rpo.value),
        growth=growth_per_day(days, facts.server_now, _size_of_backups(facts)),
    )


def _dumps(settings: Settings, facts: RecoverabilityFacts) -> DumpReading | None:
    if settings.database is None:
        return None
    return judge_dumps(facts.logical, plan_timetable(settings.objectives).logical, facts.server_now)


def _size_of_backups(facts: RecoverabilityFacts) -> int:
    return total_of({kind: one for kind, one in facts.storage.items() if kind != OTHER}).size


def _recoverability(settings: Settings, now: datetime) -> tuple[Recoverability | None, str | None]:
    try:
        return judge_all(settings, open_store(settings.store, settings.environment), now), None
    except OpsError as error:
        return None, error.message


def _database_problem(settings: Settings) -> str | None:
    try:
        ask_about_wal(settings)
    except OpsError as error:
        return error.message
    return None


def _automatic(
    settings: Settings, variables: Mapping[str, str], dagster: Mapping[str, str], now: datetime
) -> Automatic:
    try:
        automation = read_automation(settings.environment, variables)
    except OpsError as error:
        broken = Finding(Severity.CRITICAL, "automation", error.message.rstrip("."), advice=advise(error.hint))
        return Automatic(problem=error.message, findings=(broken,))
    return read_automatic(dagster, settings.name, automation.timezone, now, expected=automation.running)


def _open_alerts(settings: Settings) -> tuple[AlertRecord, ...] | None:
    service = AlertService(settings)
    try:
        records = service.records()
    except OSError:
        return None
    if service.book.problem is not None and not records:
        return None
    return tuple(record for record in records if record.is_open)
