"""The open segment in the store, when there is somebody else who writes it."""

from __future__ import annotations

import struct

import pytest

from tmi_ops.errors import BackupError
from tmi_ops.postgres.wal_files import Segment
from tmi_ops.settings import StoreSettings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.wal.archive import list_wal
from tmi_ops.wal.stored_file import load
from tmi_ops.wal.uploads import Uploads, uploading

SYSTEM = "7711554964273702704"
SIZE = 16 << 20
SEGMENT = Segment(1, 5 * SIZE, SIZE)


def _filled(size: int) -> bytes:
    """The segment as it is when so many bytes have arrived."""
    header = struct.pack("<HHIQI4xQII", 0xD116, 2, 1, SEGMENT.start, 0, int(SYSTEM), SIZE, 8192)
    return header.ljust(size, b"w").ljust(SIZE, b"\0")


@pytest.fixture
def store(store_settings: StoreSettings) -> ObjectStore:
    return open_store(store_settings, "development")


def _put(uploads: Uploads, size: int) -> int:
    uploads.partial(SEGMENT, _filled(size), SEGMENT.start + size)
    return uploads.drain() - SEGMENT.start


def test_a_receiver_that_stood_still_does_not_put_an_older_open_segment_over_its_successors(store: ObjectStore) -> None:
    with (
        uploading(store, SYSTEM, SEGMENT.start, SIZE) as stopped,
        uploading(store, SYSTEM, SEGMENT.start, SIZE) as successor,
    ):
        assert _put(stopped, 1000) == 1000
        assert _put(successor, 3000) == 3000
        with pytest.raises(BackupError, match="Somebody else wrote the open segment") as refused:
            _put(stopped, 2000)
    assert refused.value.transient
    content, facts = load(store, SYSTEM, f"{SEGMENT.name}.partial")
    assert (content, facts.end_lsn) == (_filled(3000), SEGMENT.start + 3000)


def test_an_open_segment_that_reaches_further_stays_and_the_shorter_one_does_not_count(store: ObjectStore) -> None:
    with uploading(store, SYSTEM, SEGMENT.start, SIZE) as before:
        _put(before, 3000)
    with uploading(store, SYSTEM, SEGMENT.start, SIZE) as after:
        assert _put(after, 2000) == 0
        assert _put(after, 4000) == 4000
    (partial,) = list_wal(store, SYSTEM).partials[1]
    assert partial.end_lsn == SEGMENT.start + 4000
