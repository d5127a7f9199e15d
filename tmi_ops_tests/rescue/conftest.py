"""A past and a living database, cheaply: two databases of one server, the second copied from the first and spoiled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.rescue.databases import SCHEMA, Two, copied, made


@pytest.fixture(scope="session")
def past(server: PostgresSettings) -> Iterator[PostgresSettings]:
    """The past, which no rescue changes; all tests share it."""
    with made(server, SCHEMA) as address:
        yield address


@pytest.fixture
def two(past: PostgresSettings) -> Iterator[Two]:
    """The past, and a living database that is still the same."""
    with copied(past) as now:
        yield Two(past, now)
