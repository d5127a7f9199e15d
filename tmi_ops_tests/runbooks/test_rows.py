"""The runbook that brings rows back: cut off at every step and resumed, it ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tmi_ops.backup.logical import back_up_logical
from tmi_ops.cache.connection import connected
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.rescue.past import Moment, past_database
from tmi_ops.recovery.rescue.planning import plan_rescue
from tmi_ops.recovery.rescue.selection import Selection, TableRows
from tmi_ops.recovery.rescue.session import both_sides
from tmi_ops.runbooks.catalogue import actions_for
from tmi_ops.runbooks.execution import Fault, RunbookError, begin, carry_out
from tmi_ops.runbooks.execution import Moment as Stage
from tmi_ops.runbooks.logbook import Logbook
from tmi_ops.runbooks.plan import Plan
from tmi_ops.runbooks.rows.planning import runbook_of
from tmi_ops.settings import Settings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops_tests.runbooks.crashes import Crash, crash_at

pytestmark = pytest.mark.slow

REPORT = SilentReport()
CHOSEN = Selection((TableRows("ledger"),))


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return open_store(settings.store, settings.environment)


@pytest.fixture
def lost(settings: Settings, store: ObjectStore) -> Iterator[Settings]:
    """A table that was backed up and then emptied, with a stale copy of it in the cache."""
    with connect(settings.postgres) as connection:
        connection.execute("CREATE TABLE ledger (i integer PRIMARY KEY, n integer)")
        connection.execute("INSERT INTO ledger SELECT i, i FROM generate_series(1, 5) i")
        back_up_logical(settings, store, "custom", REPORT)
        connection.execute("DELETE FROM ledger")
    with connected(settings.redis) as cache:
        cache.set("cache:ledger", "stale")
        cache.set("session:1", "somebody")
        yield settings
        cache.delete("cache:ledger", "session:1")


def agreed(settings: Settings, store: ObjectStore) -> Plan:
    """The runbook of what a person saw and agreed to."""
    moment = Moment(backup="latest")
    with (
        past_database(settings, store, moment, REPORT) as past,
        both_sides(past.address, settings.postgres) as sides,
    ):
        return runbook_of(settings, moment, plan_rescue(sides, CHOSEN, past.words, REPORT))


def carried_out(
    settings: Settings, store: ObjectStore, logbook: Logbook, plan: Plan, fault: Fault | None = None
) -> None:
    carry_out(settings, store, logbook, actions_for(plan), REPORT, lambda _journal, _step: True, fault=fault)


def rows(settings: Settings) -> int:
    with connect(settings.postgres) as connection:
        row = connection.execute("SELECT count(*) FROM ledger").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("at", [("rows", "begun"), ("rows", "deed done"), ("cache", "begun"), ("cache", "deed done")])
def test_cut_off_anywhere_it_is_resumed_to_the_same_end(
    lost: Settings, store: ObjectStore, at: tuple[str, Stage]
) -> None:
    plan = agreed(lost, store)
    logbook, _ = begin(lost, store, plan, REPORT)
    with pytest.raises(Crash):
        carried_out(lost, store, logbook, plan, crash_at(*at))
    assert rows(lost) == (0 if at == ("rows", "begun") else 5)
    carried_out(lost, store, logbook, plan)
    assert rows(lost) == 5
    assert logbook.read().state == "done"
    with connected(lost.redis) as cache:
        assert not cache.exists("cache:ledger")
        assert cache.exists("session:1")


def test_rows_that_differ_from_those_agreed_to_are_not_written(lost: Settings, store: ObjectStore) -> None:
    plan = agreed(lost, store)
    logbook, _ = begin(lost, store, plan, REPORT)
    with connect(lost.postgres) as connection:
        connection.execute("INSERT INTO ledger VALUES (3, 3)")
    with pytest.raises(RunbookError, match="not those that were agreed to"):
        carried_out(lost, store, logbook, plan)
    assert rows(lost) == 1
