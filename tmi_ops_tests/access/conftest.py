"""One server that logs every statement; each test has a database, and roles, of its own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from tmi_ops.access.declared import NAME_VARIABLE, DeclaredAccess, RoleKind, declared_access
from tmi_ops.access.drift import check_access
from tmi_ops.access.execution import apply_access
from tmi_ops.access.findings import Drift
from tmi_ops.access.inspection import read_access
from tmi_ops.access.passwords import known_passwords, passwords_to_set
from tmi_ops.access.planning import Plan, plan_access
from tmi_ops.postgres.cluster import RunningCluster
from tmi_ops.postgres.connections import connect, connection_parameters
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import SilentReport
from tmi_ops.settings import PostgresSettings
from tmi_ops.stack.postgresql import throwaway_server

TALKATIVE = {
    "wal_level": "replica",
    "max_wal_senders": "4",
    "full_page_writes": "on",
    "shared_buffers": "64MB",
    "log_statement": "all",
    "log_min_duration_statement": "0",
    "shared_preload_libraries": "pg_stat_statements",
    "listen_addresses": "*",
}
LOCK_TIMEOUT_S = 0.5
TABLES = """
CREATE TABLE threats (id serial PRIMARY KEY, name text NOT NULL);
INSERT INTO threats (name) VALUES ('spoofing');
CREATE TYPE severity AS ENUM ('low', 'high');
CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''append only''; END';
CREATE VIEW spoofing AS SELECT * FROM threats WHERE name = 'spoofing';
"""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Iterator[RunningCluster]:
    with throwaway_server(programs, tmp_path_factory.mktemp("access"), parameters=TALKATIVE) as running:
        yield running


@pytest.fixture(scope="session")
def server(cluster: RunningCluster) -> PostgresSettings:
    """Also what the project's `database` fixture makes its databases in."""
    return cluster.address


@dataclass
class Site:
    """A database, the names of its roles, and where generated passwords go."""

    admin: PostgresSettings
    file: Path
    variables: dict[str, str]

    def major(self) -> int:
        with connect(self.admin) as connection:
            return connection.info.server_version // 10000

    def declared(self) -> DeclaredAccess:
        return declared_access(self.admin.database, self.major(), self.variables)

    def plan(self, reset: frozenset[RoleKind] = frozenset(), postgres: PostgresSettings | None = None) -> Plan:
        known = known_passwords(self.variables, self.file)
        with connect(postgres or self.admin) as connection:
            return plan_access(read_access(connection), self.declared(), known, reset)

    def apply(
        self,
        reset: frozenset[RoleKind] = frozenset(),
        postgres: PostgresSettings | None = None,
        plan: Plan | None = None,
    ) -> Plan:
        plan = plan or self.plan(reset, postgres)
        passwords = passwords_to_set(plan.statements, known_passwords(self.variables, self.file), self.file)
        with connect(postgres or self.admin) as connection:
            apply_access(connection, plan, self.declared(), passwords, SilentReport(), lock_timeout_s=LOCK_TIMEOUT_S)
        return plan

    def check(self, postgres: PostgresSettings | None = None) -> tuple[Drift, ...]:
        with connect(postgres or self.admin) as connection:
            return check_access(read_access(connection), self.declared(), known_passwords(self.variables, self.file))

    def name(self, kind: RoleKind) -> str:
        return self.declared().of(kind).name

    def as_role(self, kind: RoleKind) -> PostgresSettings:
        """How that role reaches the database, with the password it was given."""
        known = known_passwords(self.variables, self.file)
        password = known.environment.get(kind) or known.file[kind]
        return self.admin.model_copy(update={"user": self.name(kind), "password": password})

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        """As the administrator; `{app}` and the like are names of roles."""
        names: Mapping[str, str] = {kind.value: self.name(kind) for kind in RoleKind}
        with connect(self.admin) as connection:
            return run_on(connection, *(statement.format(**names) for statement in statements))


@contextmanager
def new_site(database: PostgresSettings, file: Path, tables: str = TABLES) -> Iterator[Site]:
    suffix = secrets.token_hex(4)
    names = {f"{NAME_VARIABLE}{kind.upper()}": f"tmi_{kind}_{suffix}" for kind in RoleKind}
    site = Site(database, file, dict(names))
    site.sql(tables)
    yield site
    site.variables = names
    drop_roles(site)


@pytest.fixture
def site(database: PostgresSettings, tmp_path: Path) -> Iterator[Site]:
    """A database with a table, not yet set up."""
    with new_site(database, tmp_path / "passwords.env") as site:
        yield site


@pytest.fixture(scope="module")
def standing(server: PostgresSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A database set up once for the tests of a file; they leave it as they found it."""
    with connect(server) as connection:
        run_on(connection, "CREATE DATABASE standing")
    try:
        address = server.model_copy(update={"database": "standing"})
        with new_site(address, tmp_path_factory.mktemp("standing") / "passwords.env") as site:
            site.apply()
            yield site
    finally:
        with connect(server) as connection:
            run_on(connection, "DROP DATABASE standing WITH (FORCE)")


def drop_roles(site: Site) -> None:
    with connect(site.admin) as connection:
        for kind in RoleKind:
            found = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (site.name(kind),)).fetchone()
            if found is not None:
                run_on(
                    connection,
                    f'REASSIGN OWNED BY "{site.name(kind)}" TO CURRENT_USER',
                    f'DROP OWNED BY "{site.name(kind)}"',
                    f'DROP ROLE "{site.name(kind)}"',
                )


def run_on(connection: psycopg.Connection[Any], *statements: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for statement in statements:
        cursor = connection.execute(statement.encode())
        rows = cursor.fetchall() if cursor.description else []
    return rows


def may(postgres: PostgresSettings, statement: str) -> bool:
    """Whether this role may; whatever it did is undone. Only a refusal for want of a right counts as one."""
    with psycopg.connect(**connection_parameters(postgres)) as connection:
        try:
            connection.execute(statement.encode())
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction):
            return False
        finally:
            connection.rollback()
    return True


def logged(cluster: RunningCluster) -> str:
    return (cluster.directory.parent / "server.log").read_text(errors="replace")


def with_password(postgres: PostgresSettings, password: str) -> PostgresSettings:
    return postgres.model_copy(update={"password": SecretStr(password)})
