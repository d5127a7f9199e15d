"""A restore point with known content: a name in the WAL, and every table's fingerprint at exactly that position.

Writers are stopped for a moment, so that the snapshot sees exactly what was committed before the restore point:

1. Every table is locked in SHARE mode at once: running writers continue to their commit, and no new one begins. The
   wait is shorter than `deadlock_timeout`, so no writer is ever cancelled because of us; instead we try again.
2. A snapshot is exported and the restore point written. All commits of writers precede both.
3. A second connection imports the snapshot, and the locks are released. It fingerprints while writers continue.
   UNLOGGED and temporary tables are left out: their rows are not in the WAL, so they are not recovered.
4. The record is put into the store if absent: a name means one position.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops import __version__
from tmi_ops.backup.fingerprint import fingerprint_tables
from tmi_ops.backup.snapshot import TableName, list_logged_tables, pin_text_output
from tmi_ops.error_codes import Code
from tmi_ops.errors import BackupError, DatabaseError, first_line
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.prepared import how_to_end, prepared_transactions
from tmi_ops.postgres.server import ServerFacts, read_server
from tmi_ops.progress import Report
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.restore_points import RestorePoint, put_restore_point, require_unused_name

# Less than PostgreSQL's deadlock_timeout (1 s): no session waits for us longer than this.
LOCK_WAIT_S = 0.4
ATTEMPTS = 15
PAUSE_S = 1.0


@dataclass(frozen=True)
class _Place:
    """The restore point's position in the WAL, and the connection whose snapshot is the state there."""

    connection: psycopg.Connection[Any]
    server: ServerFacts
    tables: tuple[TableName, ...]
    after_lsn: str
    lsn: str
    created_at: datetime
    held_seconds: float


def create_restore_point(settings: Settings, store: ObjectStore, name: str, report: Report) -> RestorePoint:
    """Write a restore point and record the fingerprint of every table at it.

    Raises:
        BackupError: the name is invalid, writers did not pause, or tables were created or dropped meanwhile.
        DatabaseError: the server could not be reached, is a standby, or has a wal_level below replica; or the role
            lacks a right that the message names.
        ObjectExistsError: a restore point of that name exists.
        StoreError: the store failed.
    """
    require_unused_name(store, name)
    with _restore_point(settings.postgres, name, report) as place:
        fingerprints = fingerprint_tables(place.connection, place.tables, report)
    record = RestorePoint(
        name=name,
        environment=settings.environment,
        database=place.server.database,
        system_identifier=place.server.system_identifier,
        timeline=place.server.timeline,
        after_lsn=place.after_lsn,
        lsn=place.lsn,
        created_at=place.created_at,
        writers_held_seconds=place.held_seconds,
        server_version=place.server.version,
        tmi_ops_version=__version__,
        fingerprints=fingerprints,
    )
    put_restore_point(store, record)
    return record


@contextmanager
def _restore_point(postgres: PostgresSettings, name: str, report: Report) -> Iterator[_Place]:
    with connect(postgres) as holder, connect(postgres) as reader:
        for connection in (holder, reader):
            connection.execute("SET idle_in_transaction_session_timeout = 0")
        reader.execute("SET statement_timeout = 0")
        pin_text_output(reader)
        if read_server(reader).in_recovery:
            raise DatabaseError(
                f"{postgres.describe()} is a standby, which writes no WAL.",
                hint="set POSTGRES_HOST to the primary",
                code=Code.STANDBY,
            )
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE_S)
            place = _attempt(holder, reader, name, postgres)
            if place is not None:
                report.note(f"Writers were blocked for {place.held_seconds * 1000:.0f} ms.")
                yield place
                reader.execute("ROLLBACK")
                return
            report.note("A session has been writing for longer than other sessions may be kept waiting; trying again.")
        raise _writers_did_not_pause(reader)


