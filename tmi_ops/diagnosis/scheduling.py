"""Dagster's daemon and schedules, from the tables it keeps: plain SQL, as the person on call would ask."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg

from tmi_ops.diagnosis.chain import Link
from tmi_ops.diagnosis.finding import Area, Finding, failed, fine, not_configured, warning
from tmi_ops.diagnosis.patient import Patient

# Daemons write their heartbeat every 30 s; Dagster's own UI calls them dead after 30 min, which is long at night.
HEARTBEAT_LATE = timedelta(minutes=5)
# Its schedules wait for a person; everywhere else they are on from the first day.
_STARTS_NONE = "development"
_TO_START = "dagster-daemon run  # as a service (docs of Dagster: deployment); embedded: tmi-ops up"


@dataclass(frozen=True)
class Tick:
    """A schedule's or sensor's newest tick."""

    name: str
    status: str
    error: str
    age: timedelta


def look_at_records(patient: Patient) -> Finding:
    if not patient.dagster.get("DAGSTER_PG_HOST"):
        return not_configured("no DAGSTER_PG_* is set and no stack with Dagster runs: backups run when somebody asks")
    records = patient.records
    if isinstance(records, str):
        where = f"{patient.dagster['DAGSTER_PG_HOST']}:{patient.dagster.get('DAGSTER_PG_PORT', '5432')}"
        return failed(
            f"Dagster's records at {where}: {records.splitlines()[-1].split('FATAL:')[-1].strip()}",
            "the database that Dagster keeps its runs and schedules in cannot be opened, so nothing runs by itself",
            "start that PostgreSQL, or correct DAGSTER_PG_HOST, _PORT, _USERNAME, _PASSWORD and _DB",
            'eval "$(tmi-ops stack env)"  # sets them for the embedded stack',
        )
    return fine(f"Dagster keeps its records in {records.info.host}:{records.info.port}/{records.info.dbname}")


def look_at_daemon(patient: Patient) -> Finding:
    records = _records(patient)
    if not _has_table(records, "daemon_heartbeats"):
        return failed(
            "Dagster has made no tables there yet", "neither its webserver nor its daemon ever ran with it", _TO_START
        )
    rows = records.execute(
        "SELECT daemon_type, (now() AT TIME ZONE 'UTC') - timestamp, body FROM daemon_heartbeats ORDER BY 2 DESC"
    ).fetchall()
    if not rows:
        return failed("no daemon has ever reported", "the Dagster daemon was never started", _TO_START)
    late = [(name, age) for name, age, _ in rows if age > HEARTBEAT_LATE]
    youngest = min(age for _, age, _ in rows)
    if len(late) == len(rows):
        return failed(
            f"the Dagster daemon last reported {_words(youngest)} ago",
            "the daemon is not running: no schedule fires, no queued run starts",
            _TO_START,
            "see the end of its log for why it stopped (embedded: dagster-daemon.log, named by tmi-ops stack status)",
        )
    failing = [(name, said) for name, _, body in rows if (said := _daemon_error(body))]
    if failing:
        return failed(
            f"{failing[0][0]}: {failing[0][1]}",
            "the daemon runs and fails at its work, so schedules may not fire",
            "mend what the error names, then restart the daemon",
        )
    if late:
        return warning(
            f"{late[0][0]} last reported {_words(late[0][1])} ago, the others now",
            "one of the daemon's threads hangs, or belongs to a feature that is switched off since",
            "restart the daemon",
        )
    return fine(f"{len(rows)} daemons reported within {_words(max(age for _, age, _ in rows))}")


def look_at_schedules(patient: Patient) -> Finding:
    records = _records(patient)
    rows = records.execute("SELECT selector_id, status, instigator_body, instigator_type FROM instigators").fetchall()
    states = {selector: (_name(body), status) for selector, status, body, _ in rows}
    kinds = {_name(body): kind.lower() for _, _, body, kind in rows}
    schedules = dict(states.values())
    failing = [tick for tick in _newest_ticks(records, states) if tick.status == "FAILURE"]
    if failing:
        tick = failing[0]
        return failed(
            f"{tick.name} failed at its last tick, {_words(tick.age)} ago: {tick.error}",
            f"the {kinds[tick.name]} fires and its code fails before a run begins (not loaded, or a setting lacks)",
            "dagster definitions validate -m tmi_ops.definitions  # with the daemon's variables: shows why",
        )
    stopped = sorted(name for name, status in schedules.items() if status == "STOPPED")
    if not schedules and patient.settings.environment == _STARTS_NONE:
        return fine(f"none switched on: {_STARTS_NONE} starts none by itself")
    if not schedules:
        return warning(
            "no schedule is on record",
            "the daemon has not loaded the code location (it switches them on), or runs with another TMI_ENV",
            "dagster schedule list -m tmi_ops.definitions  # then switch them on:",
            "dagster schedule start -m tmi_ops.definitions --start-all",
        )
    if stopped:
        return warning(
            f"switched off: {', '.join(stopped)}",
            "somebody switched them off (for maintenance?), so what they do is not done",
            *(f"dagster {kinds[name]} start -m tmi_ops.definitions {name}" for name in stopped),
        )
    return fine(f"{len(schedules)} on, the newest tick of each is well")


def _newest_ticks(records: psycopg.Connection[Any], states: dict[str, tuple[str, str]]) -> list[Tick]:
    rows = records.execute(
        "SELECT DISTINCT ON (selector_id) selector_id, status, tick_body, (now() AT TIME ZONE 'UTC') - timestamp "
        "FROM job_ticks WHERE selector_id = ANY(%s) ORDER BY selector_id, timestamp DESC",
        (list(states),),
    ).fetchall()
    return [Tick(states[selector][0], status, _tick_error(body), age) for selector, status, body, age in rows]


def _name(body: str) -> str:
    origin = json.loads(body).get("origin", {})
    return str(origin.get("instigator_name") or origin.get("job_name") or "a schedule")


def _tick_error(body: str) -> str:
    error = (json.loads(body).get("tick_data", json.loads(body)) or {}).get("error") or {}
    return _one_line(str(error.get("message", "")))


def _daemon_error(body: str | None) -> str:
    errors = json.loads(body or "{}").get("errors") or []
    return _one_line(str(errors[0].get("message", ""))) if errors else ""


def _one_line(said: str) -> str:
    return next((line.strip() for line in said.splitlines() if line.strip()), "it said nothing")


def _records(patient: Patient) -> psycopg.Connection[Any]:
    records = patient.records
    if isinstance(records, str):
        raise psycopg.OperationalError(records)
    return records


def _has_table(records: psycopg.Connection[Any], name: str) -> bool:
    row = records.execute("SELECT to_regclass(%s) IS NOT NULL", (name,)).fetchone()
    return row is not None and bool(row[0])


def _words(age: timedelta) -> str:
    seconds = max(0, int(age.total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


SCHEDULING_LINKS = (
    Link("dagster-records", "Dagster's records", Area.SCHEDULING, look_at_records, ("settings",)),
    Link("dagster-daemon", "Dagster daemon", Area.SCHEDULING, look_at_daemon, ("dagster-records",)),
    Link("schedules", "schedules", Area.SCHEDULING, look_at_schedules, ("dagster-daemon",)),
)
