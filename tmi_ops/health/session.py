"""The connection that probes query: each query in a short read-only transaction of its own, within limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, LiteralString, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import class_row, dict_row

from tmi_ops.errors import DatabaseError, first_line
from tmi_ops.health.answer import CannotTell, Cause

if TYPE_CHECKING:
    from tmi_ops.health.counters import Window
    from tmi_ops.schema.state import SchemaState
from tmi_ops.profile import NONE, Profile
from tmi_ops.settings import PostgresSettings

T = TypeVar("T")

MONITOR_ROLE = "pg_monitor"
# A probe that waits for a lock must not make others wait behind it.
LOCK_TIMEOUT_S = 1.0

_SERVER = """
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int AS version_num,
       current_database() AS database,
       current_user AS role,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_superuser,
       pg_is_in_recovery() AS in_recovery,
       pg_postmaster_start_time() AS started_at,
       clock_timestamp() AS now,
       (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
       ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname ~ '^pg_' AND pg_has_role(oid, 'USAGE')) AS rights
"""
_EXTENSIONS = """
SELECT extname, nspname AS schema
FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
"""


@dataclass(frozen=True)
class Server:
    """The server and our role. `rights`: the predefined roles whose privileges it has."""

    version: str
    version_num: int
    database: str
    role: str
    is_superuser: bool
    in_recovery: bool
    started_at: datetime
    now: datetime
    system_identifier: str
    rights: Sequence[str]

    @property
    def major(self) -> int:
        return self.version_num // 10000


@dataclass
class ProbeSession:
    """What a probe may query.

    Attributes:
        timeout_s: of each statement.
        exact_bloat: measure bloat with pgstattuple, which reads entire tables.
        reader: a login that may read the application's tables, for its own checks; None: the session's own login.
    """

    connection: psycopg.Connection[Any]
    postgres: PostgresSettings
    timeout_s: float
    exact_bloat: bool = False
    profile: Profile = NONE
    reader: PostgresSettings | None = field(default=None, repr=False)
    _window: Window | None = field(default=None, repr=False)
    _schema: SchemaState | CannotTell | None = field(default=None, repr=False)

    @cached_property
    def server(self) -> Server:
        with self.connection.transaction():
            found = self.connection.cursor(row_factory=class_row(Server)).execute(_SERVER).fetchone()
        if found is None:  # a query without FROM has one row
            raise AssertionError
        return found

    @cached_property
    def extensions(self) -> Mapping[str, str]:
        """The schema of each extension of this database."""
        return {row["extname"]: row["schema"] for row in self.rows(_EXTENSIONS)}

    @property
    def window(self) -> Window:
        """The current counters together with earlier readings."""
        if self._window is None:
            raise AssertionError("the counters are read before the probes")
        return self._window

    @window.setter
    def window(self, window: Window) -> None:
        self._window = window

    @property
    def schema(self) -> SchemaState:
        """TMI's schema compared with its models, read once for all probes.

        Raises:
            CannotTell: it could not be read: no privilege, too slow, or locked. It is not tried again.
        """
        if self._schema is None:
            self._schema = self._read_schema()
        if isinstance(self._schema, CannotTell):
            raise self._schema
        return self._schema

    def _read_schema(self) -> SchemaState | CannotTell:
        from sqlalchemy import text

        from tmi_ops.schema.engine import snapshot
        from tmi_ops.schema.locking import observe
        from tmi_ops.schema.state import read_state

        limits = text(
            f"SET LOCAL statement_timeout = '{self.timeout_s * 1000:.0f}ms'; "
            f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S * 1000:.0f}ms'"
        )

        def read() -> SchemaState:
            with snapshot(self.postgres) as connection:
                connection.execute(limits)
                return read_state(connection)

        try:
            observed = observe(self.postgres, read)
        except DatabaseError as error:
            refused = getattr(error.__cause__, "orig", None)
            if isinstance(refused, psycopg.Error):
                return explain(refused, self)
            return CannotTell(Cause.REFUSED, error.message, error.hint)
        if observed.during_migration:
            return CannotTell(Cause.TOO_EARLY, "A migration is changing the schema.", "repeat this when it has ended")
        return observed.found

    def rows(self, query: LiteralString | sql.Composed, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Run the query; each row as a dict."""
        with limited(self.connection, self.timeout_s):
            return self.connection.cursor(row_factory=dict_row).execute(query, parameters or None).fetchall()

    def row(self, query: LiteralString | sql.Composed, parameters: Sequence[Any] = ()) -> dict[str, Any]:
        """Run a query that returns one row."""
        return self.rows(query, parameters)[0]

    def read(self, kind: type[T], query: LiteralString | sql.Composed, parameters: Sequence[Any] = ()) -> tuple[T, ...]:
        """Run the query; each row as a `kind`, whose fields are the columns."""
        with limited(self.connection, self.timeout_s):
            return tuple(self.connection.cursor(row_factory=class_row(kind)).execute(query, parameters or None))

    def permitted(
        self, query: LiteralString | sql.Composed, parameters: Sequence[Any] = ()
    ) -> list[dict[str, Any]] | None:
        """Run the query; None if the role may not."""
        try:
            return self.rows(query, parameters)
        except psycopg.errors.InsufficientPrivilege:
            return None

    def in_schema_of(self, extension: str, query: LiteralString) -> sql.Composed | None:
        """The query with `{schema}` filled in; None if this database lacks the extension."""
        schema = self.extensions.get(extension)
        if schema is None:
            return None
        return sql.SQL(query).format(schema=sql.Identifier(schema))

    def require(self, rights: Sequence[str]) -> None:
        """Check that the role has the privileges of these predefined roles.

        Raises:
            CannotTell: it lacks one; the remedy is the GRANT.
        """
        missing = [right for right in rights if not self.server.is_superuser and right not in self.server.rights]
        if missing:
            raise CannotTell(
                Cause.RIGHT,
                f"The role {self.server.role} lacks {', '.join(missing)}, so it sees only its own sessions.",
                f"grant it pg_monitor, which includes {', '.join(missing)}",
                (self.grant(MONITOR_ROLE),),
            )

    def grant(self, right: str) -> str:
        """`GRANT right TO our role;`"""
        return f"GRANT {right} TO {sql.Identifier(self.server.role).as_string(self.connection)};"


