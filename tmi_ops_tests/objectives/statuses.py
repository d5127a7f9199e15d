"""Whole statuses, made of facts, for the tests of what is shown and exported."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from tmi_ops.checks.finding import Outcome
from tmi_ops.health.record import LastAnswer, LastAnswers
from tmi_ops.health.registry import probes_of
from tmi_ops.objectives.facts import LastVerification, RecoverabilityFacts, Usage
from tmi_ops.objectives.history import Day, Hour, Point
from tmi_ops.objectives.next_runs import Automatic, NextRun
from tmi_ops.objectives.status import Status, judge_facts
from tmi_ops.profile.tmi import TMI
from tmi_ops.settings import PostgresSettings, RedisSettings, Settings, StoreSettings
from tmi_ops_tests.objectives.facts import BASE, GB, NOW, PRODUCTION, ago, facts

SETTINGS = Settings(
    environment="production",
    postgres=PostgresSettings(host="db.example.org", user="tmi_ops"),
    redis=RedisSettings(),
    store=StoreSettings(bucket="backups"),
    objectives=PRODUCTION,
    home=Path("/nonexistent"),
)
STORAGE = {
    "base": Usage(40, 36 * GB, GB, 5 * GB),
    "wal": Usage(4000, 9 * GB, GB, 9 * GB),
    "logical": Usage(150, 2 * GB, 0, GB),
}
LAST_VERIFICATION = LastVerification(BASE, "base", ago(days=3), timedelta(minutes=5))


def said(status: Outcome, summary: str, advice: str = "", minutes: float = 12) -> LastAnswer:
    """What a probe said last."""
    return LastAnswer(status=status, summary=summary, advice=advice, at=ago(minutes=minutes))


WELL = {probe.name: said(Outcome.OK, "well") for probe in probes_of(TMI)} | {
    "failed_logins": said(Outcome.UNKNOWN, "the role may not read the log"),
    "schema_findings": said(Outcome.OK, "matches what TMI needs"),
}
SICK = WELL | {
    "connections": said(Outcome.CRITICAL, "96 of 97 connections in use", "end idle sessions"),
    "slow_queries": said(Outcome.WARNING, "400 ms on average", minutes=40),
    "table_bloat": said(Outcome.WARNING, "half of threats is empty"),
    "schema_findings": said(
        Outcome.CRITICAL, "1 error, 0 warnings: 1 missing column", "threats.name: The column is missing."
    ),
}


def day_with(worst: timedelta, measured: timedelta = timedelta(hours=11)) -> Day:
    hour = Hour(worst=worst.total_seconds(), measured=measured.total_seconds())
    return Day(day=NOW.date(), hours={9: hour}, last=Point(at=NOW, newest_at=NOW), storage={})


def a_status(found: RecoverabilityFacts | None = None, **changes: Any) -> Status:
    """One that is well, with the rest as named."""
    found = found or facts(storage=STORAGE, last_verification=LAST_VERIFICATION)
    given: dict[str, Any] = {
        "environment": "production",
        "database": SETTINGS.postgres.describe(),
        "store": SETTINGS.store.describe(),
        "at": NOW,
        "recoverability": judge_facts(SETTINGS, found, [day_with(timedelta(minutes=2))]),
        "store_problem": None,
        "database_problem": found.server_problem,
        "automatic": Automatic((NextRun("hourly_health", NOW + timedelta(minutes=7)),), sensors=3),
        "alerts": (),
        "health": LastAnswers(answers=WELL),
    }
    return Status(**given | changes)


ALL_DOWN = a_status(
    recoverability=None,
    store_problem="The store could not be reached.",
    database_problem="PostgreSQL could not be reached.",
    automatic=Automatic(problem="Dagster's database could not be queried: connection refused"),
    alerts=None,
    health=None,
)
