"""WAL on its way into the store: several segments at once, and up to where everything has arrived.

An open segment goes as `.partial`, replaced as it grows and removed once the whole segment is stored. The durable LSN
moves in the order of the WAL only: what arrived behind a segment still on its way does not count yet.

A `.partial` is replaced only while it is the one that was seen last. A receiver that stood still, lost its lease and
wakes up can so never put an older one over what its successor has stored and confirmed.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

from tmi_ops.errors import BackupError, ObjectExistsError, OpsError
from tmi_ops.postgres.wal_files import Segment, check_header
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.single_put import IfAbsent, IfUnchanged, look, put_single, sealed
from tmi_ops.wal.archive import partial_key
from tmi_ops.wal.stored_file import FileFacts, compressed, facts_of, store_once

WORKERS = 4
WAITING_BYTES = 128 << 20


class Uploads:
    """For one thread, which hands WAL over in order and asks how far it is durable.

    `wake` is a file descriptor that becomes readable when something has arrived in the store (or failed to).
    """

    def __init__(self, store: ObjectStore, system_identifier: str, durable: int, segment_size: int) -> None:
        self._store = store
        self._system_identifier = system_identifier
        self._durable = durable
        self._room = max(2, WAITING_BYTES // segment_size)
        self._segments: deque[tuple[Segment, Future[bool]]] = deque()
        self._partial: tuple[Segment, int, Future[bool]] | None = None
        # The `.partial` that was stored last, and its ETag. Of the thread that stores them.
        self._stored: tuple[Segment, str] | None = None
        # The segment whose `.partial` may lie in the store; it is removed when the whole one is there.
        self._open: Segment | None = None
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="wal-segment")
        self._partials = ThreadPoolExecutor(1, thread_name_prefix="wal-partial")
        self.wake, self._waker = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(self._waker, False)
        self.segments_stored = 0

    @property
    def has_room(self) -> bool:
        """Whether another whole segment may be handed over; otherwise wait for one to arrive."""
        return len(self._segments) < self._room

    @property
    def partial_is_free(self) -> bool:
        """Whether no `.partial` is on its way."""
        return self._partial is None or self._partial[2].done()

    def expect_partial(self, segment: Segment) -> None:
        """Say that the store holds a `.partial` of this segment from before."""
        self._open = segment

    def segment(self, segment: Segment, content: bytearray) -> None:
        """Hand over a whole segment; `content` must not change any more."""
        before = self._partial[2] if self._partial is not None and self._partial[0] == segment else None
        has_partial = self._open == segment
        future = self._pool.submit(self._store_segment, segment, content, before, has_partial)
        future.add_done_callback(self._wake_up)
        self._segments.append((segment, future))

    def partial(self, segment: Segment, content: bytes, end_lsn: int) -> None:
        """Hand over the open segment, valid up to `end_lsn` and padded with zeros."""
        self._open = segment
        future = self._partials.submit(self._store_partial, segment, content, end_lsn)
        future.add_done_callback(self._wake_up)
        self._partial = (segment, end_lsn, future)

    def durable(self) -> int:
        """The LSN before which the store holds everything.

        Raises:
            OpsError: WAL could not be stored.
        """
        with suppress(BlockingIOError):
            os.read(self.wake, 4096)
        while self._segments and self._segments[0][1].done():
            segment, future = self._segments.popleft()
            self.segments_stored += future.result()
            self._durable = max(self._durable, segment.end)
        if self._partial is not None and self._partial[2].done():
            segment, end_lsn, storing = self._partial
            stored = storing.result()
            if self._durable >= segment.start:
                self._durable = max(self._durable, end_lsn if stored else 0)
                self._partial = None
        return self._durable

    def drain(self) -> int:
        """Wait until everything handed over is stored.

        Raises:
            OpsError: it could not be stored.
        """
        for _, future in self._segments:
            future.result()
        if self._partial is not None:
            self._partial[2].result()
        return self.durable()

    def close(self) -> None:
        """Give up what waits; what is on its way ends first."""
        self._pool.shutdown(cancel_futures=True)
        self._partials.shutdown(cancel_futures=True)
        os.close(self.wake)
        os.close(self._waker)

    def _store_segment(
        self, segment: Segment, content: bytearray, before: Future[bool] | None, has_partial: bool
    ) -> bool:
        check_header(content, segment, self._system_identifier, segment.name)
        stored = store_once(self._store, self._system_identifier, segment.name, content, segment.end)
        if before is not None:
            before.exception()  # so that a `.partial` does not appear after it was removed
        if has_partial:
            with suppress(OpsError):  # one that stays is known to be superseded
                self._store.delete([partial_key(self._system_identifier, segment)])
        return stored

    def _store_partial(self, segment: Segment, content: bytes, end_lsn: int) -> bool:
        """False where the store has one that reaches further: it stays, and nothing of this one counts."""
        check_header(content, segment, self._system_identifier, segment.name)
        condition = self._condition(segment, end_lsn)
        if condition is None:
            return False
        facts = FileFacts(len(content), hashlib.sha256(content).hexdigest(), end_lsn)
        body = sealed(self._store, compressed(content))
        key = partial_key(self._system_identifier, segment)
        try:
            self._stored = segment, put_single(self._store, key, body, facts.metadata(), condition)
        except ObjectExistsError as error:
            raise _overtaken(segment) from error
        return True

    def _condition(self, segment: Segment, end_lsn: int) -> IfAbsent | IfUnchanged | None:
        """On which a `.partial` may be written; None: not at all."""
        if self._stored is not None and self._stored[0] == segment:
            return IfUnchanged(self._stored[1])
        there = look(self._store, partial_key(self._system_identifier, segment))
        if there is None:
            return IfAbsent()
        return None if (facts_of(there).end_lsn or 0) > end_lsn else IfUnchanged(there.etag)

    def _wake_up(self, _: Future[bool]) -> None:
        with suppress(OSError):
            os.write(self._waker, b"x")


def _overtaken(segment: Segment) -> BackupError:
    return BackupError(
        f"Somebody else wrote the open segment {segment.name} to the archive meanwhile.",
        kept="That one was left as it is.",
        next_step="see who receives: `tmi-ops wal status`; this receiver looks at the store anew",
        transient=True,
    )


@contextmanager
def uploading(store: ObjectStore, system_identifier: str, durable: int, segment_size: int) -> Iterator[Uploads]:
    """`Uploads` for the length of a `with` block.

    Args:
        durable: the LSN before which the store holds everything already.
        segment_size: the server's wal_segment_size in bytes.
    """
    uploads = Uploads(store, system_identifier, durable, segment_size)
    try:
        yield uploads
    finally:
        uploads.close()
