"""A session: receiving over one replication connection, from the end of the archive on and across timeline switches.

No LSN is confirmed to the server before the store has the WAL, so a session may end anywhere: the next one continues
from the store and the slot alone.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from tmi_ops.errors import OpsError
from tmi_ops.postgres.replication import ReplicationConnection, ReplicationError
from tmi_ops.postgres.wal_files import Segment, format_lsn, segment_at
from tmi_ops.postgres.wal_stream import (
    WAL_REMOVED,
    Keepalive,
    WalData,
    end_streaming,
    identify,
    parse_message,
    standby_status,
    start_streaming,
)
from tmi_ops.progress import Phase, Report
from tmi_ops.store.objects import ObjectStore
from tmi_ops.wal.breaks import Break
from tmi_ops.wal.open_segment import OpenSegment
from tmi_ops.wal.partials import find_open
from tmi_ops.wal.progress import StreamProgress
from tmi_ops.wal.resume import Beginning, read_line
from tmi_ops.wal.uploads import Uploads

PARTIAL_EVERY_S = 5.0
FEEDBACK_EVERY_S = 2.0
# With synchronous commits, a put waits for concurrent commits so that they share it: for this fraction of the duration
# of a put, at most this many seconds.
GATHERED_FOR, GATHERED_AT_MOST_S = 0.25, 0.005
_TICK_S = 0.25
NOTHING = 0  # the LSN that confirms nothing


@dataclass(frozen=True)
class ReceiverOptions:
    """Options of a session.

    `partial_every`: how many seconds the archive may lag behind within the open segment. `until`: the LSN at which to
    stop. None: never stop.
    """

    slot: str
    partial_every: float = PARTIAL_EVERY_S
    until: int | None = None


@dataclass(frozen=True)
class Assignment:
    """What all sessions of one receiver share.

    Args:
        stop: ends the session when it is set.
        check: raises once the receiver may no longer write.
        on_break: called with every break, before its WAL is confirmed to the server.
        on_timeline: called with a timeline that is followed from now on. Returns whether the server is a standby.
    """

    store: ObjectStore
    options: ReceiverOptions
    progress: StreamProgress
    report: Report
    stop: threading.Event
    check: Callable[[], None]
    on_break: Callable[[Break], None]
    on_timeline: Callable[[int], bool]


class Session:
    """Receives into `uploads` until it is stopped, `options.until` is stored, or an error occurs."""

    def __init__(
        self, connection: ReplicationConnection, uploads: Uploads, beginning: Beginning, assignment: Assignment
    ) -> None:
        self._connection = connection
        self._uploads = uploads
        self._beginning = beginning
        self._assignment = assignment
        self._options = assignment.options
        self._progress = assignment.progress
        self._system_identifier = beginning.archive.system_identifier
        self._synchronous = beginning.server.synchronous
        self._from_standby = beginning.server.in_recovery
        # Confirming less than the slot keeps would move it back, to WAL that may be gone.
        self._kept_from = 0 if beginning.server.slot is None else beginning.server.slot.restart_lsn or 0
        self._segments_before = self._progress.segments
        self._newest_timeline = beginning.line.timelines[-1]
        self._awaits_answer = False
        self._fed_back = 0
        self._fed_back_at = self._partial_at = time.monotonic()
        # With synchronous commits: since when WAL waits for a put, and how long a put takes.
        self._waits_since: float | None = None
        self._put_s = 0.0

    def run(self, phase: Phase) -> None:
        """Receive until the session ends.

        Raises:
            WalConflictError: the archive holds another history.
            OpsError: the server or the store failed. `transient` says whether a retry may succeed.
        """
        self._expect_older_partial(self._beginning.segment)
        segment = self._beginning.segment
        try:
            while (following := self._receive_timeline(segment, phase)) is not None:
                segment = following
        except ReplicationError as error:
            if error.sqlstate not in WAL_REMOVED:
                raise
            raise ReplicationError(
                f"The server removed {segment.name} before it was sent.",
                hint="start the receiver again; it checks what the server still has",
                transient=True,
            ) from error

    def _receive_timeline(self, segment: Segment, phase: Phase) -> Segment | None:
        """Receive one timeline from a segment on. Returns the segment where the next one begins; None: stop here."""
        self._progress.timeline = segment.timeline
        start_streaming(self._connection, self._options.slot, segment.start, segment.timeline)
        opened = self._receive(OpenSegment(segment), phase)
        if self._is_enough():
            self._close(opened)
            return None
        following = end_streaming(self._connection)
        if following is None:
            self._close(opened)
            raise ReplicationError(
                "The server ended the stream because it is shutting down.",
                hint="start the server again; the receiver then continues on its own",
                transient=True,
            )
        return self._change_timeline(opened, *following)

    def _receive(self, opened: OpenSegment, phase: Phase) -> OpenSegment:
        """Receive until the server ends this timeline or the session is to stop. Returns the open segment."""
        while not self._is_enough():
            self._tend(opened)
            if not self._uploads.has_room:
                self._wait_for_room()
                continue
            message = self._connection.receive(self._patience(opened), (self._uploads.wake,))
            if message == b"":
                return opened
            if message is not None:
                opened = self._take(message, opened, phase)
        return opened

    def _take(self, message: memoryview | bytes, opened: OpenSegment, phase: Phase) -> OpenSegment:
        parsed = parse_message(message)
        if isinstance(parsed, WalData):
            start, content = parsed.start, parsed.content
            while content:
                taken = opened.add(start, content)
                start, content = start + taken, content[taken:]
                if opened.is_whole:
                    following = OpenSegment(opened.segment.next, used=self._uploads.used())
                    self._uploads.segment(opened.segment, opened.hand_over())
                    opened = following
            self._progress.received += len(parsed.content)
            phase.advance(len(parsed.content))
            if self._vouches(opened):
                self._progress.observe(parsed.server_end, parsed.sent_at)
            else:
                self._progress.leave_unobserved(parsed.server_end)
        else:
            self._take_keepalive(parsed, opened)
        return opened

    def _take_keepalive(self, keepalive: Keepalive, opened: OpenSegment) -> None:
        if self._vouches(opened):
            self._progress.keepalive(keepalive.server_end, keepalive.sent_at, asked_for=self._awaits_answer)
        self._awaits_answer = False
        if keepalive.reply_requested:
            # The server may be shutting down: it waits until all WAL is confirmed.
            self._partial_at = -math.inf
            self._feed_back()

    def _vouches(self, opened: OpenSegment) -> bool:
        """Whether messages on this timeline say something about the present. Those of a standby do not: it does not
        know what its primary has flushed."""
        return self._newest_timeline == opened.segment.timeline and not self._from_standby

    def _count(self, durable: int) -> None:
        """Record what is stored. A break is recorded before its WAL is confirmed to the server."""
        while self._uploads.breaks:
            self._assignment.on_break(self._uploads.breaks.pop(0))
        self._progress.stored(durable)
        if self._from_standby:
            self._progress.vouched_for(self._uploads.newest_commit)
        self._progress.segments = self._segments_before + self._uploads.segments_stored

    def _tend(self, opened: OpenSegment) -> None:
        """Do what is due: record what is stored, put the open segment, and send feedback to the server."""
        self._assignment.check()
        was_busy = not self._uploads.partial_is_free
        self._count(self._uploads.durable())
        if was_busy and self._uploads.partial_is_free:
            self._put_s = time.monotonic() - self._partial_at
        if self._partial_is_due(opened):
            self._put_partial(opened)
        late = time.monotonic() - self._fed_back_at >= FEEDBACK_EVERY_S
        if self._progress.durable > self._fed_back or late:
            # Only one request for a reply at a time, so that it is known which one a reply answers.
            self._feed_back(reply_requested=late and not self._awaits_answer)

    def _partial_is_due(self, opened: OpenSegment) -> bool:
        if opened.end <= self._progress.durable or not self._uploads.partial_is_free or not opened.filled:
            return False
        if self._options.until is not None and opened.end >= self._options.until:
            return True
        now = time.monotonic()
        if not self._synchronous:
            return now - self._partial_at >= self._options.partial_every
        if self._waits_since is None:
            self._waits_since = now
        return now - self._waits_since >= self._gathers_for

    @property
    def _gathers_for(self) -> float:
        return min(GATHERED_AT_MOST_S, GATHERED_FOR * self._put_s)

    def _put_partial(self, opened: OpenSegment) -> None:
        self._partial_at = time.monotonic()
        self._waits_since = None
        self._uploads.partial(opened)

    def _patience(self, opened: OpenSegment) -> float:
        """The maximum number of seconds to wait for a message."""
        if opened.end <= self._progress.durable:
            return _TICK_S
        if self._waits_since is not None:
            return max(0.0, self._waits_since + self._gathers_for - time.monotonic())
        due = self._partial_at + self._options.partial_every - time.monotonic()
        return min(_TICK_S, max(due, 0.01))

    def _wait_for_room(self) -> None:
        """Do not read while the store is slower than the server: TCP then holds it back. `_tend` still sends
        feedback."""
        time.sleep(0.01)

    def _feed_back(self, *, reply_requested: bool = False) -> None:
        durable = self._progress.durable
        confirmed = durable if durable >= self._kept_from else NOTHING
        self._connection.transmit(standby_status(confirmed, datetime.now(UTC), reply_requested=reply_requested))
        self._awaits_answer |= reply_requested
        self._fed_back, self._fed_back_at = durable, time.monotonic()

    def _is_enough(self) -> bool:
        return self._assignment.stop.is_set() or (
            self._options.until is not None and self._progress.durable >= self._options.until
        )

    def _close(self, opened: OpenSegment) -> None:
        """Store everything received and confirm it to the server."""
        self._store_all(opened)
        try:
            self._feed_back()
        except OpsError:
            return  # the WAL is stored; the next session confirms it

    def _store_all(self, opened: OpenSegment) -> None:
        self._uploads.drain()
        if opened.filled and opened.end > self._progress.durable:
            self._put_partial(opened)
        self._count(self._uploads.drain())

    def _change_timeline(self, opened: OpenSegment, timeline: int, begins: int) -> Segment:
        """Store the last segment of the old timeline. Returns the segment where receiving continues on the new one."""
        self._store_all(opened)
        self._assignment.report.note(
            f"Timeline {opened.segment.timeline} ended at {format_lsn(begins)}; continuing with timeline {timeline}"
        )
        line = read_line(self._connection, self._assignment.store, identify(self._connection))
        self._newest_timeline = line.timelines[-1]
        self._awaits_answer = False
        self._from_standby = self._assignment.on_timeline(self._newest_timeline)
        return segment_at(timeline, begins, opened.segment.size)

    def _expect_older_partial(self, segment: Segment) -> None:
        """Keep an existing partial of the first segment until the same bytes were received."""
        if self._beginning.open_before is None:
            return
        found = find_open(self._assignment.store, self._system_identifier, segment)
        if found is not None:
            self._uploads.expect_partial(found)
