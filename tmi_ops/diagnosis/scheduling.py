"""What runs by itself, from Dagster's records; judged in `tmi_ops/automation`, as for the status and the guards."""

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
from tmi_ops.diagnosis.finding import Area
from tmi_ops.diagnosis.patient import Patient
from tmi_ops.errors import SettingsError
from tmi_ops.settings import read_variables
from tmi_ops.words import time_words

_TO_START = "dagster-daemon run  # as a service (docs of Dagster: deployment); embedded: tmi-ops up"


def look_at_settings(patient: Patient) -> Answer:
    """Whether a code location with these would load."""
    try:
        automation = _automation(patient)
    except SettingsError as error:
        cause = "Dagster's code location does not load with it, so nothing runs by itself"
        return critical(error.message.rstrip("."), cause, error.hint)
    state = "on" if automation.running else "off"
    return fine(f"schedules and sensors are {state} by default, in the time zone {automation.timezone}")


def look_at_records(patient: Patient) -> Answer:
    if not patient.dagster.get("DAGSTER_PG_HOST"):
        return not_applicable("no DAGSTER_PG_* is set and no stack with Dagster runs: backups run when somebody asks")
    records = patient.records
    if isinstance(records, str):
        where = f"{patient.dagster['DAGSTER_PG_HOST']}:{patient.dagster.get('DAGSTER_PG_PORT', '5432')}"
        return critical(
            f"Dagster's records at {where}: {(records.splitlines() or ['no answer'])[-1].split('FATAL:')[-1].strip()}",
            "the database that Dagster keeps its runs and schedules in cannot be opened, so nothing runs by itself",
            "start that PostgreSQL, or correct DAGSTER_PG_HOST, _PORT, _USERNAME, _PASSWORD and _DB",
            'eval "$(tmi-ops stack env)"  # sets them for the embedded stack',
        )
    return fine(f"Dagster keeps its records in {records.info.host}:{records.info.port}/{records.info.dbname}")


def look_at_daemon(patient: Patient) -> Answer:
    records = _records(patient)
    if not _has_table(records, "daemon_heartbeats"):
        return critical(
            "Dagster has made no tables there yet", "neither its webserver nor its daemon ever ran with it", _TO_START
        )
    facts = _facts(patient)
    if found := _worst(judge_daemon(facts)):
        return found
    oldest = max(facts.now - one.reported_at for one in facts.daemons)
    return fine(f"{len(facts.daemons)} daemons reported within {time_words(round(oldest.total_seconds()))}")


def look_at_schedules(patient: Patient) -> Answer:
    facts, automation = _facts(patient), _automation(patient)
    if found := _worst(judge_ticks(facts, automation.timezone)):
        return found
    on = sum(one.on for one in facts.instigators)
    if not on and not automation.running:
        return fine("none is on: here nothing begins by itself until somebody switches it on")
    if not facts.instigators:
        return critical(
            "no schedule is on record",
            "the daemon has not loaded the code location (it switches them on), or runs with another TMI_ENV",
            "dagster definitions validate -m tmi_ops.definitions  # with the daemon's variables: shows why",
            "dagster schedule start -m tmi_ops.definitions --start-all",
        )
    stopped = sorted((one.name, one.kind) for one in facts.instigators if not one.on)
    if stopped:
        return warning(
            f"switched off: {', '.join(name for name, _ in stopped)}",
            "somebody switched them off (for maintenance?), so what they do is not done",
            *(f"dagster {kind} start -m tmi_ops.definitions {name}" for name, kind in stopped),
        )
    return fine(f"{on} on, each was at work when it was due")


def look_at_runs(patient: Patient) -> Answer:
    facts = _facts(patient)
    if found := _worst(judge_runs(facts, _automation(patient).timezone)):
        return found
    return fine(f"{len(facts.waiting)} wait for their turn, none for too long" if facts.waiting else "none waits")


def _worst(findings: Iterable[Finding]) -> Answer | None:
    """The worst of them, and how many there are besides."""
    found = worst_first(findings)
    if not found:
        return None
    more = len(found) - 1
    return Answer(f"{found[0].what}; {more} more like it" if more else found[0].what, found)


def _facts(patient: Patient) -> AutomationFacts:
    return facts_of(_records(patient), patient.settings.name)


def _automation(patient: Patient) -> Automation:
    return read_automation(patient.settings.environment, read_variables(patient.variables, patient.directory))


def _records(patient: Patient) -> psycopg.Connection[Any]:
    records = patient.records
    if isinstance(records, str):
        raise psycopg.OperationalError(records)
    return records


def _has_table(records: psycopg.Connection[Any], name: str) -> bool:
    row = records.execute("SELECT to_regclass(%s) IS NOT NULL", (name,)).fetchone()
    return row is not None and bool(row[0])


SCHEDULING_LINKS = (
    Link("automation", "automation's settings", Area.SCHEDULING, look_at_settings, ("settings",)),
    Link("dagster-records", "Dagster's records", Area.SCHEDULING, look_at_records, ("settings",)),
    Link("dagster-daemon", "Dagster daemon", Area.SCHEDULING, look_at_daemon, ("dagster-records",)),
    Link("schedules", "schedules and sensors", Area.SCHEDULING, look_at_schedules, ("dagster-daemon", "automation")),
    Link("runs", "runs that wait", Area.SCHEDULING, look_at_runs, ("dagster-daemon", "automation")),
)
