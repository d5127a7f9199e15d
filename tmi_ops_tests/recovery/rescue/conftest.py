"""A past and a living database, cheaply: two databases of one server, the second copied from the first and spoiled."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tmi_ops.postgres.connections import connect
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.recovery.rescue.databases import SCHEMA, Two, copied, dropped


@pytest.fixture(scope="session")
def past(server: PostgresSettings) -> Iterator[PostgresSettings]:
    """The past, which no rescue changes; all tests share it."""
    address = server.model_copy(update={"database": f"past_{secrets.token_hex(4)}"})
    with connect(server) as connection:
        connection.execute(f'CREATE DATABASE "{address.database}"')
    with connect(address) as connection:
        connection.execute(SCHEMA.encode())
    yield address
    dropped(address)


@pytest.fixture
def two(past: PostgresSettings) -> Iterator[Two]:
    """The past, and a living database that is still the same."""
    with copied(past) as now:
        yield Two(past, now)
