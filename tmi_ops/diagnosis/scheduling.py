"""Checks of Dagster's daemon, schedules, sensors and runs, judged in `tmi_ops/automation` as for status and guards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg

from tmi_ops.automation.facts import AutomationFacts
from tmi_ops.automation.judging import judge_daemon, judge_runs, judge_ticks
from tmi_ops.automation.reading import facts_of
from tmi_ops.automation.switch import Automation, read_automation
from tmi_ops.checks.finding import Answer, Finding, critical, fine, not_applicable, warning, worst_first
from tmi_ops.diagnosis.chain import Link
from tmi_ops.diagnosis.context import DiagnosisContext
from tmi_ops.diagnosis.finding import Area
from tmi_ops.errors import SettingsError
from tmi_ops.settings import read_variables
from tmi_ops.text import format_duration

_TO_START = "dagster-daemon run  # as a service (see Dagster's deployment docs); for the embedded stack: tmi-ops up"


def look_at_settings(context: DiagnosisContext) -> Answer:
    """Whether a code location with these settings would load."""
    try:
        automation = _automation(context)
    except SettingsError as error:
        cause = "Dagster cannot load the code location with this setting, so no schedule or sensor runs"
        return critical(error.message.rstrip("."), cause, error.hint)
    state = "on" if automation.running else "off"
    return fine(f"schedules and sensors are {state} by default, in the time zone {automation.timezone}")


def look_at_records(context: DiagnosisContext) -> Answer:
    if not context.dagster.get("DAGSTER_PG_HOST"):
        return not_applicable("no DAGSTER_PG_* is set and no embedded stack with Dagster runs: nothing is scheduled")
    records = context.records
    if isinstance(records, str):
        where = f"{context.dagster['DAGSTER_PG_HOST']}:{context.dagster.get('DAGSTER_PG_PORT', '5432')}"
        return critical(
            f"Dagster's records at {where}: {(records.splitlines() or ['no answer'])[-1].split('FATAL:')[-1].strip()}",
            "Dagster's database of runs and schedules is not available, so no schedule or sensor runs",
            "start that PostgreSQL, or correct DAGSTER_PG_HOST, _PORT, _USERNAME, _PASSWORD and _DB",
            'eval "$(tmi-ops stack env)"  # sets them for the embedded stack',
        )
    return fine(f"Dagster's records are in {records.info.host}:{records.info.port}/{records.info.dbname}")


def look_at_daemon(context: DiagnosisContext) -> Answer:
    records = _records(context)
    if not _has_table(records, "daemon_heartbeats"):
        return critical(
            "Dagster's database has no tables yet",
            "neither Dagster's webserver nor its daemon has ever run with it",
            _TO_START,
        )
    facts = _facts(context)
    if found := _worst(judge_daemon(facts)):
        return found
    oldest = max(facts.now - one.reported_at for one in facts.daemons)
    return fine(f"{len(facts.daemons)} daemons reported within {format_duration(round(oldest.total_seconds()))}")


def look_at_schedules(context: DiagnosisContext) -> Answer:
    facts, automation = _facts(context), _automation(context)
    if found := _worst(judge_ticks(facts, automation.timezone)):
        return found
    on = sum(one.on for one in facts.instigators)
    if not on and not automation.running:
        return fine("none is on; this is the default in this environment")
    if not facts.instigators:
        return critical(
            "Dagster's records hold no schedule",
            "the daemon has not loaded the code location, or runs with another TMI_ENV",
            "dagster definitions validate -m tmi_ops.definitions  # with the daemon's variables; shows why",
            "dagster schedule start -m tmi_ops.definitions --start-all",
        )
    stopped = sorted((one.name, one.kind) for one in facts.instigators if not one.on)
    if stopped:
        return warning(
            f"switched off: {', '.join(name for name, _ in stopped)}",
            "somebody switched them off (for maintenance?), so their work is not done",
            *(f"dagster {kind} start -m tmi_ops.definitions {name}" for name, kind in stopped),
        )
    return fine(f"{on} on; each ran when it was due")


def look_at_runs(context: DiagnosisContext) -> Answer:
    facts = _facts(context)
    if found := _worst(judge_runs(facts, _automation(context).timezone)):
        return found
    return fine(f"{len(facts.waiting)} queued, none for too long" if facts.waiting else "none queued")


def _worst(findings: Iterable[Finding]) -> Answer | None:
    """The worst finding, and the number of others."""
    found = worst_first(findings)
    if not found:
        return None
    more = len(found) - 1
    return Answer(f"{found[0].what}; {more} more" if more else found[0].what, found)


def _facts(context: DiagnosisContext) -> AutomationFacts:
    return facts_of(_records(context), context.settings.name)


def _automation(context: DiagnosisContext) -> Automation:
    return read_automation(context.settings.environment, read_variables(context.variables, context.directory))


def _records(context: DiagnosisContext) -> psycopg.Connection[Any]:
    records = context.records
    if isinstance(records, str):
        raise psycopg.OperationalError(records)
    return records


def _has_table(records: psycopg.Connection[Any], name: str) -> bool:
    row = records.execute("SELECT to_regclass(%s) IS NOT NULL", (name,)).fetchone()
    return row is not None and bool(row[0])


SCHEDULING_LINKS = (
    Link("automation", "automation settings", Area.SCHEDULING, look_at_settings, ("settings",)),
    Link("dagster-records", "Dagster's records", Area.SCHEDULING, look_at_records, ("settings",)),
    Link("dagster-daemon", "Dagster daemon", Area.SCHEDULING, look_at_daemon, ("dagster-records",)),
    Link("schedules", "schedules and sensors", Area.SCHEDULING, look_at_schedules, ("dagster-daemon", "automation")),
    Link("runs", "queued runs", Area.SCHEDULING, look_at_runs, ("dagster-daemon", "automation")),
)
