"""Reads Dagster's database with plain SQL, because Dagster's own programs may be down."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from tmi_ops.automation.facts import AutomationFacts, Daemon, Held, Instigator, Kind, Tick, Waiting
from tmi_ops.automation.naming import flat_name, is_called_for
from tmi_ops.settings import OBJECTIVES

CONNECT_TIMEOUT_S = 3
STATEMENT_TIMEOUT_MS = 10_000
_NOW = "SELECT now() AT TIME ZONE 'UTC'"
_DAEMONS = "SELECT daemon_type, timestamp, body FROM daemon_heartbeats ORDER BY daemon_type"
_INSTIGATORS = """
SELECT i.instigator_type, i.status, i.instigator_body, i.create_timestamp, t.timestamp, t.status, t.tick_body
FROM instigators i LEFT JOIN LATERAL (
  SELECT timestamp, status, tick_body FROM job_ticks WHERE selector_id = i.selector_id ORDER BY timestamp DESC LIMIT 1
) t ON true
"""
_WAITING = """
SELECT r.run_id, r.pipeline_name, r.create_timestamp FROM runs r
JOIN run_tags e ON e.run_id = r.run_id AND e.key = 'tmi_ops/environment' AND e.value = %s
WHERE r.status IN ('QUEUED', 'NOT_STARTED', 'STARTING') ORDER BY r.create_timestamp
"""
_UNREPEATED = """
SELECT r.run_id, r.pipeline_name, r.update_timestamp FROM runs r
JOIN run_tags e ON e.run_id = r.run_id AND e.key = 'tmi_ops/environment' AND e.value = %s
JOIN run_tags w ON w.run_id = r.run_id AND w.key = 'dagster/will_retry' AND w.value = 'true'
WHERE r.status = 'FAILURE' AND r.update_timestamp > (now() AT TIME ZONE 'UTC') - interval '2 days'
  AND NOT EXISTS (SELECT FROM run_tags c WHERE c.key = 'dagster/parent_run_id' AND c.value = r.run_id)
  AND NOT EXISTS (SELECT FROM runs n WHERE n.pipeline_name = r.pipeline_name AND n.status = 'SUCCESS' AND n.id > r.id)
ORDER BY r.update_timestamp
"""
_HELD = """
SELECT s.concurrency_key, s.run_id FROM concurrency_slots s LEFT JOIN runs r ON r.run_id = s.run_id
WHERE s.run_id IS NOT NULL AND s.concurrency_key LIKE %s
  AND (r.status IS NULL OR r.status IN ('SUCCESS', 'FAILURE', 'CANCELED'))
  AND coalesce(r.update_timestamp, s.create_timestamp) < (now() AT TIME ZONE 'UTC') - interval '2 minutes'
