"""When a lease counts as held, and what it never forgets."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest

from tmi_ops.wal.lease import LEASE_S, Lease, _following, _machine, _process_start, advanced, is_held

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def a_lease(**changes: object) -> Lease:
    facts = {"holder": "a", "host": "h", "process": 1, "since": NOON, "written_at": NOON, **changes}
    return Lease.model_validate(facts)


def ours(**changes: object) -> Lease:
    """Of this very process."""
    here = {"machine": _machine(), "process": os.getpid(), "process_start": _process_start(os.getpid())}
    return a_lease(**{**here, **changes})


@pytest.mark.parametrize(
    ("lease", "age", "held"),
    [
        (a_lease(), 0, True),
        (a_lease(), LEASE_S - 0.1, True),
        (a_lease(), LEASE_S, False),
        (a_lease(ended=True), 0, False),
        (ours(), 1, True),
        (ours(process_start="0"), 1, False),  # the number is another process's by now
        (ours(process=2**22 + 1), 1, False),
        (ours(machine="another boot", process=2**22 + 1), 1, True),  # that machine cannot be asked
    ],
)
def test_a_lease_is_held_until_it_ends_runs_out_or_its_holder_is_seen_dead(
    lease: Lease, age: float, held: bool
) -> None:
    assert is_held(lease, age) is held


def test_a_receiver_started_anew_forgets_nothing_of_what_was_known() -> None:
    known = a_lease(timeline=1, lsn="0/5000100", level_at=NOON)
    begun = advanced(known, {"timeline": 1, "lsn": "0/5000000", "level_at": None}, NOON)
    assert (begun.lsn, begun.level_at) == ("0/5000100", NOON)
    assert advanced(known, {}, NOON).lsn == "0/5000100"


def test_a_lease_advances_with_its_receiver() -> None:
    known = a_lease(timeline=1, lsn="0/5000100", level_at=NOON)
    later = NOON + timedelta(seconds=5)
    moved = advanced(known, {"timeline": 1, "lsn": "0/F000000", "level_at": later}, later)
    assert (moved.lsn, moved.level_at, moved.written_at) == ("0/F000000", later, later)


def test_on_a_new_timeline_a_lower_lsn_is_an_advance() -> None:
    known = a_lease(timeline=1, lsn="0/5000100")
    moved = advanced(known, {"timeline": 2, "lsn": "0/4000000"}, NOON)
    assert (moved.timeline, moved.lsn) == (2, "0/4000000")


def test_a_clock_put_back_does_not_make_the_archive_older() -> None:
    known = a_lease(level_at=NOON)
    assert advanced(known, {"level_at": NOON - timedelta(hours=1)}, NOON).level_at == NOON


def test_who_takes_over_knows_of_the_archive_what_the_last_holder_knew_and_is_itself() -> None:
    before = a_lease(holder="b", host="elsewhere", timeline=3, lsn="0/5000100", level_at=NOON)
    following = _following(a_lease(since=NOON + timedelta(hours=1)), before)
    assert (following.timeline, following.lsn, following.level_at) == (3, "0/5000100", NOON)
    assert (following.holder, following.host, following.since) == ("a", "h", NOON + timedelta(hours=1))


def test_the_first_holder_knows_nothing_of_the_archive() -> None:
    first = a_lease()
    assert _following(first, None) == first
    assert (first.timeline, first.lsn, first.level_at) == (None, None, None)
