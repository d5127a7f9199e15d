"""What runs by itself and when next, from the tables in which Dagster keeps its schedules: plain SQL, for Dagster's own
programs may be down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from tmi_ops.objectives.cron import next_time
from tmi_ops.settings import OBJECTIVES

CONNECT_TIMEOUT_S = 3
# Daemons report every 30 s.
DAEMON_SILENT_AFTER = timedelta(minutes=5)
_SCHEDULES = "SELECT instigator_body FROM instigators WHERE instigator_type = 'SCHEDULE' AND status <> 'STOPPED'"
_SENSORS = "SELECT count(*) FROM instigators WHERE instigator_type = 'SENSOR' AND status <> 'STOPPED'"
_DAEMON = "SELECT min((now() AT TIME ZONE 'UTC') - timestamp) FROM daemon_heartbeats"


@dataclass(frozen=True)
class NextRun:
    """When a schedule begins next."""

    schedule: str
    at: datetime


@dataclass(frozen=True)
class Automatic:
    """What runs by itself. `runs`: the soonest first; `sensors`: how many are on; `problem`: why some or all of that is
    not known or will not happen; None: all is well."""

    runs: tuple[NextRun, ...] = ()
    sensors: int = 0
    problem: str | None = None


def read_automatic(dagster: Mapping[str, str], environment: str, timezone: str, now: datetime) -> Automatic:
    """What Dagster will begin for this environment.

    Args:
        dagster: DAGSTER_PG_HOST, _PORT, _USERNAME, _PASSWORD and _DB; empty where nobody told.
        timezone: of the schedules.
    """
    if not dagster.get("DAGSTER_PG_HOST"):
        return Automatic(problem="Dagster's records are not configured (DAGSTER_PG_HOST): nothing is known to run")
    try:
        with psycopg.connect(
            host=dagster["DAGSTER_PG_HOST"],
            port=dagster.get("DAGSTER_PG_PORT", "5432"),
            user=dagster.get("DAGSTER_PG_USERNAME", "dagster"),
            password=dagster.get("DAGSTER_PG_PASSWORD"),
            dbname=dagster.get("DAGSTER_PG_DB", "dagster"),
            connect_timeout=CONNECT_TIMEOUT_S,
            autocommit=True,
        ) as records:
            bodies = [json.loads(row[0]) for row in records.execute(_SCHEDULES).fetchall()]
            sensors = records.execute(_SENSORS).fetchone()
            daemon = records.execute(_DAEMON).fetchone()
    except psycopg.Error as error:
        # A server's own word points at the query in later lines; libpq's last line is the one that tells.
        said = error.diag.message_primary or (str(error).strip().splitlines() or [type(error).__name__])[-1]
        return Automatic(problem=f"Dagster could not be asked: {said}")
    runs = [run for body in bodies if (run := next_run(body, environment, timezone, now)) is not None]
    return Automatic(
        runs=tuple(sorted(runs, key=lambda run: run.at)),
        sensors=int(sensors[0]) if sensors else 0,
        problem=_silence(daemon[0] if daemon else None),
    )


def next_run(body: Mapping[str, Any], environment: str, timezone: str, now: datetime) -> NextRun | None:
    """When a schedule, as Dagster keeps it, begins next; None where it is another environment's or cannot be told."""
    if not _is_of(body, environment):
        return None
    cron = (body.get("job_specific_data") or body.get("instigator_data") or {}).get("cron_schedule")
    try:
        at = next_time([cron] if isinstance(cron, str) else list(cron or ()), now, timezone)
    except ValueError:
        return None
    name = str(body.get("origin", {}).get("instigator_name") or body.get("origin", {}).get("job_name") or "a schedule")
    return None if at is None else NextRun(name, at.astimezone(UTC))


def _is_of(body: Mapping[str, Any], environment: str) -> bool:
    """Several environments may share one Dagster, each in a code location that is called as it is."""
    repository = body.get("origin", {}).get("external_repository_origin", {})
    location = repository.get("repository_location_origin", {}).get("location_name", environment)
    return location == environment or location not in OBJECTIVES


def _silence(age: timedelta | None) -> str | None:
    if age is None:
        return "Dagster's daemon has never reported: nothing of this will begin"
    if age > DAEMON_SILENT_AFTER:
        return f"Dagster's daemon has not reported for {age // timedelta(minutes=1)} min: nothing of this will begin"
    return None
