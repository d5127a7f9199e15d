"""Data sets of a size that is made in a second."""

from __future__ import annotations

import pytest

from tmi_ops.progress import SilentReport
from tmi_ops.schema.migration import migrate
from tmi_ops.settings import PostgresSettings
from tmi_ops.stack.dataset.plan import DatasetPlan, plan_dataset
from tmi_ops.stack.dataset.rows import generate
from tmi_ops.stack.dataset.world import Rows, new_rows

SMALL = 40_000_000


def all_rows(plan: DatasetPlan) -> Rows:
    """Every batch of a plan in one."""
    together = new_rows()
    for batch in generate(plan):
        for table, rows in batch.items():
            together[table] += rows
    return together


@pytest.fixture(scope="session")
def small_rows() -> Rows:
    return all_rows(plan_dataset(SMALL, seed=1))


@pytest.fixture
def migrated(database: PostgresSettings) -> PostgresSettings:
    """A database with TMI's tables and the rows TMI seeds."""
    migrate(database, SilentReport())
    return database
