"""Uploads WAL, several segments at once, and knows up to which LSN the store has everything.

The open segment is uploaded in pieces as it grows (see `open_upload.py`); these are removed once the whole segment is
stored. The durable LSN advances in WAL order only: a segment that is stored before an earlier one does not count yet.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tmi_ops.errors import OpsError
from tmi_ops.postgres.wal_files import Segment
from tmi_ops.store.objects import ObjectStore
from tmi_ops.wal.breaks import Break
from tmi_ops.wal.chapters import ends_a_chapter, place_of, write_chapter
from tmi_ops.wal.links import Links
from tmi_ops.wal.open_segment import OpenSegment
from tmi_ops.wal.open_upload import OpenUpload, StoredPiece
from tmi_ops.wal.partials import StoredOpen
from tmi_ops.wal.segments import CheckedSegment, Neighbour, check_segment, minimal_breaks, put_segment

WORKERS = 4
WAITING_BYTES = 128 << 20


@dataclass(frozen=True)
class Joint:
    """Where received WAL joins the archive.

    Args:
        before: the archived segment that the first received one must continue. None: there is none.
        may_break: the first received segment need not continue `before`.
        restarts_before: the LSN before which the server may have been restarted, while no receiver was connected, with
            other settings.
    """

    before: Neighbour | None = None
    may_break: bool = False
    restarts_before: int = 0


NO_JOINT = Joint()


@dataclass(frozen=True)
class _Stored:
    checked: CheckedSegment
    new: bool


class Uploads:
    """Used by one thread, which hands over WAL in order and asks how far it is durable.

    `wake` is a file descriptor that becomes readable when a put has ended or failed.
    """

    def __init__(
        self, store: ObjectStore, system_identifier: str, durable: int, segment_size: int, joint: Joint
    ) -> None:
        self._store = store
        self._system_identifier = system_identifier
        self._durable = durable
        self._room = max(2, WAITING_BYTES // segment_size)
        self._joint = joint
        self._segments: deque[tuple[Segment, bytearray, Future[_Stored]]] = deque()
        self._used: list[bytearray] = []
        self._before: Future[Neighbour | None] = Future()
        self._before.set_result(joint.before)
        self._is_joined = False
        # The piece of an open segment that is being put.
        self._partial: tuple[OpenUpload, Future[StoredPiece]] | None = None
        # The segment whose pieces may be in the store. They are removed once it is stored whole.
        self._open: OpenUpload | None = None
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="wal-segment")
        self._partials = ThreadPoolExecutor(1, thread_name_prefix="wal-partial")
        self._folds = ThreadPoolExecutor(1, thread_name_prefix="wal-folds")
        self.wake, self._waker = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(self._waker, False)
        self.segments_stored = 0
        # The newest commit and the breaks in the durable WAL.
        self.newest_commit: datetime | None = None
        self.breaks: list[Break] = []

    @property
    def has_room(self) -> bool:
        """Whether another whole segment may be handed over. If not, wait until one is stored."""
        return len(self._segments) < self._room

    @property
    def partial_is_free(self) -> bool:
        """Whether no piece of an open segment is being put."""
        return self._partial is None

    def expect_partial(self, found: StoredOpen) -> None:
        """Set the partial that the store already has of a segment."""
        self._open = self._upload_of(found.segment, found)

    def segment(self, segment: Segment, content: bytearray) -> None:
        """Hand over a whole segment. `content` must not change afterwards.

        Raises:
            WalConflictError: the segment does not begin with the partial in the store.
        """
        opened = self._open if self._open is not None and self._open.segment == segment else None
        if opened is not None:
            opened.require_beginning(content)
        self._open = None
        ahead, self._before = self._before, Future()
        future = self._pool.submit(self._store_segment, segment, content, opened, ahead, self._before)
        future.add_done_callback(self._wake_up)
        self._segments.append((segment, content, future))

    def used(self) -> bytearray | None:
        """The buffer of a segment that is stored, to be reused. None: there is none."""
        return self._used.pop() if self._used else None

    def partial(self, opened: OpenSegment) -> None:
        """Put the new bytes of the open segment. Must not be called while another piece is being put.

        Raises:
            WalConflictError: the segment does not begin with the partial in the store.
        """
        if self._open is None or self._open.segment != opened.segment:
            self._open = self._upload_of(opened.segment, None)
        if (links := self._open.take_over(opened)) is not None:
            self._count(opened.segment, links)
        future = self._open.put(opened)
        if future is not None:
            future.add_done_callback(self._wake_up)
            self._partial = (self._open, future)

    def durable(self) -> int:
        """The LSN before which the store has all WAL.

        Raises:
            OpsError: WAL could not be stored.
        """
        with suppress(BlockingIOError):
            os.read(self.wake, 4096)
        while self._segments and self._segments[0][2].done():
            segment, content, future = self._segments.popleft()
            stored = future.result()
            self._used.append(content)
            self.segments_stored += stored.new
            self.breaks += stored.checked.breaks
            self._durable = max(self._durable, segment.end)
            if stored.new and ends_a_chapter(segment):
                self._folds.submit(self._write_chapter, segment)
            self._saw(stored.checked.as_neighbour.links.last_commit)
        if self._partial is not None and self._partial[1].done():
            opened, storing = self._partial
            piece = storing.result()
            if self._durable >= opened.segment.start:
                self._durable = max(self._durable, opened.segment.start + piece.end)
                if piece.links is not None:
                    self._count(opened.segment, piece.links)
                if opened is self._open:
                    opened.added(piece)
                self._partial = None
        if self._open is not None and self._durable >= self._open.segment.start:
            self._durable = max(self._durable, self._open.segment.start + self._open.stored)
        return self._durable

    def drain(self) -> int:
        """Wait until everything handed over is stored. Returns the durable LSN.

        Raises:
            OpsError: it could not be stored.
        """
        for _, _, future in self._segments:
            future.result()
        if self._partial is not None:
            self._partial[1].result()
        return self.durable()

    def close(self) -> None:
        """Cancel waiting uploads, and wait for those that have begun."""
        self._pool.shutdown(cancel_futures=True)
        self._partials.shutdown(cancel_futures=True)
        self._folds.shutdown(cancel_futures=True)
        os.close(self.wake)
        os.close(self._waker)

    def _write_chapter(self, segment: Segment) -> None:
        """Write the segment's chapter. Errors are ignored: without it, a check of the archive makes more requests."""
        with suppress(OpsError):
            write_chapter(self._store, self._system_identifier, place_of(segment), segment.size)

    def _count(self, segment: Segment, links: Links) -> None:
        self._saw(links.last_commit)
        self.breaks += minimal_breaks(segment, links)

    def _saw(self, commit: datetime | None) -> None:
        if commit is not None and (self.newest_commit is None or commit > self.newest_commit):
            self.newest_commit = commit

    def _store_segment(
        self,
        segment: Segment,
        content: bytearray,
        opened: OpenUpload | None,
        ahead: Future[Neighbour | None],
        behind: Future[Neighbour | None],
    ) -> _Stored:
        try:
            checked = self._check(segment, content, ahead)
            if not self._is_joined:
                # The first segment may already be archived: store nothing after it until it is known to be the same.
                new = put_segment(self._store, self._system_identifier, content, checked)
                self._is_joined = True
                behind.set_result(checked.as_neighbour)
            else:
                behind.set_result(checked.as_neighbour)
                new = put_segment(self._store, self._system_identifier, content, checked)
        except BaseException as error:
            if not behind.done():
                behind.set_exception(error)
            raise
        if opened is not None:
            opened.clear()
        return _Stored(checked, new)

    def _check(self, segment: Segment, content: bytearray, ahead: Future[Neighbour | None]) -> CheckedSegment:
        """Check a segment against the one before it, after that one was checked. If that failed, so does this one."""
        before = ahead.result()
        return check_segment(
            self._system_identifier,
            segment,
            content,
            before if before is not None and before.segment.end == segment.start else None,
            levels=segment.start < self._joint.restarts_before,
            may_break=self._joint.may_break and before == self._joint.before,
        )

    def _upload_of(self, segment: Segment, found: StoredOpen | None) -> OpenUpload:
        restarts = self._joint.restarts_before
        return OpenUpload(
            self._store, self._system_identifier, segment, self._partials, self._folds, found, restarts_before=restarts
        )

    def _wake_up(self, _: Future[Any]) -> None:
        with suppress(OSError):
            os.write(self._waker, b"x")


@contextmanager
def uploading(
    store: ObjectStore, system_identifier: str, durable: int, segment_size: int, joint: Joint = NO_JOINT
) -> Iterator[Uploads]:
    """`Uploads` for the duration of a `with` block.

    Args:
        durable: the LSN before which the store already has all WAL.
        segment_size: the server's wal_segment_size in bytes.
        joint: what the first segment must continue.
    """
    uploads = Uploads(store, system_identifier, durable, segment_size, joint)
    try:
        yield uploads
    finally:
        uploads.close()
