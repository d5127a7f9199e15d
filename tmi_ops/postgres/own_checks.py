"""The profile's SQL checks: each one SELECT, run read-only, with a time limit, as a role that is not a superuser.

The owner of a table may replace it by a view with functions of their own, which run with the rights of the caller, and
a read-only transaction does not prevent COPY ... TO PROGRAM. So the checks do not run as a role that could do that.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
from psycopg import sql
from pydantic import SecretStr

from tmi_ops.errors import DatabaseError, first_line
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.shelter import READER, reader_settings, session_options
from tmi_ops.postgres.versions import READ_ALL_DATA
from tmi_ops.profile import SqlCheck
from tmi_ops.settings import PostgresSettings

LIMIT_S = 60.0
_ROWS_COUNTED = 1000

Outcome = Literal["passed", "failed", "unknown"]


@dataclass(frozen=True)
class OwnAnswer:
    """The result of a check. `text` contains counts, never values of rows."""

    name: str
    outcome: Outcome
    text: str


def ask_own_checks(
    postgres: PostgresSettings, checks: Sequence[SqlCheck], limit_s: float = LIMIT_S
) -> tuple[OwnAnswer, ...]:
    """Run each check in its own transaction; none as a superuser, or as a role that may run programs on the server.

    Args:
        limit_s: seconds for each statement.

    Raises:
        DatabaseError: the database could not be reached.
    """
    if not checks:
        return ()
    with connect(postgres) as connection:
        if _is_powerful(connection):
            words = (
                f"not run as {postgres.user}, which has superuser-like rights: code of a table's owner could run with "
                "them"
            )
            return tuple(OwnAnswer(check.name, "unknown", words) for check in checks)
        return tuple(_ask(connection, check, limit_s) for check in checks)


def ask_of_copy(copy: PostgresSettings, major: int, checks: Sequence[SqlCheck]) -> tuple[OwnAnswer, ...]:
    """Run the checks on a copy. If the reader cannot log in, every result is unknown, which does not fail the copy.

    Args:
        copy: its superuser and database.
    """
    if not checks:
        return ()
    try:
        with reader_of(copy, major) as reader:
            return ask_own_checks(reader, checks)
    except DatabaseError as error:
        return tuple(OwnAnswer(check.name, "unknown", f"could not run: {error.message}") for check in checks)


@contextlib.contextmanager
def reader_of(copy: PostgresSettings, major: int) -> Iterator[PostgresSettings]:
    """A temporary role in a copy that may read all tables and nothing else.

    Args:
        copy: the copy's superuser and database.

    Raises:
        DatabaseError: the copy is older than the predefined role, or refused.
    """
    if major < READ_ALL_DATA:
        raise DatabaseError(f"PostgreSQL {major} has no role that may read all tables; {READ_ALL_DATA} and newer do.")
    password = secrets.token_urlsafe(24)
    role = sql.Identifier(READER)
    with connect(copy) as connection:
        connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(role))
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN BYPASSRLS PASSWORD {} IN ROLE pg_read_all_data").format(role, password)
        )
        for name, value in reader_settings(major).items():
            # SET x = '' would set a list with one empty library.
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
            connection.execute(sql.SQL("ALTER ROLE {} SET {} FROM CURRENT").format(role, sql.Identifier(name)))
    try:
        options = session_options(major, superuser=False)
        yield copy.model_copy(update={"user": READER, "password": SecretStr(password), "options": options})
    finally:
        with connect(copy) as connection:
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(role))


def _is_powerful(connection: psycopg.Connection[Any]) -> bool:
    """Whether the role is a superuser, or may use files or programs of the server, which amounts to it."""
    row = connection.execute(
        "SELECT pg_catalog.current_setting('is_superuser')::pg_catalog.bool OR EXISTS (SELECT FROM pg_catalog.pg_roles"
        " WHERE rolname IN ('pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files')"
        " AND pg_catalog.pg_has_role(oid, 'MEMBER'))"
    ).fetchone()
    return bool(row and row[0])


def _ask(connection: psycopg.Connection[Any], check: SqlCheck, limit_s: float) -> OwnAnswer:
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("SET TRANSACTION READ ONLY")
            connection.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(f"{limit_s * 1000:.0f}ms"))
            # With the extended protocol the server refuses more than one statement.
            with connection.cursor(binary=True) as cursor:
                cursor.execute(check.sql.encode(), binary=True)
                return judge(check, cursor.fetchmany(_ROWS_COUNTED + 1) if cursor.description else None)
    except psycopg.Error as error:
        return OwnAnswer(check.name, "unknown", f"could not run: {first_line(error)}")


def judge(check: SqlCheck, rows: Sequence[Sequence[object]] | None) -> OwnAnswer:
    """Judge the rows of a check; None: the statement returned no rows at all, not even none. Pure."""
    if rows is None:
        return OwnAnswer(check.name, "unknown", "it is not a query")
    if check.is_bounded:
        return _within_bounds(check, rows)
    if not rows:
        return OwnAnswer(check.name, "passed", "no rows, as expected")
    many = f"more than {_ROWS_COUNTED:,}" if len(rows) > _ROWS_COUNTED else f"{len(rows):,}"
    means = f": {check.means}" if check.means else ""
    return OwnAnswer(check.name, "failed", f"{many} {'row' if len(rows) == 1 else 'rows'}, none expected{means}")


def _within_bounds(check: SqlCheck, rows: Sequence[Sequence[object]]) -> OwnAnswer:
    try:
        ((value,),) = rows
        number = float(value)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return OwnAnswer(check.name, "failed", "it does not return one number")
    low = check.at_least is None or number >= check.at_least
    high = check.at_most is None or number <= check.at_most
    bounds = " and ".join(
        f"{words} {bound:g}"
        for words, bound in (("at least", check.at_least), ("at most", check.at_most))
        if bound is not None
    )
    means = f": {check.means}" if check.means and not (low and high) else ""
    return OwnAnswer(check.name, "passed" if low and high else "failed", f"{number:g}, {bounds} expected{means}")
