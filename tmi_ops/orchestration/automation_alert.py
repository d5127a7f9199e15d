"""Each guard also checks that all schedules and sensors tick, and alerts if one does not."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg

from tmi_ops.automation.judging import TICK_GRACE, judge_automation
from tmi_ops.automation.reading import read_automation_facts
from tmi_ops.checks.finding import Finding, Severity, advise
from tmi_ops.orchestration.protected import Protected

if TYPE_CHECKING:
    from tmi_ops.alerts.alert import Alert
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


def tell_of_automation(settings: Settings, stuck: tuple[Finding, ...], since: datetime | None) -> None:
    """Alert if it lasts; a daemon that has just started gets time for a first tick of everything."""
    from tmi_ops.alerts.service import AlertService

    now = datetime.now(UTC)
    if not stuck or since is None:
        AlertService(settings).resolve(ALERT, "All schedules, sensors and queues work.")
    elif now - since >= TICK_GRACE:
        AlertService(settings).raise_alert(automation_alert(stuck, since))


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
