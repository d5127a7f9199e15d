"""Connections to PostgreSQL, with an error that explains a refusal.

Settings that a role, a database or the server has for its sessions are meant for the application and do not apply to
ours (`tmi_ops/postgres/session.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import quote

import psycopg
from psycopg.rows import TupleRow

from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError, first_line
from tmi_ops.postgres.lock_table import NO_ROOM_FOR_LOCKS
from tmi_ops.postgres.refusals import explained
from tmi_ops.postgres.session import CLIENT_ENCODING, pin_session, startup_options
from tmi_ops.postgres.versions import REQUIRE_AUTH, since
from tmi_ops.progress import waiting_for
from tmi_ops.settings import PostgresSettings

Outcome = Literal["committed", "aborted", "in progress"]


def current_transaction(connection: psycopg.Connection[Any]) -> int:
    """The number of the connection's current transaction; assigns one if it has none."""
    row = connection.execute("SELECT pg_catalog.txid_current()").fetchone()
    if row is None:  # a function has its row
        raise AssertionError
    return int(row[0])


def transaction_outcome(connection: psycopg.Connection[Any], transaction: int) -> Outcome | None:
    """The outcome of a transaction; None: too old for the server to know, or never started there."""
    try:
        row = connection.execute("SELECT pg_catalog.txid_status(%s)", [transaction]).fetchone()
    except psycopg.errors.InvalidParameterValue:
        return None
    outcome: Outcome | None = row[0] if row else None
    return outcome


# libpq 16.
NEVER_IN_THE_CLEAR = "!password"
CONNECT_TIMEOUT_S = 10
APPLICATION_NAME = "tmi_ops"
_NO_OPTIONS = "unsupported startup parameter"


def libpq_environment(
    postgres: PostgresSettings, database: str | None = None, *, server_major: int = 0
) -> dict[str, str]:
    """The environment with which PostgreSQL's programs connect; it keeps secrets out of argv.

    Args:
        server_major: if known, settings that came with it are pinned too.

    Source: https://www.postgresql.org/docs/current/libpq-envars.html
    """
    environment = {
        "PGHOST": postgres.host,
        "PGPORT": str(postgres.port),
        "PGUSER": postgres.user,
        "PGDATABASE": database or postgres.database,
        "PGSSLMODE": postgres.sslmode,
        "PGAPPNAME": APPLICATION_NAME,
        "PGCONNECT_TIMEOUT": str(CONNECT_TIMEOUT_S),
        "PGCLIENTENCODING": CLIENT_ENCODING,
        "PGOPTIONS": _options(postgres, server_major),
    }
    security = _ssl_files(postgres) | _authentication(postgres)
    environment |= {f"PG{name.upper().replace('_', '')}": value for name, value in security.items()}
    if postgres.password is not None:
        environment["PGPASSWORD"] = postgres.password.get_secret_value()
    return environment


def socket_uri(directory: str, port: int, user: str, database: str) -> str:
    """A connection URI for a socket in `directory`; it contains no secret."""
    return (
        f"postgresql://{quote(user, safe='')}@/{quote(database, safe='')}?host={quote(directory, safe='/')}&port={port}"
    )


def connection_parameters(postgres: PostgresSettings, database: str | None = None) -> dict[str, Any]:
    """Keyword arguments of `psycopg.connect` for this server."""
    parameters: dict[str, Any] = {
        "host": postgres.host,
        "port": postgres.port,
        "user": postgres.user,
        "dbname": database or postgres.database,
        "sslmode": postgres.sslmode,
        "application_name": APPLICATION_NAME,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "client_encoding": CLIENT_ENCODING,
        "options": _options(postgres),
    }
    parameters |= _ssl_files(postgres)
    if psycopg.pq.version() >= since(REQUIRE_AUTH):
        parameters |= _authentication(postgres)
    if postgres.password is not None:
        parameters["password"] = postgres.password.get_secret_value()
    return parameters


def _options(postgres: PostgresSettings, server_major: int = 0) -> str:
    return " ".join(filter(None, (startup_options(server_major), postgres.options)))


