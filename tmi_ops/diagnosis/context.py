"""What the links check. Each connection is opened once, by the first link that needs it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from tmi_ops.diagnosis.network import Service
from tmi_ops.diagnosis.refusals import Refused, explain_refusal
from tmi_ops.errors import OpsError
from tmi_ops.postgres.connections import connection_parameters
from tmi_ops.settings import PostgresSettings, Purpose, Settings, load_settings

if TYPE_CHECKING:
    from tmi_ops.store.s3.visit import StoreVisit

CONNECT_TIMEOUT_S = 5
# A lock or a slow disk must not hold up the other links.
STATEMENT_TIMEOUT_MS = 10_000
# To query the server although TMI's database cannot be connected to.
_OTHER_DATABASES = ("postgres", "template1")


@dataclass
class DiagnosisContext:
    """One environment on one machine.

    Attributes:
        variables: of the process; .env files are read in addition.
        directory: of the .env files.
        dagster: variables of Dagster's records, DAGSTER_PG_*; may be empty.
    """

    variables: Mapping[str, str] = field(repr=False)
    directory: Path
    dagster: Mapping[str, str] = field(repr=False)
    offers_tls: bool | None = None
    _open: ExitStack = field(default_factory=ExitStack, repr=False)
    _logins: dict[PostgresSettings, psycopg.Connection[Any] | str] = field(default_factory=dict, repr=False)

    def close(self) -> None:
        self._open.close()

    @cached_property
    def settings(self) -> Settings:
        """Raises SettingsError."""
        return load_settings(self.variables, self.directory)

    @property
    def postgres(self) -> PostgresSettings:
        return self.settings.postgres

    def login_for(self, purpose: Purpose) -> PostgresSettings:
        """The login for a purpose, as the environment configures it."""
        return load_settings(self.variables, self.directory, purpose).postgres

    @cached_property
    def postgres_service(self) -> Service:
        postgres = self.postgres
        start = (
            ("tmi-ops up  # starts the embedded stack",)
            if self.settings.uses_embedded_stack
            else (
                "systemctl start postgresql  # or: docker start <its container>",
                "SHOW listen_addresses;  -- on the server, if it runs; '*' admits other machines (needs a restart)",
            )
        )
        return Service("PostgreSQL", postgres.host, postgres.port, "POSTGRES_HOST", "POSTGRES_PORT", start)

    @cached_property
    def attempt(self) -> psycopg.Connection[Any] | str:
        """The connection to TMI's database as configured, or libpq's message if it failed."""
        return self.connect()

    def connect(self, database: str | None = None, **other: Any) -> psycopg.Connection[Any] | str:
        """A connection that stays open until `close`, or libpq's message."""
        parameters = {
            **connection_parameters(self.postgres, database),
            "connect_timeout": CONNECT_TIMEOUT_S,
            **other,
        }
        return self.open(**parameters)

    def connect_as(self, purpose: Purpose) -> psycopg.Connection[Any] | str:
        """A connection to TMI's database with the login of a purpose; `attempt` if that is POSTGRES_USER."""
        login = self.login_for(purpose)
        if login == self.postgres:
            return self.attempt
        if login not in self._logins:
            self._logins[login] = self.open(**{**connection_parameters(login), "connect_timeout": CONNECT_TIMEOUT_S})
        return self._logins[login]

    def open(self, **parameters: Any) -> psycopg.Connection[Any] | str:
        """As `connect`, to any server."""
        try:
            connection = psycopg.connect(**parameters, autocommit=True)
        except psycopg.OperationalError as error:
            return str(error).strip()
        self._open.callback(connection.close)
        return connection

    @cached_property
    def store_visit(self) -> StoreVisit:
        from tmi_ops.store.s3.visit import StoreVisit

        visit = StoreVisit(self.settings.store, self.settings.environment)
        self._open.callback(visit.clean_up)
        return visit

    @cached_property
    def records(self) -> psycopg.Connection[Any] | str:
        """The database of Dagster's records, or libpq's message. Needs DAGSTER_PG_HOST."""
        return self.open(
            host=self.dagster["DAGSTER_PG_HOST"],
            port=self.dagster.get("DAGSTER_PG_PORT", "5432"),
            user=self.dagster.get("DAGSTER_PG_USERNAME", "dagster"),
            password=self.dagster.get("DAGSTER_PG_PASSWORD"),
            dbname=self.dagster.get("DAGSTER_PG_DB", "dagster"),
            connect_timeout=CONNECT_TIMEOUT_S,
        )

    @cached_property
    def refusal(self) -> Refused | None:
        """Why the connection was refused; None: it was not, or the message is not recognized."""
        return explain_refusal(self.attempt, self.postgres) if isinstance(self.attempt, str) else None

    @cached_property
    def server(self) -> psycopg.Connection[Any]:
        """A session in any database that accepts us, for queries about the server; with the monitoring role if the
        environment names one, as others do not see all settings.

        Raises:
            OpsError: no database accepts us.
        """
        if not isinstance(self.attempt, str):
            monitor = self.connect_as(Purpose.MONITOR)
            return self.attempt if isinstance(monitor, str) else monitor
        for database in _OTHER_DATABASES:
            connection = self.connect(database)
            if not isinstance(connection, str):
                return connection
        raise OpsError(
            f"{self.postgres.user} cannot connect to any database of {self.postgres.host}, so the server cannot be "
            "checked."
        )

    @cached_property
    def database(self) -> psycopg.Connection[Any]:
        """A session in TMI's database, which the link `database` has checked."""
        if isinstance(self.attempt, str):
            raise OpsError(self.attempt)
        return self.attempt

    @cached_property
    def server_major(self) -> int:
        return self.server.info.server_version // 10000

    def ask(self, query: Any, *values: Any) -> tuple[Any, ...]:
        """One row from the server."""
        rows = rows_of(self.server, query, *values)
        if not rows:
            raise OpsError("The server returned no row.")
        return rows[0]


def rows_of(connection: psycopg.Connection[Any], query: Any, *values: Any) -> list[tuple[Any, ...]]:
    """Query with a time limit, in a transaction of its own, so that a pooler does not pass the limit on to others."""
    with connection.transaction():
        connection.execute(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
        return connection.execute(query, values or None).fetchall()
