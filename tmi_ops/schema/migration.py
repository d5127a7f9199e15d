"""Migrates a database to the models: additive, online, one migration at a time, with a validation at the end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError, first_line
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.session import SEARCH_PATH
from tmi_ops.progress import Report
from tmi_ops.schema.dialect import quote
from tmi_ops.schema.engine import snapshot
from tmi_ops.schema.locking import Patience, only_migration
from tmi_ops.schema.migration_execution import execute
from tmi_ops.schema.migration_plan import plan_from
from tmi_ops.schema.operations import (
    Blocked,
    BuildIndex,
    CreateDatabase,
    CreateTable,
    InsertSeed,
    MigrationPlan,
    Operation,
)
from tmi_ops.schema.rendering import render
from tmi_ops.schema.state import read_state, state_of_a_missing_database
from tmi_ops.schema.validation import Validation, judge
from tmi_ops.settings import PostgresSettings

MAINTENANCE_DATABASES = ("postgres", "template1")

_OF_OTHERS = """
SELECT c.relname::text, pg_get_userbyid(c.relowner)::text, current_user::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = ANY (%s) AND c.relkind IN ('r', 'p')
  AND NOT pg_has_role(c.relowner, 'USAGE')
ORDER BY 1"""
_MAY_CREATE = "SELECT has_schema_privilege(%s, 'CREATE'), current_user::text"
_MAY_INSERT = "SELECT has_table_privilege(to_regclass(%s), 'INSERT')"


@dataclass(frozen=True)
class MigrationResult:
    """The result of a migration.

    Attributes:
        operations: the steps done, in order.
        blocked: what remains for a person to do.
        validation: the validation afterwards.
        seconds: how long it took, including waits.
    """

    operations: tuple[Operation, ...]
    blocked: tuple[Blocked, ...]
    validation: Validation
    seconds: float

    @property
    def created_database(self) -> bool:
        return any(isinstance(operation, CreateDatabase) for operation in self.operations)

    @property
    def seeded_rows(self) -> int:
        return sum(len(operation.rows) for operation in self.operations if isinstance(operation, InsertSeed))


def plan_migration(postgres: PostgresSettings, *, seed: bool = True) -> MigrationPlan:
    """The plan of what `migrate` would do now. Nothing is written. For a missing database, the plan creates it.

    Raises:
        DatabaseError: the server could not be reached or refused the connection.
    """
    if _database_is_missing(postgres):
        plan = plan_from(state_of_a_missing_database(postgres.database), seed=seed, creates_database=True)
        with _maintenance_connection(postgres) as connection:
            return replace(plan, lacking=tuple(lacking_createdb(connection, postgres.database)))
    with snapshot(postgres) as read:
        plan = plan_from(read_state(read), seed=seed)
    with connect(postgres) as session:
        return replace(plan, lacking=tuple(lacking_rights(session, plan)))


def migrate(
    postgres: PostgresSettings, report: Report, *, seed: bool = True, patience: Patience | None = None
) -> MigrationResult:
    """Add what the database lacks, insert the rows TMI needs, then validate. Does nothing if nothing is missing.

    Safe to run again after any failure: it continues where the last run stopped. Of two concurrent runs, one waits.

    Raises:
        DatabaseError: the server could not be reached or refused the connection, a lock was not granted, or a step
            failed.
    """
    started = time.monotonic()
    patience = patience or Patience()
    created = _create_database(postgres, report) if _database_is_missing(postgres) else ()
    with connect(postgres) as session:
        _refuse_standby(session, postgres)
        with only_migration(session, patience, report):
            with snapshot(postgres) as connection:
                plan = plan_from(read_state(connection), seed=seed)
            _require_rights(lacking_rights(session, plan))
            done = execute(session, plan, report, patience)
    with snapshot(postgres) as connection:
        state = read_state(connection)
        return MigrationResult(
            operations=(*created, *done),
            blocked=plan_from(state, seed=seed).blocked,
            validation=judge(connection, state, postgres),
            seconds=time.monotonic() - started,
        )


def _require_rights(lacking: Iterable[Blocked]) -> None:
    """Raises:
    DatabaseError: the role may not do a step; none was started.
    """
    found = tuple(lacking)
    if found:
        raise DatabaseError(
            "; ".join(f"{one.table}: {one.reason}" for one in found),
            hint="; ".join(dict.fromkeys(one.remedy for one in found)),
            code=Code.MIGRATION_RIGHTS,
        )


def _database_is_missing(postgres: PostgresSettings) -> bool:
    """Whether the server can be reached but the database does not exist.

    libpq's message has no code and may be in any language, so the server's list of databases decides.
    """
    try:
        with connect(postgres):
            return False
    except DatabaseError:
        if _is_listed(postgres):
            raise
        return True


def _is_listed(postgres: PostgresSettings) -> bool:
    """Whether the server has the database; True if the server cannot be queried."""
    try:
        with _maintenance_connection(postgres) as connection:
            found = connection.execute("SELECT FROM pg_database WHERE datname = %s", (postgres.database,))
            return found.fetchone() is not None
    except DatabaseError:
        return True


def _create_database(postgres: PostgresSettings, report: Report) -> tuple[Operation, ...]:
    operation = CreateDatabase(postgres.database)
    with _maintenance_connection(postgres) as connection:
        try:
            connection.execute(render(operation).sql[0].encode())
        except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            return ()  # another migration was faster
        except psycopg.errors.InsufficientPrivilege:
            raise DatabaseError(
                f"{postgres.user} may not create the database {postgres.database}.",
                hint=f"as a superuser: ALTER ROLE {quote(postgres.user)} CREATEDB; or "
                f"CREATE DATABASE {quote(postgres.database)} OWNER {quote(postgres.user)};",
                code=Code.MIGRATION_RIGHTS,
            ) from None
        except psycopg.Error as error:
            raise DatabaseError(
                f"The database {postgres.database} could not be created: {first_line(error)}.",
                hint=f"create it by hand with encoding UTF8: CREATE DATABASE {quote(postgres.database)};",
            ) from error
    report.note(f"Created database {postgres.database}.")
    return (operation,)


@contextmanager
def _maintenance_connection(postgres: PostgresSettings) -> Iterator[psycopg.Connection[TupleRow]]:
    """A connection to a database that every server has.

    Raises:
        DatabaseError: none of them accepts us.
    """
    with ExitStack() as stack:
        refused: DatabaseError | None = None
        for database in MAINTENANCE_DATABASES:
            try:
                connection = stack.enter_context(connect(postgres, database))
            except DatabaseError as error:
                refused = refused or error
            else:
                yield connection
                return
        raise refused or AssertionError


def _refuse_standby(session: psycopg.Connection[TupleRow], postgres: PostgresSettings) -> None:
    row = session.execute("SELECT pg_is_in_recovery()").fetchone()
    if row and row[0]:
        raise DatabaseError(
            f"{postgres.describe()} is a standby, and standbys are read-only.",
            hint="set POSTGRES_HOST to the primary; the standbys replay the migration",
            code=Code.STANDBY,
        )


def lacking_createdb(connection: psycopg.Connection[Any], database: str) -> Iterator[Blocked]:
    """The missing privilege to create the database; checked from another database."""
    row = connection.execute(
        "SELECT rolcreatedb OR rolsuper, rolname::text FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    if row is None or not row[0]:
        role = row[1] if row else "the role"
        yield Blocked(
            database, "", f"{role} may not create this database.", f"as a superuser: ALTER ROLE {role} CREATEDB"
        )


def lacking_rights(connection: psycopg.Connection[Any], plan: MigrationPlan) -> Iterator[Blocked]:
    """The missing privileges for these steps, each with the statement that grants it."""
    created = {one.table for one in plan.operations if isinstance(one, CreateTable)}
    altered = {
        one.table
        for one in plan.operations
        if not isinstance(one, CreateDatabase | CreateTable | InsertSeed) and one.table not in created
    }
    for table, owner, role in connection.execute(_OF_OTHERS, (SEARCH_PATH, sorted(altered))).fetchall():
        yield Blocked(table, "", f"It belongs to {owner}, so {role} may not alter it.", f"run this as {owner}")
    if any(isinstance(one, CreateTable | BuildIndex) for one in plan.operations):
        may, role = connection.execute(_MAY_CREATE, (SEARCH_PATH,)).fetchone() or (False, "the role")
        if not may:
            how = f"as its owner: GRANT CREATE, USAGE ON SCHEMA {SEARCH_PATH} TO {role}"
            yield Blocked(SEARCH_PATH, "", f"{role} may not create tables and indexes in this schema.", how)
    for seed in (one for one in plan.operations if isinstance(one, InsertSeed) and one.table not in created):
        row = connection.execute(_MAY_INSERT, (seed.table,)).fetchone()
        if row is None or not row[0]:
            how = f"as its owner: GRANT INSERT ON {seed.table} TO the role"
            yield Blocked(seed.table, "", "The role may not insert the rows that TMI needs.", how)
