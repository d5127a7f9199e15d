"""The heartbeat table in the database, to which a row is added at regular intervals.

An advisory lock serializes writers. Only the oldest rows are removed, so the rest is still a chain.
"""

from __future__ import annotations

import threading
from typing import Any

import psycopg

from tmi_ops.drill.chain import HeartbeatRow, next_heartbeat
from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError, OpsError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.wal_files import format_lsn, parse_lsn
from tmi_ops.progress import Report
from tmi_ops.settings import PostgresSettings

# Longer than a recovery window usually is; at one heartbeat a minute this is 50,000 rows of 200 bytes.
KEPT_DAYS = 35
TRIMMED_AT_A_TIME = 1000
_ADVISORY_LOCK = 0x746D695F6862  # "tmi_hb"
_SCHEMA = """
CREATE SCHEMA IF NOT EXISTS tmi_ops;
CREATE TABLE IF NOT EXISTS tmi_ops.heartbeat (
    id bigint PRIMARY KEY,
    written_at timestamptz NOT NULL,
    lsn pg_lsn NOT NULL,
    previous text NOT NULL,
    hash text NOT NULL
);
COMMENT ON SCHEMA tmi_ops IS 'Maintained by tmi-ops. Holds no application data.';
COMMENT ON TABLE tmi_ops.heartbeat IS 'Heartbeat chain: shows after a recovery that nothing committed before the
target is missing and nothing after it is present. hash = sha256(id|time in UTC|lsn|previous).';
"""
_COLUMNS = "id, written_at, lsn::text, previous, hash"


def beat(postgres: PostgresSettings) -> HeartbeatRow:
    """Write one heartbeat, creating the table if it does not exist. It is as durable as the server's commits.

    Raises:
        DatabaseError: the server could not be reached, is a standby, or the role may not write there.
    """
    with connect(postgres) as connection:
        if _is_standby(connection):
            raise DatabaseError(
                f"{postgres.describe()} is a standby, so no heartbeat can be written there.",
                hint="point POSTGRES_HOST at the primary",
                code=Code.HEARTBEAT_REFUSED,
            )
        if not _has_table(connection):
            _make_table(connection, postgres)
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_ADVISORY_LOCK,))
            # From here on, the commit happens within COMMITTED_WITHIN or not at all.
            connection.execute("SET LOCAL statement_timeout = '1s'")
            connection.execute("SET LOCAL idle_in_transaction_session_timeout = '1s'")
            written = _write(connection)
            connection.execute("SET LOCAL statement_timeout = 0")  # a synchronous commit may wait for the store
        _trim(connection)
    return written


def write_heartbeats(postgres: PostgresSettings, every_s: float, stop: threading.Event, report: Report) -> int:
    """Write a heartbeat every `every_s` seconds until `stop` is set. Transient errors are retried.

    Returns:
        How many were written.

    Raises:
        DatabaseError: the server refused it for a reason that is not transient.
    """
    written = 0
    with report.phase("heartbeat", unit="rows") as phase:
        while True:
            try:
                beat(postgres)
                written += 1
                phase.advance(1)
            except OpsError as error:
                if not error.transient:
                    raise
                report.note(f"Heartbeat not written: {error.message}")
            if stop.wait(every_s):
                return written


def read_chain(postgres: PostgresSettings, *, since: int = 0) -> list[HeartbeatRow] | None:
    """All heartbeats from number `since` on, by number; None when the database has no heartbeat table.

    Raises:
        DatabaseError: the database could not be reached or read.
    """
    with connect(postgres) as connection:
        if not _has_table(connection):
            return None
        query = f"SELECT {_COLUMNS} FROM tmi_ops.heartbeat WHERE id >= %s ORDER BY id"  # noqa: S608
        rows = connection.execute(query, (since,)).fetchall()
    return [_beat(row) for row in rows]


def _make_table(connection: psycopg.Connection[Any], postgres: PostgresSettings) -> None:
    try:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_ADVISORY_LOCK,))
            connection.execute(_SCHEMA)
    except psycopg.errors.InsufficientPrivilege:
        raise DatabaseError(
            f"The role {postgres.user} may not create a schema in {postgres.database}.",
            hint="let the database's owner write the heartbeats: set TMI_OPS_HEARTBEAT_USER (or "
            "TMI_OPS_OWNER_USER) and its password",
            code=Code.HEARTBEAT_REFUSED,
        ) from None


def _write(connection: psycopg.Connection[Any]) -> HeartbeatRow:
    last = connection.execute(f"SELECT {_COLUMNS} FROM tmi_ops.heartbeat ORDER BY id DESC LIMIT 1").fetchone()  # noqa: S608
    clock = connection.execute("SELECT clock_timestamp(), pg_current_wal_insert_lsn()::text").fetchone()
    if clock is None:
        raise AssertionError
    new = next_heartbeat(_beat(last) if last else None, clock[0], parse_lsn(clock[1]))
    connection.execute(
        "INSERT INTO tmi_ops.heartbeat VALUES (%s, %s, %s, %s, %s)",
        (new.id, new.written_at, format_lsn(new.lsn), new.previous, new.hash),
    )
    return new


def _trim(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        """
        DELETE FROM tmi_ops.heartbeat WHERE id IN (
            SELECT id FROM (SELECT id, written_at FROM tmi_ops.heartbeat ORDER BY id LIMIT %s) AS oldest
            WHERE written_at < now() - make_interval(days => %s)
            AND id < (SELECT max(id) FROM tmi_ops.heartbeat))
        """,
        (TRIMMED_AT_A_TIME, KEPT_DAYS),
    )


def _has_table(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute("SELECT to_regclass('tmi_ops.heartbeat') IS NOT NULL").fetchone()
    return bool(row and row[0])


def _is_standby(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    return bool(row and row[0])


def _beat(row: tuple[Any, ...]) -> HeartbeatRow:
    number, written_at, lsn, previous, digest = row
    return HeartbeatRow(number, written_at, parse_lsn(lsn), previous, digest)
