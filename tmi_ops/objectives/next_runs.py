"""What runs by itself and when next, and what is wrong with that: from Dagster's records."""

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
    """When a schedule begins next."""

    schedule: str
    at: datetime


@dataclass(frozen=True)
class Automatic:
    """What runs by itself.

    Args:
        runs: the soonest first.
        sensors: how many are on.
        problem: why some or all of that is not known or will not happen; None: all is well.
        findings: what is wrong, the worst first.
    """

    runs: tuple[NextRun, ...] = ()
    sensors: int = 0
    problem: str | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def stuck(self) -> bool:
        """Whether something that should run by itself does not."""
        return any(one.severity is Severity.CRITICAL for one in self.findings)


def read_automatic(
    dagster: Mapping[str, str], environment: str, timezone: str, now: datetime, *, expected: bool = True
) -> Automatic:
    """What Dagster will begin for this environment.

    Args:
        dagster: DAGSTER_PG_HOST, _PORT, _USERNAME, _PASSWORD and _DB; empty where nobody told.
        timezone: of the schedules.
        expected: whether anything should run by itself, where nothing is switched on.
    """
    if not dagster.get("DAGSTER_PG_HOST"):
        return Automatic(problem="Dagster's records are not configured (DAGSTER_PG_HOST): nothing is known to run")
    try:
        facts = read_automation_facts(dagster, environment)
    except psycopg.Error as error:
        # A server's own word points at the query in later lines; libpq's last line is the one that tells.
        said = error.diag.message_primary or (str(error).strip().splitlines() or [type(error).__name__])[-1]
        problem = f"Dagster could not be asked: {said}"
        # Where it keeps its records is all that begins anything: without them nothing does.
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
    """When each schedule that is on begins next; those whose times cannot be read are left out."""
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
