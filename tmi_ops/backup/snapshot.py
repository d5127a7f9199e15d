"""One exported snapshot shared by all parts of a backup, of tables that no session can rewrite meanwhile.

Lock first, then read: if a TRUNCATE or an ALTER that rewrites a table commits after a snapshot was taken, that snapshot
sees the table empty. LOCK TABLE takes no snapshot, the first query does. So:

1. list the tables, in a transaction of its own;
2. begin, and lock them all;
3. list them again: this query takes the snapshot. If the list differs from what was locked, start again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg import sql

from tmi_ops.backup.lock_queue import holders_of_tables
from tmi_ops.error_codes import Code
from tmi_ops.errors import BackupError, DatabaseError, first_line
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.lock_table import read_lock_table
from tmi_ops.postgres.prepared import PreparedTransaction, how_to_end, prepared_transactions
from tmi_ops.postgres.server import ServerFacts, read_server
from tmi_ops.postgres.session import pin_session
from tmi_ops.settings import PostgresSettings

LOCK_TIMEOUT_S = 60
# Below the default deadlock_timeout of 1 s: we release our locks before the server looks for a session to cancel.
LOCK_WAIT_MS = 800
_PAUSE_S = 0.5
_LOCKS_AT_A_TIME = 200
_Outcome = Literal["locked", "gone", "in the way"]


@dataclass(frozen=True)
class TableName:
    """A table that holds rows: schema and name, as the catalogue spells them."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)


@dataclass(frozen=True)
class Snapshot:
    """An open transaction, and the name under which other sessions import its snapshot.

    `locked`: all tables that pg_dump may read, including those of extensions and partitioned ones. `tables`: those with
    rows of the user's own.
    """

    connection: psycopg.Connection[Any]
    name: str
    taken_at: datetime
    server: ServerFacts
    tables: tuple[TableName, ...]
    locked: tuple[TableName, ...]

    @property
    def backend(self) -> int:
        """The server process that holds the locks."""
        return self.connection.info.backend_pid


@contextmanager
def exported_snapshot(postgres: PostgresSettings) -> Iterator[Snapshot]:
    """Hold a read-only snapshot of the database open for the length of a `with` block.

    Every table is first locked in ACCESS SHARE mode, as pg_dump does: this blocks no reader or writer, only statements
    that rewrite or drop a table.
    Source: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-SNAPSHOT-SYNCHRONIZATION

    Raises:
        DatabaseError: the server could not be reached, or the role may not read a table.
        BackupError: a session holds an exclusive lock on a table for longer than a minute, or the server's lock table
            is too small.
    """
    with connect(postgres) as connection:
        pin_text_output(connection)
        locked = _lock_all(connection)
        row = connection.execute("SELECT pg_export_snapshot(), clock_timestamp()").fetchone()
        if row is None:
            raise AssertionError
        names = tuple(table.name for table in locked)
        yield Snapshot(connection, row[0], row[1], read_server(connection), list_tables(connection), names)
        connection.execute("ROLLBACK")


def pin_text_output(connection: psycopg.Connection[Any]) -> None:
    """Qualify names in output, and resolve what we call and compare in pg_catalog only.

    Formats are reset to those at the session's start (postgres/session.py), whatever was set since.
    """
    pin_session(connection, began_with_options=False, search_path="pg_catalog")


def list_tables(connection: psycopg.Connection[Any]) -> tuple[TableName, ...]:
    """The tables with rows of the user, without the system's and extensions' tables, largest first."""
    rows = connection.execute(
        """
        SELECT n.nspname, c.relname
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND c.relpersistence <> 't'
          AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                          WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
        ORDER BY c.relpages DESC, n.nspname, c.relname
        """
    ).fetchall()
    return tuple(TableName(*row) for row in rows)


def list_logged_tables(connection: psycopg.Connection[Any]) -> tuple[TableName, ...]:
    """The tables of `list_tables` whose rows are in the WAL: an UNLOGGED table is empty after a recovery."""
    unlogged = list_unlogged(connection)
    return tuple(table for table in list_tables(connection) if str(table) not in unlogged)


