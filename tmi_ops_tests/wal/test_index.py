"""The index of segments says where they lie without a gap, and no more than is there."""

from __future__ import annotations

import resource
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from tmi_ops.errors import StoreError
from tmi_ops.postgres.wal_files import DEFAULT_SEGMENT_SIZE as SIZE
from tmi_ops.postgres.wal_files import Segment
from tmi_ops.recovery.point_in_time.confirmed import are_there
from tmi_ops.retention.reading import read_facts
from tmi_ops.settings import StoreSettings
from tmi_ops.store.minisign import new_secret_key
from tmi_ops.store.objects import ObjectStore, make_place, open_store
from tmi_ops.store.small_objects import look
from tmi_ops.store.trust import Trust, TrustedKey
from tmi_ops.wal.archive import list_wal
from tmi_ops.wal.coverage import coverage
from tmi_ops.wal.description import describe_archive
from tmi_ops.wal.index import (
    KEPT_OUT,
    LONG_TAIL,
    IndexedRun,
    ListedSegment,
    WalIndex,
    before,
    extended,
    listed_behind,
    lost_of,
    opened_at,
    read_claims,
    reopen,
    stored_per_day,
    uncounted,
    withdraw,
    without,
    without_segments,
    write_index,
)
from tmi_ops.wal.layout import file_key, index_key
from tmi_ops.wal.lineage import lineage
from tmi_ops.wal.runs import ArchivedSegment, Run, Segments

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
SYSTEM = "7000000000000000001"


def segment(number: int, timeline: int = 1) -> Segment:
    return Segment(timeline, number * SIZE, SIZE)


def listed(*numbers: int, timeline: int = 1, at: datetime = NOW) -> list[ListedSegment]:
    return [ListedSegment(segment(number, timeline), 10, at) for number in numbers]


