"""Facts about the PostgreSQL server that a backup records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg


@dataclass(frozen=True)
class ServerFacts:
    """What the server says about itself; None: the role may not read it."""

    version: str
    version_num: int
    system_identifier: str | None
    timeline: int | None
    lsn: str | None
    in_recovery: bool
    database: str
    database_size: int
    encoding: str
    collation: str
    ctype: str

    @property
    def major(self) -> int:
        return self.version_num // 10000


def read_server(connection: psycopg.Connection[Any]) -> ServerFacts:
    """Read the facts of the server and of the connected database. Sizes in bytes."""
    row = connection.execute(
        """
        SELECT current_setting('server_version'), current_setting('server_version_num')::int,
               pg_is_in_recovery(), current_database(), pg_database_size(current_database()),
               pg_encoding_to_char(encoding), datcollate, datctype
        FROM pg_database WHERE datname = current_database()
        """
    ).fetchone()
    if row is None:  # the connected database always has its row
        raise AssertionError
    version, version_num, in_recovery, database, size, encoding, collation, ctype = row
    function = "pg_last_wal_replay_lsn" if in_recovery else "pg_current_wal_lsn"
    return ServerFacts(
        version=version,
        version_num=version_num,
        system_identifier=_ask(connection, "SELECT system_identifier::text FROM pg_control_system()"),
        timeline=_ask(connection, "SELECT timeline_id FROM pg_control_checkpoint()"),
        lsn=_ask(connection, f"SELECT {function}()::text"),
        in_recovery=in_recovery,
        database=database,
        database_size=size,
        encoding=encoding,
        collation=collation,
        ctype=ctype,
    )


def _ask(connection: psycopg.Connection[Any], query: str) -> Any:
    """One value; None if the role may not read it."""
    try:
        with connection.transaction():
            row = connection.execute(query).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return None
    return row[0] if row else None
