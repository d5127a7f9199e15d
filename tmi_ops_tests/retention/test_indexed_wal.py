"""A plan by the index of WAL is the plan by a listing of it, in a few requests."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tmi_ops.postgres.wal_files import DEFAULT_SEGMENT_SIZE as SIZE
from tmi_ops.postgres.wal_files import Segment
from tmi_ops.retention.facts import ClusterWal
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
