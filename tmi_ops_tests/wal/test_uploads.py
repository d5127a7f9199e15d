"""The open segment in the store: in pieces, folded and removed; from before; and when there is somebody else who writes
it."""

from __future__ import annotations

import hashlib
import random
import struct
import time
from collections.abc import Callable

import pytest

from tmi_ops.errors import BackupError
from tmi_ops.postgres.wal_files import Segment
from tmi_ops.settings import StoreSettings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.wal import open_upload, pieces
from tmi_ops.wal.archive import list_wal
from tmi_ops.wal.layout import file_key
from tmi_ops.wal.open_segment import OpenSegment
from tmi_ops.wal.partials import find_open, list_open, load_behind, load_open
from tmi_ops.wal.stored_file import FileFacts, WalConflictError, compressed, load
from tmi_ops.wal.uploads import Uploads, uploading

SYSTEM = "7711554964273702704"
SIZE = 1 << 20
FEW = 4
SEGMENT = Segment(1, 5 * SIZE, SIZE)
HEADER = struct.pack("<HHIQI4xQII", 0xD116, 2, 1, SEGMENT.start, 0, int(SYSTEM), SIZE, 8192)
OTHERS = HEADER + random.Random(1).randbytes(SIZE - len(HEADER))  # noqa: S311
OURS = HEADER + random.Random(2).randbytes(SIZE - len(HEADER))  # noqa: S311


@pytest.fixture
def store(store_settings: StoreSettings) -> ObjectStore:
    return open_store(store_settings, "development")


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_upload, "REMOVED_AFTER_S", 0.0)
    monkeypatch.setattr(pieces, "FOLDED_AT_ONCE", FEW)


class Receiver:
    """What of the segment has arrived, and its way into the store."""

    def __init__(self, uploads: Uploads, content: bytes = OURS) -> None:
        self.uploads, self.content, self.opened = uploads, content, OpenSegment(SEGMENT)

    def put(self, size: int) -> int:
        """Have the first `size` bytes arrive and stored; how many of them are durable then."""
        self.opened.add(self.opened.end, memoryview(self.content)[self.opened.filled : size])
        self.uploads.partial(self.opened)
        return self.uploads.drain() - SEGMENT.start


def held(store: ObjectStore) -> bytes:
    content, facts = load_open(store, SYSTEM, SEGMENT.name)
    assert facts.end_lsn is not None
    end = facts.end_lsn - SEGMENT.start
    assert not any(content[end:])
    assert len(content) == SIZE
    (partial,) = list_wal(store, SYSTEM).partials[1]
    assert partial.end_lsn == facts.end_lsn
    return content[:end]


def test_each_put_brings_what_is_new_and_many_pieces_become_few(store: ObjectStore, hurried: None) -> None:
    with uploading(store, SYSTEM, SEGMENT.start, SIZE) as uploads:
        receiver = Receiver(uploads)
        for number in range(1, 3 * FEW + 6):
            assert receiver.put(number * 1000) == number * 1000
            assert held(store) == OURS[: number * 1000]
        _until(lambda: len(list_open(store, SYSTEM, SEGMENT)) <= FEW, receiver)
        stored = list_open(store, SYSTEM, SEGMENT)
        assert sum(item.size for item in stored) < 1.3 * receiver.opened.filled
        receiver.put(SIZE)
        uploads.segment(SEGMENT, receiver.opened.hand_over())
        assert uploads.drain() == SEGMENT.end
    assert list_open(store, SYSTEM, SEGMENT) == []
    assert load(store, SYSTEM, SEGMENT.name)[0] == OURS


def test_a_receiver_that_stood_still_does_not_add_to_what_its_successor_stored(store: ObjectStore) -> None:
    with (
        uploading(store, SYSTEM, SEGMENT.start, SIZE) as stopped,
        uploading(store, SYSTEM, SEGMENT.start, SIZE) as successor,
    ):
        first, second = Receiver(stopped, OTHERS[:1000] + OURS[1000:]), Receiver(successor, OTHERS)
        assert first.put(1000) == 1000
        _take_over(store, successor)
        assert second.put(3000) == 3000
        with pytest.raises(BackupError, match="Another process wrote the open segment") as refused:
            first.put(2000)
    assert refused.value.transient
    assert held(store) == OTHERS[:3000]


