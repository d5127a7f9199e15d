"""One exported snapshot that the dump and the fingerprint share, so that both speak of the same moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.errors import BackupError, DatabaseError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.server import ServerFacts, read_server
from tmi_ops.settings import PostgresSettings

LOCK_TIMEOUT_S = 60
_LOCKS_AT_A_TIME = 200


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
    """A transaction held open, and the name under which others see what it sees."""

    connection: psycopg.Connection[Any]
    name: str
    taken_at: datetime
    server: ServerFacts
    tables: tuple[TableName, ...]


@contextmanager
def exported_snapshot(postgres: PostgresSettings) -> Iterator[Snapshot]:
    """Hold a read-only snapshot of the database open for the length of a `with` block.

    Every table is locked ACCESS SHARE at once, as pg_dump does: it stops no reader and no writer, only what would
    rewrite or drop a table under us.
    Source: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-SNAPSHOT-SYNCHRONIZATION

    Raises:
        DatabaseError: the server could not be reached, or the role may not read a table.
        BackupError: somebody holds an exclusive lock on a table for longer than a minute.
    """
    with connect(postgres, autocommit=True) as connection:
        connection.execute("SET statement_timeout = 0")
        connection.execute("SET idle_in_transaction_session_timeout = 0")
        connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        pin_text_output(connection)
        tables = list_tables(connection)
        _lock(connection, tables)
        row = connection.execute("SELECT pg_export_snapshot(), clock_timestamp()").fetchone()
        if row is None:
            raise AssertionError
        yield Snapshot(connection, row[0], row[1], read_server(connection), tables)
        connection.execute("ROLLBACK")


def pin_text_output(connection: psycopg.Connection[Any]) -> None:
    """Make row text and definitions the same for the same data, whatever the role, database or server has set."""
    settings = {
        "search_path": "pg_catalog",
        "datestyle": "ISO, YMD",
        "intervalstyle": "postgres",
        "timezone": "UTC",
        "extra_float_digits": "3",
        "bytea_output": "hex",
        "xmlbinary": "base64",
        "lc_monetary": "C",
        "row_security": "off",
        "quote_all_identifiers": "off",
    }
    for name, value in settings.items():
        connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))


def list_tables(connection: psycopg.Connection[Any]) -> tuple[TableName, ...]:
    """The tables that hold rows of the user: neither system's nor an extension's, largest first."""
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


def _lock(connection: psycopg.Connection[Any], tables: tuple[TableName, ...]) -> None:
    for start in range(0, len(tables), _LOCKS_AT_A_TIME):
        batch = tables[start : start + _LOCKS_AT_A_TIME]
        names = sql.SQL(", ").join(table.identifier for table in batch)
        try:
            connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))
        except psycopg.errors.LockNotAvailable:
            raise BackupError(
                f"A table is locked exclusively for more than {LOCK_TIMEOUT_S} s, so no snapshot could be taken.",
                next_step="wait for the schema change or VACUUM FULL (see pg_stat_activity) to end, then try again",
            ) from None
        except psycopg.errors.InsufficientPrivilege as error:
            raise DatabaseError(
                f"The role may not read every table: {str(error).splitlines()[0]}.",
                next_step="GRANT pg_read_all_data TO the backup role (PostgreSQL 14 or newer), "
                "or GRANT SELECT ON ALL TABLES",
            ) from None
