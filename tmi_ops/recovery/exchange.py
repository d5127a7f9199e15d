"""Renames a restored database to its final name, and keeps the old one under another name."""

from __future__ import annotations

import time
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.errors import RecoveryError, first_line
from tmi_ops.postgres.connections import connect
from tmi_ops.settings import PostgresSettings

MAX_NAME_BYTES = 63  # NAMEDATALEN - 1
END_SESSIONS_TIMEOUT_S = 10.0


def exchange_names(
    postgres: PostgresSettings, database: str, working_name: str, keep_as: str | None, *, closed: bool = False
) -> None:
    """Rename `working_name` to `database`, and the old `database` to `keep_as` (None if there is no old one).

    Both renames are one transaction, so `database` exists at all times.

    Args:
        closed: leave the new database closed to connections until `allow_connections`.

    Raises:
        RecoveryError: the renames failed; all databases have their old names.
    """
    with connect(postgres, "postgres") as connection:
        if keep_as is not None:
            allow_connections(connection, database, allowed=False)
        try:
            if keep_as is not None:
                end_sessions(connection, database)
            with connection.transaction():
                if closed:
                    allow_connections(connection, working_name, allowed=False)
                if keep_as is not None:
                    connection.execute(_rename(database, keep_as))
                connection.execute(_rename(working_name, database))
        except psycopg.Error as error:
            if keep_as is not None:
                allow_connections(connection, database, allowed=not closed)
            raise RecoveryError(
                f"The restored copy could not be renamed to {database}: {first_line(error)}.",
                detail=f"{database} was not changed{'' if closed else ' and accepts connections again'}.",
                hint="stop the application to end its sessions, and try again",
            ) from None
        if keep_as is not None:
            allow_connections(connection, keep_as, allowed=True)


def allow_connections(connection: psycopg.Connection[Any], database: str, *, allowed: bool) -> None:
    """Allow connections to a database, or refuse them to everybody, including superusers."""
    word = sql.SQL("true" if allowed else "false")
    connection.execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}").format(sql.Identifier(database), word))


def end_sessions(connection: psycopg.Connection[Any], database: str) -> None:
    """Terminate a database's sessions, and those that connect in the meantime."""
    deadline = time.monotonic() + END_SESSIONS_TIMEOUT_S
    while time.monotonic() < deadline:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            (database,),
        ).fetchall()
        if not ended:
            return
        time.sleep(0.1)


def derived_name(name: str, suffix: str) -> str:
    """`name_suffix`, truncated to PostgreSQL's limit for names."""
    room = MAX_NAME_BYTES - len(suffix) - 1
    return f"{name.encode()[:room].decode(errors='ignore')}_{suffix}"


def _rename(old: str, new: str) -> sql.Composed:
    return sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(new))
