"""Runs every probe in turn; a probe that fails does not affect the others."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import psycopg

from tmi_ops.checks.finding import Answer, Outcome, Result, worst_outcome
from tmi_ops.errors import SettingsError
from tmi_ops.health.answer import CannotTell, Cause, Reading, answer
from tmi_ops.health.counters import Window
from tmi_ops.health.counting import read_counters
from tmi_ops.health.last_reading import SavedText, open_saved_text, recall, remember, window
from tmi_ops.health.probe import AnyProbe, Area
from tmi_ops.health.record import record_answers
from tmi_ops.health.registry import PROBES
from tmi_ops.health.session import ProbeSession, Server, explain
from tmi_ops.health.thresholds import Thresholds, overridden
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import Report
from tmi_ops.settings import parse_duration

if TYPE_CHECKING:
    from tmi_ops.settings import PostgresSettings, Settings

TIMEOUT_S = 10.0
# With --exact-bloat, pgstattuple reads entire tables.
EXACT_TIMEOUT_S = 1800.0
TIMEOUT_VARIABLE = "TMI_OPS_HEALTH_TIMEOUT"
SKIP_VARIABLE = "TMI_OPS_HEALTH_SKIP"


@dataclass(frozen=True)
class Examination:
    """The options of an examination.

    Attributes:
        only: names of probes; empty: all.
        thresholds: `name=warning,critical`; they override the environment's variables.
        variables: of the environment (`settings.read_variables`).
        reader: the login that runs the profile's own checks; None: the one that runs all others.
    """

    only: tuple[str, ...] = ()
    thresholds: tuple[str, ...] = ()
    exact_bloat: bool = False
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    reader: PostgresSettings | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Examined:
    """The result of one probe.

    Attributes:
        reading: None if there is none.
        seconds: how long the probe took.
        cause: why the outcome is unknown, if it is.
    """

    probe: AnyProbe
    thresholds: Thresholds
    answer: Answer
    reading: Reading | None
    seconds: float
    cause: Cause | None = None

    @property
    def outcome(self) -> Outcome:
        return self.answer.outcome

    @property
    def result(self) -> Result:
        """In the form common to all checks."""
        return Result(self.probe.name, self.probe.title, self.probe.area.value, self.answer)


@dataclass(frozen=True)
class HealthReport:
    """The results of an examination.

    Attributes:
        since: when the reading that rates are measured from was taken; None on a first run.
        kept_in: where this run's reading was stored for the next one; None if it could not be stored.
    """

    environment: str
    address: str
    server: Server
    results: tuple[Examined, ...]
    since: datetime | None
    restarted: bool
    kept_in: str | None

    @property
    def outcome(self) -> Outcome:
        return worst_outcome(result.outcome for result in self.results)

    @property
    def told_nothing(self) -> bool:
        """Whether all outcomes are unknown."""
        return all(result.outcome is Outcome.UNKNOWN for result in self.results)

    def at(self, outcome: Outcome) -> tuple[Examined, ...]:
        """The results of one outcome."""
        return tuple(result for result in self.results if result.outcome is outcome)

    def of(self, area: Area) -> tuple[Examined, ...]:
        """The results of one area, in their usual order."""
        return tuple(result for result in self.results if result.probe.area is area)

    def result(self, name: str) -> Examined | None:
        """The result of a probe; None if it was not run."""
        return next((result for result in self.results if result.probe.name == name), None)


def examine(settings: Settings, how: Examination, report: Report) -> HealthReport:
    """Run the probes that `how` names, and store the counters for the next run's rates.

    Raises:
        SettingsError: `how` names an unknown probe, or a threshold is malformed.
        DatabaseError: the server could not be reached, refused the connection, or the connection was lost.
    """
    probes = tuple(probe for probe in chosen(how.only, how.variables) if probe.fits(settings.profile))
    thresholds = thresholds_in_force(how)
    with connect(settings.postgres) as connection:
        session = ProbeSession(
            connection, settings.postgres, timeout_of(how), how.exact_bloat, settings.profile, how.reader
        )
        saved = open_saved_text(settings)
        session.window = window(recall(saved), read_counters(session))
        results = []
        with report.phase("health", total=len(probes), unit="steps") as phase:
            for probe in probes:
                results.append(ask(probe, session, thresholds[probe.name]))
                phase.advance(1)
        kept = remember(saved, session.window)
        _record(saved, results, how)
        return HealthReport(
            environment=settings.environment,
            address=settings.postgres.describe(),
            server=session.server,
            results=tuple(results),
            since=_since(session.window),
            restarted=session.window.restarted,
            kept_in=saved.where if kept else None,
        )


def _record(saved: SavedText, results: Iterable[Examined], how: Examination) -> None:
    """Record the answers, except those judged by thresholds given for this run only."""
    for_this_run = {option.partition("=")[0] for option in how.thresholds}
    answers = {one.probe.name: one.answer for one in results if one.probe.name not in for_this_run}
    record_answers(saved, answers, whole=not how.only and not for_this_run)


def ask(probe: AnyProbe, session: ProbeSession, thresholds: Thresholds) -> Examined:
    """Read and judge. A probe that fails becomes UNKNOWN; a lost connection is raised.

    Raises:
        DatabaseError: the connection was lost.
    """
    started = time.monotonic()
    reading: Reading | None = None
    cause: Cause | None = None
    try:
        session.require(probe.needs)
        reading = probe.read(session)
        answer = probe.judge(reading, thresholds)
    except CannotTell as untold:
        answer, cause = unknown(untold), untold.cause
    except psycopg.Error as error:
        if session.connection.closed:
            raise
        refused = explain(error, session)
        answer, cause = unknown(refused), refused.cause
    return Examined(probe, thresholds, answer, reading, time.monotonic() - started, cause)


def unknown(untold: CannotTell) -> Answer:
    """The answer of a probe that has no reading."""
    return answer(Outcome.UNKNOWN, untold.what, untold.advice, untold.remedy)


def chosen(only: Iterable[str], variables: Mapping[str, str]) -> tuple[AnyProbe, ...]:
    """The probes to run: those named, else all but those that TMI_OPS_HEALTH_SKIP lists.

    Raises:
        SettingsError: there is no probe of that name.
    """
    names = {probe.name for probe in PROBES}
    wanted = set(only)
    skipped = {name.strip() for name in variables.get(SKIP_VARIABLE, "").split(",") if name.strip()}
    for where, given in (("--probe", wanted), (SKIP_VARIABLE, skipped)):
        if unheard := sorted(given - names):
            raise SettingsError(
                f"{where} names an unknown probe: {', '.join(unheard)}.", hint=f"use one of {', '.join(sorted(names))}"
            )
    return tuple(probe for probe in PROBES if (probe.name in wanted if wanted else probe.name not in skipped))


def thresholds_in_force(how: Examination) -> dict[str, Thresholds]:
    """The thresholds of every probe.

    Raises:
        SettingsError: an override is malformed.
    """
    return overridden({probe.name: probe.thresholds for probe in PROBES}, how.variables, how.thresholds)


def timeout_of(how: Examination) -> float:
    """The time limit of one statement, in seconds."""
    text = how.variables.get(TIMEOUT_VARIABLE)
    if not text:
        return EXACT_TIMEOUT_S if how.exact_bloat else TIMEOUT_S
    try:
        return parse_duration(text).total_seconds()
    except ValueError as error:
        raise SettingsError(f"{TIMEOUT_VARIABLE} is malformed: {error}.", hint="use a duration such as 30s") from None


def _since(seen: Window) -> datetime | None:
    return seen.last.taken_at if seen.last else None
