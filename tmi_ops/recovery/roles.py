"""Roles that a dump refers to: owners and grantees must exist before the dump can be restored."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import psycopg
from psycopg import sql

from tmi_ops.postgres.connections import connect
from tmi_ops.progress import Report
from tmi_ops.settings import PostgresSettings

_ROLE = r'(?P<role>"(?:[^"]|"")+"|[^\s";]+)'
_CREATE = re.compile(rf"^CREATE ROLE {_ROLE};$")
_ALTER = re.compile(rf"^ALTER ROLE {_ROLE} ")
_MEMBERSHIP = re.compile(rf'^GRANT (?:"(?:[^"]|"")+"|[^\s";]+) TO {_ROLE}')
_GRANTED_BY = re.compile(r' GRANTED BY (?:"(?:[^"]|"")+"|[^\s";]+)')


def role_statements(globals_sql: str) -> Iterator[tuple[str, str]]:
    """Each statement of a `pg_dumpall --roles-only` output, with the role it is about.

    GRANTED BY is left out: since PostgreSQL 16 a grantor must hold ADMIN OPTION, which the source's bootstrap superuser
    has by birth and its namesake elsewhere has not.
    """
    for line in globals_sql.splitlines():
        for pattern in (_CREATE, _ALTER, _MEMBERSHIP):
            if match := pattern.match(line):
                yield _unquoted(match["role"]), _GRANTED_BY.sub("", line)


def restore_roles(address: PostgresSettings, globals_sql: str, report: Report) -> list[str]:
    """Create the roles that the server lacks; roles that exist keep what they are.

    Returns:
        The names of the roles created.
    """
    with connect(address) as connection:
        existing = {name for (name,) in connection.execute("SELECT rolname FROM pg_catalog.pg_roles").fetchall()}
        statements = [pair for pair in role_statements(globals_sql) if pair[0] not in existing]
        refused = list(_execute(connection, statements))
    for refusal in refused:
        report.note(f"role statement refused: {refusal}")
    return sorted({role for role, statement in statements if statement.startswith("CREATE ROLE")})


def _execute(connection: psycopg.Connection, statements: Iterable[tuple[str, str]]) -> Iterator[str]:
    for role, statement in statements:
        try:
            connection.execute(sql.SQL(statement))
        except psycopg.Error as error:
            yield f"{role}: {str(error).splitlines()[0]}"


def _unquoted(identifier: str) -> str:
    if identifier.startswith('"'):
        return identifier[1:-1].replace('""', '"')
    return identifier
