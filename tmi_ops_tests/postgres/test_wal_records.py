"""First and last records, commits and settings are found in a segment without reading all of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmi_ops.errors import IntegrityError
from tmi_ops.postgres.wal_records import LevelChange, all_commits, read_records, restore_point_made_at
from tmi_ops_tests.postgres.wal_pages import (
    FIRST,
    PAGE,
    SIZE,
    Wal,
    by_segment,
    commit,
    filler,
    level_change,
    restore_point,
)

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)

_lengths = st.one_of(st.integers(0, 300), st.integers(7000, 9000), st.integers(8100, 8170))


@given(st.lists(_lengths, min_size=30, max_size=60), st.lists(_lengths, min_size=5, max_size=150))
@settings(max_examples=15, deadline=None)
def test_each_segment_names_the_last_record_of_the_one_before(before: list[int], after: list[int]) -> None:
    """Also over a record that fills whole segments."""
    wal = Wal().add(*(filler(length) for length in (*before, 2 * SIZE + 5000, *after)))
    last = FIRST - 64
    for content, placed in zip(wal.segments(), by_segment(wal), strict=True):
        found = read_records(content)
        assert found.first == (placed[0] if placed else None)
        assert found.last == (placed[-1] if placed else None)
        if placed:
            assert found.prev in (last, None)
            assert found.prev == last or placed[0] % PAGE == PAGE - 8
            last = placed[-1]


def test_a_record_header_split_over_two_pages_is_read_whole() -> None:
    for room in (8, 16):
        wal = Wal().add(filler(PAGE - 40 - 24 - 2 - room), commit(NOON), filler(10))
        assert wal.placed[1] % PAGE == PAGE - room
        (content,) = wal.segments()
        assert all_commits(content) == [(wal.placed[1], NOON)]


def test_the_empty_rest_after_a_switch_is_passed_over() -> None:
    wal = Wal().add(filler(100), filler(200)).switch().add(filler(7))
    first, second = (read_records(content) for content in wal.segments())
    assert (first.last, first.before_last) == (wal.placed[1], wal.placed[0])
    assert second.prev == wal.placed[1]


def test_what_lies_after_the_end_of_an_open_segment_does_not_count() -> None:
    wal = Wal().add(filler(100), commit(NOON), filler(200), commit(NOON + timedelta(hours=1)))
    found = read_records(wal.segments()[0], wal.placed[2])
    assert found.last == wal.placed[1]
    assert found.last_commit == NOON


def test_the_first_and_the_last_commit_near_either_end_are_told() -> None:
    times = [NOON + timedelta(seconds=n) for n in range(5000)]
    wal = Wal().add(*(commit(at) for at in times), *(filler(300) for _ in range(100)))
    found = read_records(wal.segments()[0])
    assert (found.first_commit, found.last_commit) == (times[0], times[-1])
    assert [at for _, at in all_commits(wal.segments()[0])] == times


def test_a_commit_far_from_both_ends_is_not_looked_for() -> None:
    wal = Wal().add(*(filler(5000) for _ in range(60)), commit(NOON), *(filler(5000) for _ in range(60)))
    found = read_records(wal.segments()[0])
    assert (found.first_commit, found.last_commit) == (None, None)


@pytest.mark.parametrize("room", range(8, 64, 8))
def test_a_change_of_wal_level_is_found_wherever_its_record_lies(room: int) -> None:
    """Also where a page's end cuts it."""
    wal = Wal().add(filler(PAGE - 40 - 24 - 2 - room), level_change(0), filler(10), level_change(1))
    found = read_records(wal.segments()[0])
    assert found.levels == (LevelChange(wal.placed[1], "minimal"), LevelChange(wal.placed[3], "replica"))
    assert read_records(wal.segments()[0], levels=False).levels == ()


@pytest.mark.parametrize("room", [300, 60, 40, 30, 16])
def test_when_a_restore_point_was_made_is_told_wherever_its_record_lies(room: int) -> None:
    wal = Wal().add(commit(NOON))
    wal.add(filler(PAGE - (wal.end % PAGE) - room - 26)).add(restore_point(NOON, "before import"), commit(NOON))
    (content,) = wal.segments()
    before, _, point, after = wal.placed
    assert restore_point_made_at(content, point) == NOON
    assert [restore_point_made_at(content, lsn) for lsn in (before, after, FIRST, FIRST + SIZE)] == [None] * 4


def test_rows_that_hold_such_bytes_are_not_taken_for_it() -> None:
    hidden = Wal().add(level_change(0)).segments()[0][40 : 40 + 54]
    wal = Wal().add(*(filler(0) for _ in range(3)), *(_holding(hidden, shift) for shift in range(8)))
    assert read_records(wal.segments()[0]).levels == ()


def _holding(content: bytes, shift: int) -> object:
    made = filler(0)
    return type(made)(made.body + b"y" * shift + content)


def test_the_end_of_what_a_crash_cut_off_names_the_record_before_that() -> None:
    """The record that takes its place begins a page that says so (XLP_FIRST_IS_OVERWRITE_CONTRECORD)."""
    wal = Wal().add(filler(100), filler(100))
    (content,) = wal.segments()
    marked = bytearray(content)
    marked[2] |= 0x0008
    assert read_records(bytes(marked)).overwrites
    assert not read_records(content).overwrites


@pytest.mark.parametrize("content", [b"", b"x" * 100, bytes(SIZE)])
def test_what_is_no_segment_is_refused(content: bytes) -> None:
    with pytest.raises(IntegrityError):
        read_records(content)


@given(st.binary(min_size=100, max_size=3000), st.integers(40, 9000))
@settings(max_examples=50, deadline=None)
def test_garbage_in_a_segment_is_survived(garbage: bytes, place: int) -> None:
    content = bytearray(Wal().add(*(filler(50) for _ in range(150))).segments()[0])
    content[place : place + len(garbage)] = garbage
    read_records(bytes(content))
    all_commits(bytes(content))
