"""SQLAlchemy on the project's own connections, for Alembic's comparison and for reading facts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from tmi_ops.errors import DatabaseError, first_line
from tmi_ops.postgres.connections import explain_refusal, open_session
from tmi_ops.postgres.lock_table import NO_ROOM_FOR_LOCKS
from tmi_ops.settings import PostgresSettings


def engine(postgres: PostgresSettings) -> Engine:
    """An engine without a pool: each connection is opened when it is requested and closed when it is released.

    Connecting raises `DatabaseError` if the server cannot be reached or refuses the connection.
    """

    def open_connection() -> psycopg.Connection[tuple[object, ...]]:
        try:
            return open_session(postgres)
        except psycopg.OperationalError as error:
            raise explain_refusal(error, postgres) from None

    return create_engine("postgresql+psycopg://", creator=open_connection, poolclass=NullPool, use_native_hstore=False)


@contextmanager
def snapshot(postgres: PostgresSettings) -> Iterator[Connection]:
    """A read-only connection whose queries all see the same snapshot.

    Raises:
        DatabaseError: the server could not be reached, refused the connection, or refused a query of the block.
    """
    try:
        with engine(postgres).connect() as connection:
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            yield connection
    except DBAPIError as error:
        raise _refused_query(error, postgres) from error


@contextmanager
def only_pg_catalog(connection: Connection) -> Iterator[None]:
    """Resolve operators and functions in pg_catalog only, for a `with` block within a transaction.

    Anybody who may create objects in a schema of the search_path can define an operator that matches two columns better
    than PostgreSQL's own, and it would run with our privileges. Within the block, table names must be qualified.
    """
    before = connection.execute(text("SELECT pg_catalog.current_setting('search_path')")).scalar_one()
    set_path = text("SELECT pg_catalog.set_config('search_path', :path, true)")
    connection.execute(set_path, {"path": "pg_catalog"})
    yield
    connection.execute(set_path, {"path": before})


def _refused_query(error: DBAPIError, postgres: PostgresSettings) -> DatabaseError:
    said = first_line(error.orig or error)
    if isinstance(error.orig, psycopg.errors.OutOfMemory):
        return DatabaseError(
            f"{postgres.describe()} ran out of shared memory: {said}.", hint=NO_ROOM_FOR_LOCKS, transient=True
        )
    return DatabaseError(
        f"PostgreSQL refused a query on {postgres.describe()}: {said}.",
        hint=f"connect as the owner of the tables, or grant {postgres.user} SELECT on them",
    )
