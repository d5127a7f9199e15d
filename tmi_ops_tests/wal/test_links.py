"""Whether one segment continues another is told by their records and their chain, never by their names."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tmi_ops.errors import IntegrityError
from tmi_ops.postgres.wal_files import segment_at
from tmi_ops.postgres.wal_records import LevelChange, read_records
from tmi_ops.wal.breaks import Break
from tmi_ops.wal.links import Links, continues, links_from, links_of, unlinked
from tmi_ops.wal.segments import Neighbour, check_segment
from tmi_ops.wal.stored_file import WalConflictError
from tmi_ops_tests.postgres.wal_pages import FIRST, SIZE, SYSTEM, Wal, commit, filler, level_change

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def segment(number: int):
    return segment_at(1, FIRST + number * SIZE, SIZE)


def test_what_metadata_says_is_read_back() -> None:
    links = Links(1, 2, 3, 4, True, NOON, NOON, (LevelChange(5, "minimal"), LevelChange(6, "replica")), "ab")
    assert links_of(links.metadata()) == links
    assert links_of(Links(levels=()).metadata()).levels == ()
    assert links_of({}) == Links()


@pytest.mark.parametrize("name", ["first", "prev", "last", "firstcommit", "levels"])
def test_metadata_that_makes_no_sense_says_nothing(name: str) -> None:
    found = links_of({name: "\x1b[31mnonsense@"})
    assert found in (Links(), Links(levels=()))


def test_a_segment_continues_the_one_whose_last_record_it_names() -> None:
    assert continues(Links(last=10), Links(prev=10)) is True
    assert continues(Links(last=10), Links(prev=11)) is False
    assert continues(Links(last=None), Links(prev=11)) is None
    assert continues(Links(last=10), Links(prev=None)) is None


def test_after_a_crash_the_first_record_may_name_the_one_before_what_was_cut_off() -> None:
    cut_off = Links(last=10, before_last=7)
    assert continues(cut_off, Links(prev=7, overwrites=True)) is True
    assert continues(cut_off, Links(prev=7)) is False
    assert continues(cut_off, Links(prev=6, overwrites=True)) is False
    assert continues(Links(last=10), Links(prev=7, overwrites=True)) is None


def test_a_segment_without_a_record_of_its_own_hands_on_the_last_one() -> None:
    assert Links().after(Links(last=10, before_last=7)) == Links(last=10, before_last=7)
    assert Links(last=12).after(Links(last=10)).last == 12


def _chain(*wals: Wal):
    found = []
    for wal in wals:
        for number, content in enumerate(wal.segments()):
            found.append((segment(number), links_from(read_records(content), levels_read=True), None))
    return found


def test_a_splice_of_two_histories_is_found_where_they_meet() -> None:
    lengths = [5000] * 500
    one = Wal().add(*(filler(length) for length in lengths))
    other = Wal().add(*(filler(length - 8) for length in lengths))
    assert list(unlinked(_chain(one))) == []
    spliced = _chain(one)[:2] + _chain(other)[2:]
    assert list(unlinked(spliced)) == [segment(2)]


def test_nothing_is_said_of_segments_with_a_hole_between() -> None:
    one = _chain(Wal().add(*(filler(5000) for _ in range(500))))
    other = _chain(Wal().add(*(filler(4900) for _ in range(500))))
    assert list(unlinked([one[0], other[2]])) == []


def test_another_sha256_before_it_is_a_splice_too() -> None:
    chain = [(segment(0), Links(last=1), "aa"), (segment(1), Links(prev=1, chain="bb"), "cc")]
    assert list(unlinked(chain)) == [segment(1)]
    chain = [(segment(0), Links(last=1), "bb"), (segment(1), Links(prev=1, chain="bb"), "cc")]
    assert list(unlinked(chain)) == []


def _neighbour(wal: Wal, number: int) -> Neighbour:
    links = links_from(read_records(wal.segments()[number]), levels_read=True)
    return Neighbour(segment(number), links, "ab")


def test_a_segment_that_does_not_continue_the_archive_is_not_stored() -> None:
    one = Wal().add(*(filler(5000) for _ in range(500)))
    other = Wal().add(*(filler(4900) for _ in range(500)))
    good = check_segment(str(SYSTEM), segment(1), one.segments()[1], _neighbour(one, 0), levels=True)
    assert good.breaks == ()
    assert good.as_neighbour.links.chain == "ab"
    with pytest.raises(WalConflictError, match="does not continue"):
        check_segment(str(SYSTEM), segment(1), other.segments()[1], _neighbour(one, 0), levels=True)
    torn = check_segment(str(SYSTEM), segment(1), other.segments()[1], _neighbour(one, 0), levels=True, may_break=True)
    assert torn.breaks == (Break(1, segment(1).start, "unlinked"),)


def test_a_segment_of_another_cluster_is_refused_whatever_it_continues() -> None:
    one = Wal().add(filler(10))
    with pytest.raises(IntegrityError, match="is from the cluster"):
        check_segment("42", segment(0), one.segments()[0], None, levels=True)


def test_a_restart_with_wal_level_minimal_is_a_break_at_its_record() -> None:
    wal = Wal().add(filler(10), commit(NOON), level_change(0), filler(10), level_change(1))
    found = check_segment(str(SYSTEM), segment(0), wal.segments()[0], None, levels=True)
    assert found.breaks == (Break(1, wal.placed[2], "minimal"),)
    assert check_segment(str(SYSTEM), segment(0), wal.segments()[0], None, levels=False).breaks == ()