"""


def read_automation_facts(dagster: Mapping[str, str], environment: str) -> AutomationFacts:
    """Read everything once.

    Args:
        dagster: DAGSTER_PG_HOST, _PORT, _USERNAME, _PASSWORD and _DB.

    Raises:
        psycopg.Error: the database could not be opened, or is not Dagster's.
    """
    with psycopg.connect(
        host=dagster["DAGSTER_PG_HOST"],
        port=dagster.get("DAGSTER_PG_PORT", "5432"),
        user=dagster.get("DAGSTER_PG_USERNAME", "dagster"),
        password=dagster.get("DAGSTER_PG_PASSWORD"),
        dbname=dagster.get("DAGSTER_PG_DB", "dagster"),
        connect_timeout=CONNECT_TIMEOUT_S,
        options=f"-c statement_timeout={STATEMENT_TIMEOUT_MS}",
        autocommit=True,
    ) as records:
        return facts_of(records, environment)


def facts_of(records: psycopg.Connection[Any], environment: str) -> AutomationFacts:
    """Like `read_automation_facts`, with an open connection."""
    row = records.execute(_NOW).fetchone()
    now = _utc(row[0]) if row else datetime.now(UTC)
    return AutomationFacts(
        now=now,
        daemons=tuple(
            Daemon(name, _utc(at), _daemon_error(body)) for name, at, body in records.execute(_DAEMONS).fetchall()
        ),
        instigators=tuple(_instigators(records, environment, now)),
        waiting=_runs(records, _WAITING, environment),
        unrepeated=_runs(records, _UNREPEATED, environment),
        held=tuple(Held(pool, run) for pool, run in records.execute(_HELD, (_pools_of(environment),)).fetchall()),
    )


def is_of(body: Mapping[str, Any], environment: str) -> bool:
    """Whether an instigator belongs to the environment. Several may share one Dagster: in one code location, with the
    environment in each name, or in a code location each, named like the environment."""
    repository = body.get("origin", {}).get("external_repository_origin", {})
    if (ours := is_called_for(name_of(body), environment)) is not None:
        return ours
    location = repository.get("repository_location_origin", {}).get("location_name", environment)
    return bool(location == environment or location not in OBJECTIVES)


def name_of(body: Mapping[str, Any]) -> str:
    origin = body.get("origin", {})
    return str(origin.get("instigator_name") or origin.get("job_name") or "a schedule")


def crons_of(body: Mapping[str, Any]) -> tuple[str, ...]:
    cron = _data(body).get("cron_schedule")
    return (cron,) if isinstance(cron, str) else tuple(cron or ())


def _instigators(records: psycopg.Connection[Any], environment: str, now: datetime) -> Iterator[Instigator]:
    for kind, status, text, created_at, ticked_at, tick_status, tick_body in records.execute(_INSTIGATORS).fetchall():
        body = json.loads(text)
        if not is_of(body, environment):
            continue
        data = _data(body)
        every = data.get("min_interval")
        last = None if ticked_at is None else Tick(_utc(ticked_at), _tick_error(tick_status, tick_body))
        looked = max(data.get("last_tick_timestamp") or 0.0, data.get("last_tick_start_timestamp") or 0.0)
        if looked:
            # Ticks that were skipped are removed after a while; the time of the last one is kept in the state.
            last = Tick(datetime.fromtimestamp(looked, UTC), last.error if last else "")
        yield Instigator(
            name=name_of(body),
            kind=Kind.SENSOR if kind == "SENSOR" else Kind.SCHEDULE,
            on=status != "STOPPED",
            since=min(_since(data, created_at), now),
            crons=crons_of(body),
            every=timedelta(seconds=every) if every else None,
            last=last,
        )


def _since(data: Mapping[str, Any], created_at: datetime | None) -> datetime:
    begun = data.get("start_timestamp") or data.get("last_sensor_start_timestamp")
    if begun:
        return datetime.fromtimestamp(begun, UTC)
    return _utc(created_at) if created_at else datetime.min.replace(tzinfo=UTC)


def _runs(records: psycopg.Connection[Any], query: str, environment: str) -> tuple[Waiting, ...]:
    rows = records.execute(query.encode(), (environment,)).fetchall()
    return tuple(Waiting(run_id, job, _utc(at)) for run_id, job, at in rows)


def _pools_of(environment: str) -> str:
    escaped = flat_name(environment).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"{escaped}\\_%"


def _data(body: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = body.get("job_specific_data") or body.get("instigator_data") or {}
    return found


def _tick_error(status: str, body: str) -> str:
    if status != "FAILURE":
        return ""
    loaded = json.loads(body)
    error = (loaded.get("tick_data", loaded) or {}).get("error") or {}
    return _one_line(str(error.get("message", "")))


def _daemon_error(body: str | None) -> str:
    errors = json.loads(body or "{}").get("errors") or []
    return _one_line(str(errors[0].get("message", ""))) if errors else ""


def _one_line(said: str) -> str:
    return next((line.strip() for line in said.splitlines() if line.strip()), "it said nothing")


def _utc(moment: datetime) -> datetime:
    """A time as Dagster writes it: in UTC, without a time zone."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