def _authentication(postgres: PostgresSettings) -> dict[str, str]:
    """The authentication methods that we accept. Programs before PostgreSQL 16 ignore `require_auth`."""
    asked = postgres.require_auth or (None if postgres.sslmode == "verify-full" else NEVER_IN_THE_CLEAR)
    told = {"require_auth": asked, "channel_binding": postgres.channel_binding}
    return {name: value for name, value in told.items() if value}


def _ssl_files(postgres: PostgresSettings) -> dict[str, str]:
    files = {"sslrootcert": postgres.sslrootcert, "sslcert": postgres.sslcert, "sslkey": postgres.sslkey}
    return {name: file for name, file in files.items() if file}


class _Connection(psycopg.Connection[TupleRow]):
    """Lets it be known that a statement waits for its answer."""

    address = "PostgreSQL"

    def wait(self, *arguments: Any, **named: Any) -> Any:
        with waiting_for(self.address):
            return super().wait(*arguments, **named)


@contextmanager
def connect(
    postgres: PostgresSettings, database: str | None = None, *, autocommit: bool = True
) -> Iterator[psycopg.Connection[TupleRow]]:
    """Open a connection for the length of a `with` block.

    Raises:
        DatabaseError: the server could not be reached or refused us, or a statement of the block failed unexpectedly;
            the hint names the next step.
    """
    try:
        connection = open_session(postgres, database, autocommit=autocommit)
    except psycopg.OperationalError as error:
        raise explain_refusal(error, postgres, database) from None
    try:
        with connection:
            yield connection
    except psycopg.Error as error:
        raise _explain_failure(error, connection, postgres) from error


def open_session(postgres: PostgresSettings, database: str | None = None, **other: Any) -> psycopg.Connection[TupleRow]:
    """A connection with pinned settings; `other` are further arguments of `psycopg.connect`.

    Raises:
        psycopg.OperationalError: the server could not be reached or refused us (`explain_refusal`).
    """
    parameters = {**connection_parameters(postgres, database), **other}
    began_with_options = True
    try:
        with waiting_for(postgres.describe()):
            connection = _Connection.connect(**parameters)
    except psycopg.OperationalError as error:
        if _NO_OPTIONS not in str(error):
            raise
        # A pooler that does not pass options on.
        began_with_options = False
        connection = _Connection.connect(**{**parameters, "options": postgres.options or ""})
    connection.address = postgres.describe()
    try:
        pin_session(connection, began_with_options=began_with_options, asked_for=postgres.options)
    except BaseException:
        connection.close()
        raise
    return connection


def explain_refusal(
    error: psycopg.OperationalError, postgres: PostgresSettings, database: str | None = None
) -> DatabaseError:
    """Turn libpq's message into our error."""
    return explained(str(error).strip(), postgres.model_copy(update={"database": database or postgres.database}))


def _explain_failure(
    error: psycopg.Error, connection: psycopg.Connection[TupleRow], postgres: PostgresSettings
) -> DatabaseError:
    said = first_line(error)
    if connection.broken:
        return DatabaseError(
            f"The connection to {postgres.describe()} was lost: {said}.",
            detail="What was not committed was rolled back.",
            hint="check that the server is running, then try again",
            code=Code.CONNECTION_LOST,
            transient=True,
        )
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return DatabaseError(
            f"{postgres.describe()} refused a statement: {said}.",
            detail="What was not committed was rolled back.",
            hint=f"grant {postgres.user} this right, or use a role that has it",
            code=Code.RIGHTS_MISSING,
        )
    if isinstance(error, psycopg.errors.OutOfMemory):
        return DatabaseError(
            f"{postgres.describe()} had not enough memory for a statement: {said}.",
            detail="What was not committed was rolled back.",
            hint=NO_ROOM_FOR_LOCKS if "shared memory" in said else "give the server more memory",
            code=Code.SERVER_MEMORY,
            transient=True,
        )
    return DatabaseError(
        f"PostgreSQL answered with an error: {said} (SQLSTATE {error.sqlstate or 'unknown'}).",
        detail="What was not committed was rolled back.",
        transient=isinstance(error, psycopg.errors.OperationalError),
    )
