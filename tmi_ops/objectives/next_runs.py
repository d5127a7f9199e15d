"""Reads from Dagster's database when schedules run next, and what is wrong with the automation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from tmi_ops.automation.cron import next_time
from tmi_ops.automation.facts import AutomationFacts, Kind
from tmi_ops.automation.judging import judge_automation
from tmi_ops.automation.reading import read_automation_facts
from tmi_ops.checks.finding import Finding, Severity, advise


@dataclass(frozen=True)
class NextRun:
    """When a schedule runs next."""

    schedule: str
    at: datetime


@dataclass(frozen=True)
class Automatic:
    """What Dagster runs for an environment.

    Args:
        runs: the next runs, soonest first.
        sensors: how many are running.
        problem: why some of it is unknown or will not run; None: no problem.
        findings: the problems, worst first.
    """

    runs: tuple[NextRun, ...] = ()
    sensors: int = 0
    problem: str | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def stuck(self) -> bool:
        """Whether a schedule, sensor or queue is stuck."""
        return any(one.severity is Severity.CRITICAL for one in self.findings)


def read_automatic(
    dagster: Mapping[str, str], environment: str, timezone: str, now: datetime, *, expected: bool = True
) -> Automatic:
    """Read what Dagster will run for this environment.

    Args:
        dagster: DAGSTER_PG_HOST, _PORT, _USERNAME, _PASSWORD and _DB; empty if not configured.
        timezone: the time zone of the schedules.
        expected: whether to report problems even if no schedule or sensor is switched on.
    """
    if not dagster.get("DAGSTER_PG_HOST"):
        return Automatic(problem="Dagster's database is not configured (DAGSTER_PG_HOST), so its schedules are unknown")
    try:
        facts = read_automation_facts(dagster, environment)
    except psycopg.Error as error:
        # A server's later lines only show the query; of libpq's, the last line says what failed.
        said = error.diag.message_primary or (str(error).strip().splitlines() or [type(error).__name__])[-1]
        problem = f"Dagster's database could not be queried: {said}"
        # Without its database Dagster starts nothing.
        lost = Finding(Severity.CRITICAL, "records", problem, advice=advise("tmi-ops doctor"))
        return Automatic(problem=problem, findings=(lost,) if expected else ())
    is_on = any(one.on for one in facts.instigators)
    findings = judge_automation(facts, timezone) if expected or is_on else ()
    return Automatic(
        runs=tuple(sorted(next_runs(facts, timezone, now), key=lambda run: run.at)),
        sensors=sum(one.on and one.kind is Kind.SENSOR for one in facts.instigators),
        problem=next((one.what for one in findings if one.severity is Severity.CRITICAL), None),
        findings=findings,
    )


def next_runs(facts: AutomationFacts, timezone: str, now: datetime) -> list[NextRun]:
    """When each running schedule runs next. Schedules whose crons cannot be parsed are left out."""
    found: list[NextRun] = []
    for one in facts.instigators:
        if one.on and one.kind is Kind.SCHEDULE and one.crons:
            try:
                at = next_time(one.crons, now, timezone)
            except ValueError:
                continue
            if at is not None:
                found.append(NextRun(one.name, at.astimezone(UTC)))
    return found
