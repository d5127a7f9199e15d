"""Where receiving goes on, decided from the archive, the slot and the newest base backup alone."""

from __future__ import annotations

import pytest

from tmi_ops.postgres.wal_files import Segment, segment_at
from tmi_ops.wal.coverage import Coverage, coverage
from tmi_ops.wal.resume import Place, places_to_begin, restarts_before
from tmi_ops_tests.wal.test_coverage import SIZE, archive_with, at, line_with, whole


def covered(*numbers: int) -> Coverage:
    return coverage(archive_with(*whole(1, *numbers)), line_with())


def segment(number: int) -> Segment:
    return segment_at(1, at(number), SIZE)


def places(found: Coverage, slot: float, needed: int | None = None, *, accept_gap: bool = False) -> list[Place]:
    base = None if needed is None else segment(needed)
    return list(places_to_begin(found, at(slot), base, accept_gap=accept_gap))


def test_receiving_goes_on_where_the_archive_ends() -> None:
    assert places(covered(0, 1, 2), slot=3) == [Place(segment(3))]


def test_wal_that_is_gone_is_not_skipped_unless_somebody_says_so() -> None:
    assert places(covered(0, 1, 2), slot=7) == [Place(segment(3))]
    assert places(covered(0, 1, 2), slot=7, accept_gap=True) == [Place(segment(3)), Place(segment(7), True)]


def test_a_base_backup_taken_behind_the_gap_lets_receiving_go_on_behind_it() -> None:
    assert places(covered(0, 1, 2), slot=7, needed=8) == [
        Place(segment(3)),
        Place(segment(8), True),
        Place(segment(7), True),
    ]


def test_a_base_backup_taken_before_the_gap_does_not() -> None:
    assert places(covered(0, 1, 2), slot=7, needed=2) == [Place(segment(3))]
    assert places(covered(0, 1, 2), slot=7, needed=5) == [Place(segment(3)), Place(segment(5), True)]


@pytest.mark.parametrize("slot", [4, 6])
def test_an_empty_archive_begins_with_what_the_newest_base_backup_needs(slot: int) -> None:
    assert places(covered(), slot=slot, needed=4)[0] == Place(segment(4))


def test_an_empty_archive_goes_on_from_the_slot_where_older_wal_is_gone() -> None:
    assert places(covered(), slot=6, needed=4) == [Place(segment(4)), Place(segment(6), True)]
    assert places(covered(), slot=6) == [Place(segment(6))]


def test_wal_level_is_looked_for_only_where_the_server_may_have_run_without_our_slot() -> None:
    assert restarts_before(flushed=900, slot_lsn=300, from_standby=False) == 300
    assert restarts_before(flushed=900, slot_lsn=1000, from_standby=False) == 900
    assert restarts_before(flushed=900, slot_lsn=300, from_standby=True) == 900