def list_unlogged(connection: psycopg.Connection[Any]) -> frozenset[str]:
    """The UNLOGGED tables, as `schema.table`."""
    rows = connection.execute(
        """
        SELECT n.nspname || '.' || c.relname
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND c.relpersistence = 'u'
        """
    ).fetchall()
    return frozenset(name for (name,) in rows)


@dataclass(frozen=True)
class _Lockable:
    """A table with its oid, which distinguishes it from a new table of the same name."""

    oid: int
    name: TableName


def _lock_all(connection: psycopg.Connection[Any]) -> tuple[_Lockable, ...]:
    """Begin a transaction whose snapshot is younger than its locks, and return what it locked.

    No session waits for us while we wait: if a table cannot be locked at once, all locks are released before the next
    try.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        tables = _lockable(connection)
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        outcome = _lock(connection, tables)
        if outcome == "locked" and set(_lockable(connection)) == set(tables):
            connection.execute("SET LOCAL lock_timeout = 0")
            return tables
        connection.execute("ROLLBACK")
        if time.monotonic() > deadline:
            raise _never_locked(outcome, holders_of_tables(connection), prepared_transactions(connection))
        if outcome == "in the way":
            time.sleep(_PAUSE_S)


def _never_locked(outcome: _Outcome, holders: list[str], prepared: tuple[PreparedTransaction, ...]) -> BackupError:
    if outcome != "in the way":
        return BackupError(
            f"Tables were created or dropped continuously for {LOCK_TIMEOUT_S} s, so no snapshot could be taken.",
            hint="try again when the schema change is over",
            transient=True,
        )
    holders = [*(one.describe() for one in prepared), *holders]
    who = f" Blocked by: {'; '.join(holders)}." if holders else ""
    return BackupError(
        f"A table was locked exclusively for more than {LOCK_TIMEOUT_S} s, so no snapshot could be taken.{who}",
        detail="No session had to wait for the backup.",
        code=Code.LOCK_NOT_GRANTED,
        hint=how_to_end(
            prepared, "wait for the schema change or VACUUM FULL (see pg_stat_activity) to end, then try again"
        ),
        transient=True,
    )


def _lockable(connection: psycopg.Connection[Any]) -> tuple[_Lockable, ...]:
    """The tables that pg_dump reads: the user's, also partitioned ones, and those of extensions with dumped rows."""
    rows = connection.execute(
        """
        SELECT c.oid, n.nspname, c.relname
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
          AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'
          AND (c.oid IN (SELECT pg_catalog.unnest(extconfig) FROM pg_catalog.pg_extension)
               OR NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass
                              AND d.objid = c.oid AND d.deptype = 'e'))
        ORDER BY c.oid
        """
    ).fetchall()
    return tuple(_Lockable(oid, TableName(schema, name)) for oid, schema, name in rows)


def _lock(connection: psycopg.Connection[Any], tables: Sequence[_Lockable]) -> _Outcome:
    """Lock them all. `gone`: a table was dropped since it was listed, which is no failure."""
    connection.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}")
    for start in range(0, len(tables), _LOCKS_AT_A_TIME):
        batch = tables[start : start + _LOCKS_AT_A_TIME]
        names = sql.SQL(", ONLY ").join(table.name.identifier for table in batch)
        try:
            connection.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE").format(names))
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            return "in the way"
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, psycopg.errors.WrongObjectType):
            return "gone"
        except psycopg.errors.OutOfMemory:
            connection.execute("ROLLBACK")
            raise BackupError(
                f"The server's lock table is too small for this backup, which locks {len(tables):,} tables at once.",
                hint=read_lock_table(connection).advice(len(tables)),
                code=Code.LOCK_TABLE_FULL,
            ) from None
        except psycopg.errors.InsufficientPrivilege as error:
            raise DatabaseError(
                f"The role may not read every table: {first_line(error)}.",
                hint="GRANT pg_read_all_data TO the backup role (PostgreSQL 14 or newer), "
                "or GRANT SELECT ON ALL TABLES",
            ) from None
    return "locked"