@contextmanager
def limited(connection: psycopg.Connection[Any], timeout_s: float) -> Iterator[None]:
    """A read-only transaction with limits on run time and lock waits, in which names mean PostgreSQL's own first."""
    with connection.transaction():
        connection.execute(
            "SELECT set_config('transaction_read_only', 'on', true), set_config('statement_timeout', %s, true), "
            "set_config('lock_timeout', %s, true), set_config('search_path', 'pg_catalog', true)",
            (f"{timeout_s * 1000:.0f}ms", f"{min(LOCK_TIMEOUT_S, timeout_s / 2) * 1000:.0f}ms"),
        )
        yield


def explain(error: psycopg.Error, session: ProbeSession) -> CannotTell:
    """Why a probe's query failed, and what to do."""
    said = first_line(error).rstrip(".")
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return CannotTell(
            Cause.RIGHT,
            f"The role {session.server.role} lacks a privilege: {said}.",
            "grant the role pg_monitor",
            (session.grant(MONITOR_ROLE),),
        )
    if isinstance(error, psycopg.errors.QueryCanceled):
        return CannotTell(
            Cause.REFUSED,
            f"The query took longer than {session.timeout_s:g} s.",
            "give probes more time",
            (f"TMI_OPS_HEALTH_TIMEOUT={session.timeout_s * 6:.0f}s",),
        )
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return CannotTell(
            Cause.REFUSED,
            "A table that the probe reads is locked (ALTER TABLE or VACUUM FULL is running).",
            "find out who holds the lock",
            ("tmi-ops health --probe blocked_sessions",),
        )
    return CannotTell(Cause.REFUSED, f"The query failed: {said}.", "report this with the version of PostgreSQL", ())