def test_an_open_segment_that_reaches_further_stays_until_as_much_is_here(store: ObjectStore, hurried: None) -> None:
    with uploading(store, SYSTEM, SEGMENT.start, SIZE) as before:
        receiver = Receiver(before)
        receiver.put(1500)
        receiver.put(3000)
    with uploading(store, SYSTEM, SEGMENT.start, SIZE) as after:
        _take_over(store, after)
        receiver = Receiver(after)
        assert receiver.put(2000) == 0
        assert held(store) == OURS[:3000]
        assert receiver.put(3000) == 3000  # what is there is durable, without a put
        assert receiver.put(4000) == 4000
        assert held(store) == OURS[:4000]
        older = file_key(SYSTEM, pieces.piece_name(SEGMENT, 1500))
        _until(lambda: older not in {item.key for item in list_open(store, SYSTEM, SEGMENT)}, receiver)
        assert held(store) == OURS[: receiver.opened.filled]


def test_another_history_is_refused_with_its_first_piece_and_as_a_whole(store: ObjectStore) -> None:
    with uploading(store, SYSTEM, SEGMENT.start, SIZE) as before:
        Receiver(before, OTHERS).put(3000)
    for size in (3500, SIZE):
        with uploading(store, SYSTEM, SEGMENT.start, SIZE) as after:
            _take_over(store, after)
            receiver = Receiver(after)
            if size < SIZE:
                with pytest.raises(WalConflictError, match=r"\.partial"):
                    receiver.put(size)
            else:
                receiver.opened.add(SEGMENT.start, memoryview(OURS))
                with pytest.raises(WalConflictError, match=r"\.partial"):
                    after.segment(SEGMENT, receiver.opened.hand_over())
    assert held(store) == OTHERS[:3000]


def test_what_an_earlier_release_stored_is_read_and_gone_on_from(store: ObjectStore) -> None:
    padded = OURS[:3000].ljust(SIZE, b"\0")
    facts = FileFacts(SIZE, hashlib.sha256(padded).hexdigest(), SEGMENT.start + 3000)
    store.put(file_key(SYSTEM, f"{SEGMENT.name}.partial"), compressed(padded), facts.metadata())
    assert held(store) == OURS[:3000]
    with uploading(store, SYSTEM, SEGMENT.start, SIZE) as uploads:
        _take_over(store, uploads)
        receiver = Receiver(uploads)
        assert receiver.put(5000) == 5000
        assert held(store) == OURS[:5000]
        receiver.opened.add(receiver.opened.end, memoryview(OURS)[5000:])
        uploads.segment(SEGMENT, receiver.opened.hand_over())
        uploads.drain()
    assert list_open(store, SYSTEM, SEGMENT) == []


def test_who_has_the_beginning_fetches_what_is_behind_it_alone(store: ObjectStore, hurried: None) -> None:
    with uploading(store, SYSTEM, SEGMENT.start, SIZE) as uploads:
        receiver = Receiver(uploads)
        receiver.put(1000)
        for number in range(2, 6):
            receiver.put(number * 1000)
        content, facts = load_behind(store, SYSTEM, SEGMENT, OURS[:2000].ljust(SIZE, b"\0"), 2000)
        assert facts.end_lsn is not None
        end = facts.end_lsn - SEGMENT.start
        assert 3000 <= end <= 5000
        assert content == OURS[:end].ljust(SIZE, b"\0")
        for number in range(6, FEW + 3):
            receiver.put(number * 1000)
        _until(lambda: len(list_open(store, SYSTEM, SEGMENT)) <= FEW, receiver)
        content, _ = load_behind(store, SYSTEM, SEGMENT, OURS[:2000].ljust(SIZE, b"\0"), 2000)
        assert content[: receiver.opened.filled] == OURS[: receiver.opened.filled]


def _take_over(store: ObjectStore, uploads: Uploads) -> None:
    found = find_open(store, SYSTEM, SEGMENT)
    assert found is not None
    uploads.expect_partial(found)


def _until(reached: Callable[[], bool], receiver: Receiver) -> None:
    """Folding and removing come a little later."""
    for _ in range(200):
        if reached():
            return
        time.sleep(0.02)
        receiver.put(receiver.opened.filled + 10)
    pytest.fail("the pieces stay many")