def _attempt(
    holder: psycopg.Connection[Any], reader: psycopg.Connection[Any], name: str, postgres: PostgresSettings
) -> _Place | None:
    """None, with nothing locked, if locks were not granted in time or tables were created or dropped meanwhile."""
    tables = list_logged_tables(reader)
    holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    try:
        begun = time.monotonic()
        if not _lock(holder, tables, postgres):
            return None
        # LOCK TABLE takes no snapshot: this is the first statement that does, so it sees every commit before the locks.
        snapshot, after_lsn = _row(holder, "SELECT pg_export_snapshot(), pg_current_wal_insert_lsn()::text")
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        reader.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(snapshot))
        _keep(reader, tables)
        lsn, created_at = _write(holder, name, postgres)
        held = time.monotonic() - begun
    except BaseException:
        _roll_back(reader)
        raise
    finally:
        _roll_back(holder)
    if set(list_logged_tables(holder)) != set(tables) or set(list_logged_tables(reader)) != set(tables):
        _roll_back(reader)
        return None
    return _Place(reader, read_server(reader), tables, after_lsn, lsn, created_at, held)


def _lock(connection: psycopg.Connection[Any], tables: tuple[TableName, ...], postgres: PostgresSettings) -> bool:
    connection.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT_S}s'")
    connection.execute(f"SET LOCAL statement_timeout = '{LOCK_WAIT_S}s'")
    names = sql.SQL(", ").join(table.identifier for table in tables)
    try:
        if tables:
            connection.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(names))
    except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled, psycopg.errors.UndefinedTable):
        return False
    except psycopg.errors.InsufficientPrivilege as error:
        raise DatabaseError(
            f"The role may not lock tables against writers: {first_line(error)}.",
            hint=f'grant it the lock: GRANT MAINTAIN ON ALL TABLES IN SCHEMA public TO "{postgres.user}" '
            "(before PostgreSQL 17: GRANT UPDATE), or use their owner",
        ) from None
    connection.execute("SET LOCAL statement_timeout = 0")
    return True


def _keep(connection: psycopg.Connection[Any], tables: tuple[TableName, ...]) -> None:
    """As pg_dump does: no session may drop or rewrite a table until it is read."""
    if tables:
        names = sql.SQL(", ").join(table.identifier for table in tables)
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))


def _write(connection: psycopg.Connection[Any], name: str, postgres: PostgresSettings) -> tuple[str, datetime]:
    try:
        lsn, at = _row(connection, "SELECT pg_create_restore_point(%s)::text, clock_timestamp()", (name,))
    except psycopg.errors.InsufficientPrivilege:
        raise DatabaseError(
            f"The role {postgres.user} may not create a restore point.",
            hint=f'grant it as a superuser: GRANT EXECUTE ON FUNCTION pg_create_restore_point TO "{postgres.user}"',
        ) from None
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        raise DatabaseError(
            f"The server cannot create a restore point: {first_line(error)}.",
            hint="set wal_level = replica (or logical) and restart the server",
            code=Code.RESTORE_POINT_REFUSED,
        ) from None
    return lsn, at.astimezone(UTC)


def _writers_did_not_pause(connection: psycopg.Connection[Any]) -> BackupError:
    blocking = connection.execute(
        """
        SELECT format('process %s (%s)', pid, coalesce(nullif(application_name, ''), backend_type))
        FROM pg_stat_activity WHERE pid IN (
            SELECT l.pid FROM pg_locks l WHERE l.locktype = 'relation' AND l.granted
            AND l.mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                           'AccessExclusiveLock') AND l.pid <> pg_backend_pid()
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
        ORDER BY xact_start LIMIT 3
        """
    ).fetchall()
    prepared = prepared_transactions(connection)
    holders = [*(one.describe() for one in prepared), *(row[0] for row in blocking)]
    who = f" Oldest now: {', '.join(holders)}." if holders else ""
    return BackupError(
        f"In {ATTEMPTS} attempts, no moment without writers to any table was found within "
        f"{LOCK_WAIT_S * 1000:.0f} ms.{who}",
        detail="No restore point was created, and no session waited longer than that.",
        code=Code.RESTORE_POINT_BUSY,
        hint=how_to_end(prepared, "try again when the long transaction or the VACUUM (pg_stat_activity) is over"),
    )


def _roll_back(connection: psycopg.Connection[Any]) -> None:
    if not connection.closed and connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        connection.execute("ROLLBACK")


def _row(connection: psycopg.Connection[Any], query: str, parameters: tuple[object, ...] = ()) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = connection.execute(query, parameters).fetchone()
    if row is None:
        raise AssertionError
    return row
