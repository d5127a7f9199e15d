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
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tmi_ops.errors import BackupError, ObjectExistsError, OpsError
from tmi_ops.postgres.wal_files import Segment, check_header
from tmi_ops.postgres.wal_records import read_records
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.single_put import IfAbsent, IfUnchanged, look, sealed
from tmi_ops.store.stamped import put_stamped
from tmi_ops.wal.archive import partial_key
from tmi_ops.wal.breaks import Break
from tmi_ops.wal.links import Links, links_from
from tmi_ops.wal.segments import CheckedSegment, Neighbour, check_segment, minimal_breaks, put_segment
from tmi_ops.wal.stored_file import FileFacts, compressed, facts_of

WORKERS = 4
WAITING_BYTES = 128 << 20


@dataclass(frozen=True)
class Joint:
    """Where received WAL meets the archive.

    Args:
        before: the archived segment that the first one received must continue; None: there is none.
        may_break: it need not, if somebody said so.
        restarts_before: the LSN before which the server may have been restarted without us, with other settings.
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
    """For one thread, which hands WAL over in order and asks how far it is durable.

    `wake` is a file descriptor that becomes readable when something has arrived in the store (or failed to).
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
        self._partial: tuple[Segment, int, Future[Links | None]] | None = None
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
        # Of what is durable: the newest commit, and the places that no replay passes.
        self.newest_commit: datetime | None = None
        self.breaks: list[Break] = []

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
        ahead, self._before = self._before, Future()
        future = self._pool.submit(self._store_segment, segment, content, before, has_partial, ahead, self._before)
        future.add_done_callback(self._wake_up)
        self._segments.append((segment, content, future))

    def used(self) -> bytearray | None:
        """The memory of a segment that is stored, for another one; None: there is none."""
        return self._used.pop() if self._used else None

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
        while self._segments and self._segments[0][2].done():
            segment, content, future = self._segments.popleft()
            stored = future.result()
            self._used.append(content)
            self.segments_stored += stored.new
            self.breaks += stored.checked.breaks
            self._durable = max(self._durable, segment.end)
            self._saw(stored.checked.as_neighbour.links.last_commit)
        if self._partial is not None and self._partial[2].done():
            segment, end_lsn, storing = self._partial
            links = storing.result()
            if self._durable >= segment.start:
                if links is not None:
                    self._durable = max(self._durable, end_lsn)
                    self._saw(links.last_commit)
                    self.breaks += minimal_breaks(segment, links)
                self._partial = None
        return self._durable

    def drain(self) -> int:
        """Wait until everything handed over is stored.

        Raises:
            OpsError: it could not be stored.
        """
        for _, _, future in self._segments:
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

    def _saw(self, commit: datetime | None) -> None:
        if commit is not None and (self.newest_commit is None or commit > self.newest_commit):
            self.newest_commit = commit

    def _store_segment(
        self,
        segment: Segment,
        content: bytearray,
        partial: Future[Links | None] | None,
        has_partial: bool,
        ahead: Future[Neighbour | None],
        behind: Future[Neighbour | None],
    ) -> _Stored:
        try:
            checked = self._check(segment, content, ahead)
            if not self._is_joined:
                # The first one may lie in the archive: nothing is stored behind it before it is seen to be the same.
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
        if partial is not None:
            partial.exception()  # so that a `.partial` does not appear after it was removed
        if has_partial:
            with suppress(OpsError):  # one that stays is known to be superseded
                self._store.delete([partial_key(self._system_identifier, segment)])
        return _Stored(checked, new)

    def _check(self, segment: Segment, content: bytearray, ahead: Future[Neighbour | None]) -> CheckedSegment:
        """Beside the one before it, which was checked already; where that one failed, this one does too."""
        before = ahead.result()
        return check_segment(
            self._system_identifier,
            segment,
            content,
            before if before is not None and before.segment.end == segment.start else None,
            levels=segment.start < self._joint.restarts_before,
            may_break=self._joint.may_break and before == self._joint.before,
        )

    def _store_partial(self, segment: Segment, content: bytes, end_lsn: int) -> Links | None:
        """None where the store has one that reaches further: it stays, and nothing of this one counts."""
        check_header(content, segment, self._system_identifier, segment.name)
        condition = self._condition(segment, end_lsn)
        if condition is None:
            return None
        facts = FileFacts(len(content), hashlib.sha256(content).hexdigest(), end_lsn)
        levels = segment.start < self._joint.restarts_before
        links = links_from(read_records(content, end_lsn, levels=levels), levels_read=levels)
        body = sealed(self._store, compressed(content))
        key = partial_key(self._system_identifier, segment)
        try:
            self._stored = (
                segment,
                put_stamped(self._store, key, body, {**links.metadata(), **facts.metadata()}, condition, "WAL"),
            )
        except ObjectExistsError as error:
            raise _overtaken(segment) from error
        return links

    def _condition(self, segment: Segment, end_lsn: int) -> IfAbsent | IfUnchanged | None:
        """On which a `.partial` may be written; None: not at all."""
        if self._stored is not None and self._stored[0] == segment:
            return IfUnchanged(self._stored[1])
        there = look(self._store, partial_key(self._system_identifier, segment))
        if there is None:
            return IfAbsent()
        return None if (facts_of(there).end_lsn or 0) > end_lsn else IfUnchanged(there.etag)

    def _wake_up(self, _: Future[Any]) -> None:
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
def uploading(
    store: ObjectStore, system_identifier: str, durable: int, segment_size: int, joint: Joint = NO_JOINT
) -> Iterator[Uploads]:
    """`Uploads` for the length of a `with` block.

    Args:
        durable: the LSN before which the store holds everything already.
        segment_size: the server's wal_segment_size in bytes.
        joint: what the first segment must continue.
    """
    uploads = Uploads(store, system_identifier, durable, segment_size, joint)
    try:
        yield uploads
    finally:
        uploads.close()
