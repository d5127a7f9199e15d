"""Databases in the states a schema can be in."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tmi_ops.postgres.connections import connect
from tmi_ops.progress import Phase, SilentReport, Unit
from tmi_ops.schema.migration import migrate
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.schema.facts import gorm_statements


class Recorder(SilentReport):
    """A report that keeps what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.phases: list[tuple[str, float | None]] = []

    @contextmanager
    def phase(self, name: str, *, total: float | None = None, unit: Unit = "bytes") -> Iterator[Phase]:
        self.phases.append((name, total))
        with super().phase(name, total=total, unit=unit) as phase:
            yield phase

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def report() -> Recorder:
    return Recorder()


@pytest.fixture(scope="session")
def migrated_once(server: PostgresSettings) -> Iterator[PostgresSettings]:
    """A database as a migration leaves it, for tests that undo what they do; and the template of `migrated`."""
    with database_of(server, "template_migrated") as database:
        migrate(database, Recorder())
        yield database


@pytest.fixture(scope="session")
def unseeded_once(server: PostgresSettings) -> Iterator[PostgresSettings]:
    with database_of(server, "template_unseeded") as database:
        migrate(database, Recorder(), seed=False)
        yield database


@pytest.fixture(scope="session")
def made_by_gorm_once(server: PostgresSettings) -> Iterator[PostgresSettings]:
    with database_of(server, "template_gorm") as database:
        with connect(database) as connection:
            connection.execute(";".join(gorm_statements()).encode())
        run(database, *A_THREAT_MODEL)
        yield database


@pytest.fixture
def migrated(server: PostgresSettings, migrated_once: PostgresSettings) -> Iterator[PostgresSettings]:
    """A database as a migration leaves it."""
    with database_of(server, template=migrated_once.database) as database:
        yield database


@pytest.fixture
def unseeded(server: PostgresSettings, unseeded_once: PostgresSettings) -> Iterator[PostgresSettings]:
    """A database as a migration without seeding leaves it: no row in any table."""
    with database_of(server, template=unseeded_once.database) as database:
        yield database


@pytest.fixture
def made_by_gorm(server: PostgresSettings, made_by_gorm_once: PostgresSettings) -> Iterator[PostgresSettings]:
    """A database as TMI's own start leaves it, with a threat model in it."""
    with database_of(server, template=made_by_gorm_once.database) as database:
        yield database


@contextmanager
def database_of(
    server: PostgresSettings, name: str | None = None, template: str = "template1"
) -> Iterator[PostgresSettings]:
    """A database for the length of a `with` block."""
    name = name or f"tmi_{secrets.token_hex(4)}"
    run(server, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield server.model_copy(update={"database": name})
    finally:
        run(server, f'DROP DATABASE "{name}" WITH (FORCE)')


A_THREAT_MODEL = (
    "INSERT INTO users (internal_uuid, provider, email, name, created_at, modified_at) "
    "VALUES ('u1', 'tmi', 'ada@example.com', 'Ada', now(), now())",
    "INSERT INTO threat_models (id, owner_internal_uuid, name, created_by_internal_uuid, created_at, modified_at) "
    "VALUES ('tm1', 'u1', 'Shop', 'u1', now(), now())",
)


def add_threats(postgres: PostgresSettings, **severities: str) -> None:
    """Threats of the one threat model: id -> severity."""
    run(
        postgres,
        *(
            "INSERT INTO threats (id, threat_model_id, name, severity, threat_type, alias, created_at, modified_at) "
            f"VALUES ('{name}', 'tm1', '{name}', '{severity}', '[]', {alias}, now(), now())"
            for alias, (name, severity) in enumerate(severities.items(), 1)
        ),
    )


def run(postgres: PostgresSettings, *statements: str) -> None:
    with connect(postgres) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def ask(postgres: PostgresSettings, query: str) -> list[tuple[Any, ...]]:
    with connect(postgres) as connection:
        return connection.execute(query.encode()).fetchall()
