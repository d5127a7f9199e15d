"""A plan by the index of WAL is the plan by a listing of it, in a few requests."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tmi_ops.postgres.wal_files import DEFAULT_SEGMENT_SIZE as SIZE
from tmi_ops.postgres.wal_files import Segment
from tmi_ops.retention.facts import ClusterWal
from tmi_ops.retention.indexed_wal import NotByIndexError, times_around
from tmi_ops.retention.reading import read_facts
from tmi_ops.settings import StoreSettings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.wal.archive import list_wal
from tmi_ops.wal.description import describe_archive
from tmi_ops.wal.index import LONG_TAIL
from tmi_ops.wal.layout import file_key

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
SYSTEM = "7000000000000000001"
COUNT = LONG_TAIL + 10


def steady(count: int) -> list[datetime]:
    return [NOW + number * timedelta(minutes=10) for number in range(count)]


def bursts(count: int) -> list[datetime]:
    """Nearly everything at once, then nothing for months, then a trickle."""
    return [NOW + timedelta(seconds=number) + timedelta(days=90 * (number > count - 9)) for number in range(count)]


@pytest.mark.parametrize("times", [steady(1), steady(2), steady(1000), bursts(1000), [NOW] * 50])
@pytest.mark.parametrize("since", [-1.0, 0.0, 0.001, 0.4, 0.999, 1.0, 2.0])
def test_it_is_known_of_each_on_which_side_it_was_stored(times: Sequence[datetime], since: float) -> None:
    at = times[0] + since * (times[-1] - times[0] or timedelta(days=1))
    known = times_around(len(times), times.__getitem__, at)
    first = bisect_left(times, at)
    assert {number >= first for number in known} == {known[number] >= at for number in known}
    assert {0, len(times) - 1} <= known.keys()
    if 0 < first < len(times):
        assert {first - 1, first} <= known.keys()


def test_a_million_segments_are_placed_by_a_few_looks() -> None:
    chance = random.Random(1)  # noqa: S311
    looks = []
    for times in (steady(1_000_000), bursts(1_000_000)):
        for _ in range(20):
            at = times[chance.randrange(len(times))]
            looks.append(len(times_around(len(times), times.__getitem__, at)))
    assert max(looks) <= 40
    assert sorted(looks)[len(looks) // 4] <= 8


def test_what_was_not_stored_in_its_order_is_not_guessed() -> None:
    times = steady(1000)
    with pytest.raises(NotByIndexError):
        times_around(len(times), times[::-1].__getitem__, NOW + timedelta(days=1))
    shuffled = [times[0], *random.Random(2).sample(times[1:-1], len(times) - 2), times[-1]]  # noqa: S311
    with pytest.raises(NotByIndexError):
        for number in range(0, 1000, 50):
            times_around(len(times), shuffled.__getitem__, times[number])
    late = [*times[:500], times[500] - timedelta(minutes=30), *times[501:]]  # two were on their way at once
    assert times_around(len(times), late.__getitem__, times[400])


@pytest.fixture
def archive(store_settings: StoreSettings) -> ObjectStore:
    """With an index, whose timeline has a gap; a chapter; and a tail with a piece of the open segment."""
    store = open_store(store_settings, "development")
    describe_archive(store, SYSTEM, SIZE)
    for number in (number for number in range(COUNT) if number != 100):
        store.put_bytes(file_key(SYSTEM, Segment(1, number * SIZE, SIZE).name), b"x" * (number % 7 + 1))
    list_wal(store, SYSTEM)
    store.put_bytes(f"wal/{SYSTEM}/links/00000001-0000000000.zst", b"chapter")
    store.put_bytes(file_key(SYSTEM, f"{Segment(1, COUNT * SIZE, SIZE).name}.partial.00000000"), b"piece")
    return store


def wal_of(store: ObjectStore, since: datetime | None) -> ClusterWal:
    (wal,) = read_facts(store, to_look=True, since=since).wal
    return wal


@pytest.mark.parametrize("days", [-1, 1])
def test_the_same_files_are_found_by_the_index(archive: ObjectStore, days: int) -> None:
    since = datetime.now(UTC) + timedelta(days=days)
    listed, indexed = wal_of(archive, None), wal_of(archive, since)
    assert {file.key for file in indexed.files} == {file.key for file in listed.files}
    assert len(indexed.files) == len(listed.files)
    assert sum(file.size for file in indexed.files) == sum(file.size for file in listed.files)
    told = {file.key: replace(file, size=0, stored_at=NOW) for file in listed.files}
    assert {file.key: replace(file, size=0, stored_at=NOW) for file in indexed.files} == told
    assert {file.key for file in indexed.files if file.stored_at >= since} == {
        file.key for file in listed.files if file.stored_at >= since
    }


def test_an_index_whose_oldest_segment_is_gone_is_not_believed(archive: ObjectStore) -> None:
    key = file_key(SYSTEM, Segment(1, 0, SIZE).name)
    archive.delete([key])
    assert key not in {file.key for file in wal_of(archive, datetime.now(UTC)).files}


def test_who_removes_something_believes_no_index(archive: ObjectStore) -> None:
    key = file_key(SYSTEM, Segment(1, 50 * SIZE, SIZE).name)
    archive.delete([key])
    (wal,) = read_facts(archive, since=datetime.now(UTC)).wal
    assert key not in {file.key for file in wal.files}
