"""One replication connection's worth of receiving: from where the archive ends, over every change of timeline.

Nothing is told to the server before the store holds it, so a session may break anywhere: the next one goes on from the
store and the slot alone.
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
# With synchronous commits: for how much of a put's own time, and how long at most, those that come at the same time are
# waited for, so that they share one.
GATHERED_FOR, GATHERED_AT_MOST_S = 0.25, 0.005
_TICK_S = 0.25
NOTHING = 0  # as an LSN that is confirmed


@dataclass(frozen=True)
class ReceiverOptions:
    """What is wanted of the stream.

    `partial_every` in seconds: how old the archive may be beyond the last whole segment. `until`: an LSN at which to
    stop; None goes on for ever.
    """

    slot: str
    partial_every: float = PARTIAL_EVERY_S
    until: int | None = None


@dataclass(frozen=True)
class Assignment:
    """What all sessions of one receiver work for, and whom they tell.

    Args:
        stop: ends the session when it is set.
        check: raises once the receiver may write no more.
        on_break: told of a place that no replay passes, before the server is told that its WAL is safe.
        on_timeline: told of a timeline that is followed from now on; answers whether the server is a standby.
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
    """Receives into `uploads` until stopped, until `options.until` is stored, or until something breaks."""

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
        # With synchronous commits: since when WAL waits for a put, and how long one takes.
        self._waits_since: float | None = None
        self._put_s = 0.0

    def run(self, phase: Phase) -> None:
        """Receive.

        Raises:
            WalConflictError: the archive holds another history.
            OpsError: the server or the store failed; `transient` says whether going on later is worthwhile.
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
        """Receive one timeline from a segment on; where the next one begins, None when it is enough."""
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
        """Until the server ends this timeline or it is enough; what is open then is given back."""
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
            # Perhaps the server shuts down: it waits until we hold everything.
            self._partial_at = -math.inf
            self._feed_back()

    def _vouches(self, opened: OpenSegment) -> bool:
        """Whether the server's clock says something of the present: a standby's says nothing of its primary."""
        return self._newest_timeline == opened.segment.timeline and not self._from_standby

    def _count(self, durable: int) -> None:
        """Take in what arrived in the store. A break is recorded before the server is told that its WAL is safe."""
        while self._uploads.breaks:
            self._assignment.on_break(self._uploads.breaks.pop(0))
        self._progress.stored(durable)
        if self._from_standby:
            self._progress.vouched_for(self._uploads.newest_commit)
        self._progress.segments = self._segments_before + self._uploads.segments_stored

    def _tend(self, opened: OpenSegment) -> None:
        """What is due: count what arrived in the store, tell the server, store the open segment."""
        self._assignment.check()
        was_busy = not self._uploads.partial_is_free
        self._count(self._uploads.durable())
        if was_busy and self._uploads.partial_is_free:
            self._put_s = time.monotonic() - self._partial_at
        if self._partial_is_due(opened):
            self._put_partial(opened)
        late = time.monotonic() - self._fed_back_at >= FEEDBACK_EVERY_S
        if self._progress.durable > self._fed_back or late:
            # One question at a time, so that it is known after what an answer was given.
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
        """Seconds to wait for a message, at most."""
        if opened.end <= self._progress.durable:
            return _TICK_S
        if self._waits_since is not None:
            return max(0.0, self._waits_since + self._gathers_for - time.monotonic())
        due = self._partial_at + self._options.partial_every - time.monotonic()
        return min(_TICK_S, max(due, 0.01))

    def _wait_for_room(self) -> None:
        """The store is slower than the server: leave the rest to TCP, but keep the server assured that we live."""
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
        """Store what is here, tell the server, and leave."""
        self._store_all(opened)
        try:
            self._feed_back()
        except OpsError:
            return  # it learns next time; the store holds the bytes

    def _store_all(self, opened: OpenSegment) -> None:
        self._uploads.drain()
        if opened.filled and opened.end > self._progress.durable:
            self._put_partial(opened)
        self._count(self._uploads.drain())

    def _change_timeline(self, opened: OpenSegment, timeline: int, begins: int) -> Segment:
        """Close the old timeline's last segment where the new one begins; there receiving goes on."""
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
        """What the archive has of an open segment stays until as much was received, and the same."""
        if self._beginning.open_before is None:
            return
        found = find_open(self._assignment.store, self._system_identifier, segment)
        if found is not None:
            self._uploads.expect_partial(found)