def runs(index: WalIndex) -> list[tuple[int, int, int, int]]:
    return [(run.timeline, run.start // SIZE, run.count, run.size) for run in index.runs]


def test_what_was_listed_becomes_runs_but_for_the_newest() -> None:
    index = extended(WalIndex(segment_size=SIZE), listed(*range(5, 45 + KEPT_OUT), timeline=1), NOW)
    assert runs(index) == [(1, 5, 40, 400)]
    index = extended(index, listed(*range(45, 60 + KEPT_OUT)), NOW)
    assert runs(index) == [(1, 5, 55, 550)]
    assert stored_per_day(index, NOW - timedelta(days=1)) == 550


def test_a_hole_stays_a_hole() -> None:
    index = extended(WalIndex(segment_size=SIZE), listed(*range(5), *range(6, 10 + KEPT_OUT)), NOW)
    assert runs(index) == [(1, 0, 5, 50), (1, 6, 4, 40)]


def test_what_leaves_is_gone_and_not_written_in_again() -> None:
    index = extended(WalIndex(segment_size=SIZE), listed(*range(40 + KEPT_OUT)), NOW)
    left = without_segments(index, [segment(number) for number in (0, 1, 10, 11)], NOW)
    assert [row[:3] for row in runs(left)] == [(1, 2, 8), (1, 12, 28)]
    assert runs(extended(without_segments(index, [segment(n) for n in range(40)], NOW), listed(*range(72)), NOW)) == []
    later = NOW + timedelta(days=3)
    assert extended(left, [], later).leaving == ()


def test_a_segment_that_fills_a_hole_opens_the_timeline_again() -> None:
    index = extended(WalIndex(segment_size=SIZE), listed(*range(5), *range(6, 10 + KEPT_OUT)), NOW)
    assert [row[:3] for row in runs(opened_at(index, segment(5)))] == [(1, 0, 5)]
    assert runs(opened_at(index, segment(3, timeline=2))) == runs(index)


def test_a_segment_that_comes_back_while_it_is_leaving_is_listed_again(store_settings: StoreSettings) -> None:
    store = archived(store_settings, range(LONG_TAIL + 10))
    withdraw(store, SYSTEM, [segment(number) for number in range(100, LONG_TAIL + 10)])
    reopen(store, SYSTEM, segment(200))
    index = read_claims(store, SYSTEM)
    assert index is not None
    assert not any(one.start <= segment(200).start < one.end for one in index.leaving)


@pytest.fixture
def indexed(tmp_path: Path) -> ObjectStore:
    settings = StoreSettings(directory=tmp_path / "backups")
    make_place(settings)
    store = open_store(settings, "development")
    write_index(store, SYSTEM, extended(WalIndex(segment_size=SIZE), listed(*range(40 + KEPT_OUT)), NOW), None)
    return store


def test_what_leaves_leaves_an_index_too_that_others_believe_and_we_do_not(indexed: ObjectStore) -> None:
    key = new_secret_key()
    ours = replace(indexed, trust=Trust("development", key, (TrustedKey(key.public, ("us",)),)))
    assert read_claims(ours, SYSTEM) is None
    withdraw(ours, SYSTEM, [segment(10)])
    assert read_claims(indexed, SYSTEM) is None


def test_a_full_disk_keeps_nobody_from_removing_wal(indexed: ObjectStore) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # no byte can be written
    try:
        with pytest.raises(StoreError):
            indexed.put_bytes("x", b"x")
        withdraw(indexed, SYSTEM, [segment(10)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_claims(indexed, SYSTEM) is None


def test_what_the_index_names_and_nobody_finds_is_lost() -> None:
    index = extended(WalIndex(segment_size=SIZE), listed(*range(40 + KEPT_OUT)), NOW)
    there = {segment(number) for number in range(72) if number not in (3, 4, 30)}
    assert list(lost_of(index, there)) == [segment(3), segment(4), segment(30)]
    assert list(lost_of(index, there | {segment(n) for n in (3, 4, 30)})) == []


def test_before_a_place_the_index_is_believed_and_behind_it_what_is_listed_counts_once() -> None:
    index = extended(WalIndex(segment_size=SIZE), listed(*range(40 + KEPT_OUT)), NOW)
    index = extended(index, listed(*range(5, 40 + KEPT_OUT), timeline=2), NOW)
    trusted = before(index, segment(20))
    assert runs(trusted) == [(1, 0, 20, 200)]
    assert runs(before(index, segment(20, timeline=2))) == [(1, 0, 40, 400), (2, 5, 15, 150)]
    assert runs(without(index, trusted)) == [(1, 20, 20, 400), (2, 5, 35, 350)]
    assert runs(without(index, index)) == []
    again = uncounted(trusted, index, listed(*range(20, 72)))
    since = NOW - timedelta(days=1)
    assert stored_per_day(index, since) - stored_per_day(again, since) == 20 * 10


@pytest.mark.parametrize(
    "run",
    [
        {"start": 0, "count": (1 << 24) + 1},
        {"start": SIZE // 2, "count": 1},
        {"start": SIZE, "count": 1},
    ],
)
def test_an_index_that_cannot_be_of_ours_is_none(run: dict[str, int]) -> None:
    first = {"timeline": 1, "start": 0, "count": 2, "size": 1}
    with pytest.raises(ValidationError):
        WalIndex.model_validate({"segment_size": SIZE, "runs": [first, {"timeline": 1, "size": 1, **run}]})


def test_segments_of_runs_read_as_if_they_had_been_listed() -> None:
    found = Segments([Run(segment(2), 3, 30)], [ArchivedSegment(segment(5), 7), ArchivedSegment(segment(8), 7)])
    assert [item.segment.start // SIZE for item in found] == [2, 3, 4, 5, 8]
    assert [item.segment.start // SIZE for item in reversed(found)] == [8, 5, 4, 3, 2]
    assert (len(found), found[-1].size, found[0].size, found[1:3]) == (5, 7, None, tuple(found)[1:3])
    assert [(run.start // SIZE, run.count, run.size) for run in found.runs] == [(2, 4, 37), (8, 1, 7)]


def archived(settings: StoreSettings, numbers: Iterable[int]) -> ObjectStore:
    """An archive whose index was made when it was listed."""
    store = open_store(settings, "development")
    describe_archive(store, SYSTEM, SIZE)
    for number in numbers:
        store.put_bytes(file_key(SYSTEM, segment(number).name), b"x")
    list_wal(store, SYSTEM)
    return store


def test_a_segment_that_somebody_removed_is_missed_by_a_plan_and_by_a_look_at_what_is_said_of_now(
    store_settings: StoreSettings,
) -> None:
    store, line = archived(store_settings, range(LONG_TAIL + 10)), lineage(1, ())
    for number in (50, 250):
        store.delete([file_key(SYSTEM, segment(number).name)])
    (believed,) = coverage(list_wal(store, SYSTEM), line).intervals
    files = coverage(list_wal(store, SYSTEM), line).files
    assert not are_there(store, SYSTEM, files[200:300])
    assert are_there(store, SYSTEM, files[100:200])
    assert believed.end == segment(LONG_TAIL + 10).start, "by the index there is no hole"
    looked = coverage(list_wal(store, SYSTEM, behind=(1, segment(200).start)), line)
    assert [hole.first for hole in looked.holes(segment(0).start)] == [segment(250)]
    told = coverage(list_wal(store, SYSTEM), line).holes(segment(0).start)
    assert [hole.first for hole in told] == [segment(250)], "and so does everybody from then on"
    whole = coverage(list_wal(store, SYSTEM, whole=True), line)
    assert [hole.first for hole in whole.holes(segment(0).start)] == [segment(50), segment(250)]
    assert coverage(list_wal(store, SYSTEM), line).intervals == whole.intervals, "from then on everybody knows"


def test_the_oldest_wal_that_a_lifecycle_rule_removed_is_missed_by_a_look(store_settings: StoreSettings) -> None:
    """Whatever the index says, which nobody told: the recovery window begins later."""
    store = archived(store_settings, range(LONG_TAIL + 10))
    store.delete([file_key(SYSTEM, segment(number).name) for number in range(5)])
    assert list_wal(store, SYSTEM).segments[1][0].segment == segment(0), "the index is believed"
    looked = list_wal(store, SYSTEM, behind=(1, segment(300).start))
    assert (looked.segments[1][0].segment, len(looked.segments[1])) == (segment(5), LONG_TAIL + 5)
    assert list_wal(store, SYSTEM).segments[1][0].segment == segment(5), "and so everybody knows"


@pytest.mark.parametrize("behind", [None, (1, segment(300).start)])
@pytest.mark.parametrize(
    "claims",
    [
        {"timeline": 1, "start": 0, "count": LONG_TAIL + 5000, "size": 1},  # it was copied from a longer archive
        {"timeline": 7, "start": 0, "count": 100, "size": 1},  # all of the timeline was removed by hand
    ],
)
def test_an_index_that_goes_on_where_nothing_is_misleads_nobody(
    store_settings: StoreSettings, claims: dict[str, int], behind: tuple[int, int] | None
) -> None:
    """Neither the receiver, which would take the server for one that went back, nor a restore of the newest state."""
    store = archived(store_settings, range(LONG_TAIL + 10))
    index = read_claims(store, SYSTEM)
    assert index is not None
    runs_of_all = (*index.runs, IndexedRun(**claims)) if claims["timeline"] > 1 else (IndexedRun(**claims),)
    head = look(store, index_key(SYSTEM))
    assert head is not None
    write_index(store, SYSTEM, index.model_copy(update={"runs": runs_of_all}), head.etag)
    told = list_wal(store, SYSTEM, behind=behind)
    assert (told.timelines, told.ends) == ((1,), {1: segment(LONG_TAIL + 10).start})
    corrected = read_claims(store, SYSTEM)
    assert corrected is not None
    assert {run.timeline: (run.start + run.count * SIZE) for run in corrected.runs}.keys() == {1}
    assert max(run.start + run.count * SIZE for run in corrected.runs) <= segment(LONG_TAIL + 10).start


def test_what_the_index_has_is_not_listed_again(store_settings: StoreSettings) -> None:
    store = archived(store_settings, range(LONG_TAIL + 10))
    index = read_claims(store, SYSTEM)
    assert index is not None
    tail = listed_behind(store, SYSTEM, ["00000001"], index)
    assert tail is not None
    assert [item.key for item in tail] == [
        file_key(SYSTEM, segment(number).name) for number in range(index.runs[-1].count, LONG_TAIL + 10)
    ]
    one = WalIndex(segment_size=SIZE, runs=(IndexedRun(timeline=1, start=0, count=1, size=1),))
    tail = listed_behind(store, SYSTEM, ["00000001"], one)
    assert tail is not None
    assert len(tail) == LONG_TAIL + 9


def test_retention_corrects_an_index_that_names_what_is_gone(store_settings: StoreSettings) -> None:
    store = archived(store_settings, range(LONG_TAIL + 10))
    store.delete([file_key(SYSTEM, segment(50).name)])
    read_facts(store)
    assert [hole.first for hole in coverage(list_wal(store, SYSTEM), lineage(1, ())).holes(0)] == [segment(50)]


def test_an_archive_is_the_same_with_its_index_and_without(store_settings: StoreSettings) -> None:
    store, count = open_store(store_settings, "development"), LONG_TAIL + 10
    describe_archive(store, SYSTEM, SIZE)
    there = [number for number in range(count) if number != 7]
    for number in there:
        store.put_bytes(file_key(SYSTEM, segment(number).name), b"x")
    plain = list_wal(store, SYSTEM)
    by_index = list_wal(store, SYSTEM)
    assert by_index.segments[1].runs[0].count == 7  # type: ignore[attr-defined]
    line = lineage(1, ())
    assert coverage(by_index, line).intervals == coverage(plain, line).intervals
    assert [file.name for file in coverage(by_index, line).files] == [file.name for file in coverage(plain, line).files]
    assert by_index.size == plain.size
    index_size = store.size(index_key(SYSTEM))
    assert (by_index.stored.objects, by_index.stored.size) == (count + 1, plain.stored.size + index_size)
    withdraw(store, SYSTEM, [segment(0)])
    store.delete([file_key(SYSTEM, segment(0).name)])
    assert list_wal(store, SYSTEM).segments[1][0].segment == segment(1)
    assert list_wal(store, SYSTEM, whole=True).segments[1][0].segment == segment(1)
