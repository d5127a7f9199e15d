"""Remove old asset events that ticks and guards recorded without a run, and old results of checks.

Dagster removes neither: deleting a run deletes its events, but not the results of its checks. The newest of each asset
and of each check is kept. Source: dagster/_core/storage/event_log/schema.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as db
from dagster import DagsterInstance
from dagster._core.instance import RUNLESS_RUN_ID
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, SqlEventLogStorageTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

# A tick has a minute; at production's pace some 3,000 are recorded a day.
MOST_AT_ONCE = 2000


def forget_events(
    instance: DagsterInstance, path: Sequence[str], now: datetime, kept: timedelta, run_kept: timedelta
) -> int:
    """Remove old events of the assets whose keys begin with `path`. Returns how many rows were removed.

    Args:
        kept: how long events without a run are kept; `run_kept`: the longest time that a run is kept.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return 0
    events, checks = SqlEventLogStorageTable, AssetCheckExecutionsTable
    runless, beyond_any_run = (_naive(now - age) for age in (kept, run_kept))
    of_ours = json.dumps(list(path))[:-1] + ", "
    of_assets = [events.c.asset_key.startswith(of_ours, autoescape=True), events.c.run_id == RUNLESS_RUN_ID]
    of_checks = [checks.c.asset_key.startswith(of_ours, autoescape=True)]
    when = checks.c.create_timestamp
    old = db.or_(db.and_(checks.c.run_id == RUNLESS_RUN_ID, when < runless), when < beyond_any_run)
    with storage.index_transaction() as connection:
        recorded = _old(
            connection, events, of_assets, events.c.timestamp < runless, ("asset_key", "dagster_event_type")
        )
        found = _old(connection, checks, of_checks, old, ("asset_key", "check_name"))
        # The event of such a result names no asset.
        told = db.select(checks.c.evaluation_event_storage_id).where(checks.c.id.in_(found))
        recorded += [row[0] for row in connection.execute(told) if row[0] is not None]
        runless_ones = events.c.id.in_(recorded), events.c.run_id == RUNLESS_RUN_ID
        removed = connection.execute(events.delete().where(*runless_ones)).rowcount
        return removed + connection.execute(checks.delete().where(checks.c.id.in_(found))).rowcount


def _old(connection: db.Connection, table: db.Table, ours: list[Any], old: Any, each: Sequence[str]) -> list[int]:
    """The oldest old rows, except the newest of each."""
    newest = db.select(db.func.max(table.c.id)).where(*ours).group_by(*(table.c[name] for name in each))
    found = db.select(table.c.id).where(*ours, old, table.c.id.not_in(newest)).order_by(table.c.id).limit(MOST_AT_ONCE)
    return [row[0] for row in connection.execute(found)]


def _naive(moment: datetime) -> datetime:
    """As Dagster writes them: UTC, without a time zone."""
    return moment.astimezone(UTC).replace(tzinfo=None)
