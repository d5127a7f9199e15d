"""Reads the server's counters, all at once, so that every rate of a run spans the same time."""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString

import psycopg

from tmi_ops.health.counters import CounterGroup, Counters
from tmi_ops.health.session import ProbeSession
from tmi_ops.postgres.versions import CHECKPOINTER_VIEW

# Growth is mostly in the largest tables; very many small ones must not make the stored reading large.
_TABLES_KEPT = 500

_DATABASE = """
SELECT stats_reset, xact_commit, xact_rollback, deadlocks, blks_hit, blks_read, temp_files, temp_bytes
FROM pg_stat_database WHERE datname = current_database()
"""
_CHECKPOINTER = """
SELECT stats_reset, num_timed AS timed, num_requested AS requested, write_time, sync_time,
       buffers_written AS buffers
FROM pg_stat_checkpointer
"""
_CHECKPOINTER_BEFORE_17 = """
SELECT stats_reset, checkpoints_timed AS timed, checkpoints_req AS requested, checkpoint_write_time AS write_time,
       checkpoint_sync_time AS sync_time, buffers_checkpoint AS buffers
FROM pg_stat_bgwriter
"""
# On a standby, the replay position stands for what the primary wrote.
_WAL = """
SELECT pg_wal_lsn_diff(
         CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END, '0/0'
       )::float8 AS bytes
"""
_ARCHIVER = "SELECT stats_reset, archived_count AS archived, failed_count AS failed FROM pg_stat_archiver"
_DATABASES = """
SELECT datname::text AS name, pg_database_size(oid) AS bytes
FROM pg_database
WHERE has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE')
"""
_TABLES = """
SELECT c.oid::regclass::text AS name, pg_total_relation_size(c.oid) AS bytes
FROM pg_class c
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND c.relnamespace::regnamespace::text !~ '^pg_'
  AND c.relnamespace <> 'information_schema'::regnamespace
  -- reading the size would wait for an ACCESS EXCLUSIVE lock
  AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock')
ORDER BY c.relpages DESC LIMIT %s
"""
_LOG_FILE = "SELECT pg_current_logfile() AS file"
_LOG_SIZE = """
SELECT name, size::float8 AS bytes FROM pg_ls_logdir()
WHERE %s LIKE '%%' || name
"""


def read_counters(session: ProbeSession) -> Counters:
    """Read the counters; a group that the role may not see, or that is locked, is left out."""
    server = session.server
    checkpoints = _CHECKPOINTER if server.major >= CHECKPOINTER_VIEW else _CHECKPOINTER_BEFORE_17
    groups = {
        "transactions": _one_row(session, _DATABASE),
        "checkpoints": _one_row(session, checkpoints),
        "wal": _one_row(session, _WAL),
        "archiver": _one_row(session, _ARCHIVER),
        "databases": _many_rows(session, _DATABASES),
        "tables": _many_rows(session, _TABLES, (_TABLES_KEPT,)),
    }
    log_file, log = _log(session)
    if log is not None:
        groups["log"] = log
    return Counters(
        taken_at=server.now,
        started_at=server.started_at,
        system_identifier=server.system_identifier,
        database=server.database,
        groups={name: group for name, group in groups.items() if group is not None},
        marks={"log file": log_file} if log_file else {},
    )


def _one_row(session: ProbeSession, query: LiteralString) -> CounterGroup | None:
    rows = _ask(session, query, ())
    if not rows:
        return None
    reset_at: datetime | None = rows[0].pop("stats_reset", None)
    return CounterGroup(
        reset_at=reset_at, values={name: float(value) for name, value in rows[0].items() if value is not None}
    )


def _many_rows(session: ProbeSession, query: LiteralString, parameters: tuple[Any, ...] = ()) -> CounterGroup | None:
    rows = _ask(session, query, parameters)
    if rows is None:
        return None
    return CounterGroup(only_grow=False, values={row["name"]: float(row["bytes"] or 0) for row in rows})


def _log(session: ProbeSession) -> tuple[str | None, CounterGroup | None]:
    """The server's current log file and its size, if the role may see them."""
    rows = _ask(session, _LOG_FILE, ())
    file: str | None = rows[0]["file"] if rows else None
    if file is None:
        return None, None
    sizes = _ask(session, _LOG_SIZE, (file,))
    if not sizes:
        return file, None
    return file, CounterGroup(only_grow=False, values={"bytes": sizes[0]["bytes"]})


def _ask(session: ProbeSession, query: LiteralString, parameters: tuple[Any, ...]) -> list[dict[str, Any]] | None:
    try:
        return session.rows(query, parameters)
    except psycopg.Error:
        if session.connection.closed:
            raise
        return None
