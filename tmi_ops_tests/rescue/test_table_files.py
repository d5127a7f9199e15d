"""Whose file it was: commits as PostgreSQL 15 and 17 wrote them, of tables a and b with an index each."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tmi_ops.rescue.table_events import events_backwards, events_forwards, file_after, file_before
from tmi_ops.rescue.wal_events import Commit, File

A, A_INDEX, B, B_INDEX = 16384, 16388, 16394, 16398
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def files(*numbers: int) -> tuple[File, ...]:
    return tuple(File(5, number) for number in numbers)


def commit(gone: tuple[File, ...], made: tuple[File, ...], touched: tuple[int, ...], *dropped: int) -> Commit:
    return Commit(7, 100, NOON, gone, made, touched, frozenset(dropped))


# a and b were emptied in this order, whatever else the transaction did; a's file was younger than b's.
OLD_A, OLD_B, NEW_A, NEW_B = File(5, 16450), File(5, 16394), File(5, 16500), File(5, 16502)
EMPTIED = (A, A_INDEX, A, B, B_INDEX, B)
GONE, MADE = files(16450, 16451, 16394, 16398), files(16500, 16501, 16502, 16503)


@pytest.mark.parametrize(
    "done",
    [
        pytest.param(commit(GONE, MADE, EMPTIED), id="nothing else"),
        pytest.param(commit((*files(16410, 16411), *GONE), MADE, (16410, 16411, *EMPTIED), 16410, 16411), id="a drop"),
        pytest.param(commit((*GONE, *files(16410)), MADE, (*EMPTIED, 16410), 16410), id="a drop afterwards"),
        pytest.param(
            commit((*GONE[:2], *files(16410), *GONE[2:]), MADE, (*EMPTIED[:3], 16410, *EMPTIED[3:]), 16410),
            id="a drop in between",
        ),
        pytest.param(commit(GONE, (*files(16490, 16493), *MADE), (16490, 16493, *EMPTIED)), id="a new table"),
        pytest.param(commit((*files(16420), *GONE), (*files(16499), *MADE), (16420, *EMPTIED)), id="another reindexed"),
    ],
)
def test_tables_emptied_at_once_are_told_apart(done: Commit) -> None:
    assert (file_before(done, A, NEW_A), file_before(done, B, NEW_B)) == (OLD_A, OLD_B)
    assert (file_after(done, A, OLD_A), file_after(done, B, OLD_B)) == (NEW_A, NEW_B)


def test_a_table_emptied_twice_in_one_transaction_is_followed_through_both() -> None:
    done = commit(files(16384, 16388, 16500, 16501), files(16500, 16501, 16502, 16503), (A, A_INDEX, A))
    assert file_before(done, A, File(5, 16502)) == File(5, 16384)
    assert file_after(done, A, File(5, 16384)) == File(5, 16502)


@pytest.mark.parametrize("told", [True, False], ids=["15 and later", "before 15"])
def test_a_rewritten_table_is_followed_through_the_passing_relation(told: bool) -> None:
    dropped = (16494, 16497, 16498) if told else ()
    touched = (16494, 16497, 16498, A, A_INDEX, A, 16498, 16497, 16494)
    gone = files(16488, 16486, 16485, 16384)
    done = commit(gone, files(16494, 16497, 16498, 16499), touched, *dropped)
    assert file_before(done, A, File(5, 16494)) == File(5, 16384)
    assert file_after(done, A, File(5, 16384)) == File(5, 16494)


def test_what_cannot_be_told_is_said_not_guessed() -> None:
    """Two tables were rewritten in one transaction."""
    touched = (A, 16502, A_INDEX, A, 16502, B, 16510, B_INDEX, B, 16510)
    done = commit(files(16388, 16384, 16398, 16394), files(16502, 16503, 16510, 16511), touched, 16502, 16510)
    deleted = replace(commit((), (), ()), deleted={File(5, 16384): 3})
    back = events_backwards([deleted, done], A, File(5, 16502))
    assert [event.kind for event in back.events] == ["emptied or rewritten"]
    assert back.blind == (deleted,)
    forth = events_forwards([deleted, done, deleted], A, File(5, 16384))
    assert [(event.kind, event.rows) for event in forth.events] == [("deleted rows", 3), ("emptied or rewritten", 0)]
    assert forth.blind == (deleted,)


def test_a_table_that_was_created_in_the_time_has_nothing_before() -> None:
    done = commit(files(16410), files(A, A_INDEX), (A, A_INDEX, 16410), 16410)
    earlier = replace(commit((), (), ()), deleted={File(5, A): 3})
    assert events_backwards([earlier, done], A, File(5, A)).events == ()
    assert events_backwards([earlier, done], A, File(5, A)).blind == ()


def test_a_table_dropped_by_a_commit_that_makes_others_is_dropped() -> None:
    done = commit(files(16384, 16388), files(16490), (A_INDEX, A, 16490), A, A_INDEX)
    assert [event.kind for event in events_forwards([done], A, File(5, 16384)).events] == ["dropped"]
