"""A past and a living database, cheaply: two databases of one server, the second copied from the first and spoiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.rescue.databases import SCHEMA, Of, Two, copied, made


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


@pytest.fixture
def of(server: PostgresSettings) -> Iterator[Of]:
    """A past made of this SQL, and a living copy of it."""
    with ExitStack() as stack:

        def build(schema: str) -> Two:
            past = stack.enter_context(made(server, schema))
            return Two(past, stack.enter_context(copied(past)))

        yield build
