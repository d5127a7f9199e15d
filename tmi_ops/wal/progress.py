"""The progress of a receiver, and the moment up to which the archive is known to be complete.

1. A message with WAL says how far the server had flushed when it sent it. Once the store has everything up to that LSN,
   the archive is known to be complete up to the time of the message.
2. A keepalive says only how far the server had *sent*, which is less if it waits for a slow receiver. It therefore
   counts only if a reply requested after it arrives with no WAL in between: there was nothing left to send.
3. On a timeline that the server has left, neither says anything about the present.
4. A standby does not know what its primary flushed. The newest commit in the stored WAL counts instead.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tmi_ops.postgres.wal_files import format_lsn

_OBSERVED_EVERY = timedelta(seconds=0.5)


@dataclass
class StreamProgress:
    """The state of the stream. Written by one thread, read by others.

    The store has all WAL before LSN `durable`. `server_end` is the newest LSN that the server reported. All WAL that
    the server had flushed at `level_at`, by its own clock, is in the store.
    """

    timeline: int = 0
    durable: int = 0
    server_end: int = 0
    level_at: datetime | None = None
    received: int = 0
    segments: int = 0
    _idle_since: datetime | None = field(default=None, repr=False)
    _observed: deque[tuple[int, datetime]] = field(default_factory=deque, repr=False)

    @property
    def lag(self) -> int:
        """Bytes that the server has flushed and the store does not have yet."""
        return max(0, self.server_end - self.durable)

    def observe(self, server_end: int, at: datetime) -> None:
        """Take in a message with WAL: at time `at` by its clock, the server had flushed up to `server_end`."""
        self._idle_since = None
        self.server_end = max(self.server_end, server_end)
        if not self._observed or at - self._observed[-1][1] >= _OBSERVED_EVERY or server_end <= self.durable:
            self._observed.append((server_end, at))
        self.stored(self.durable)

    def leave_unobserved(self, server_end: int) -> None:
        """Take in a message with WAL that says nothing about the present."""
        self._idle_since = None
        self.server_end = max(self.server_end, server_end)

    def keepalive(self, sent: int, at: datetime, *, asked_for: bool) -> None:
        """Take in a keepalive: the server had sent WAL up to `sent` at time `at`. `asked_for`: a reply was requested
        since the previous keepalive."""
        if asked_for and self._idle_since is not None:
            self._observed.append((sent, self._idle_since))
            self.stored(self.durable)
        self._idle_since = at

    def stored(self, durable: int) -> None:
        """Record that the store has all WAL before `durable`."""
        self.durable = durable
        while self._observed and self._observed[0][0] <= durable:
            _, at = self._observed.popleft()
            self.level_at = at if self.level_at is None else max(self.level_at, at)

    def vouched_for(self, commit: datetime | None) -> None:
        """Record the newest commit in the store, of a standby's primary. What came after it is not known."""
        if commit is not None and (self.level_at is None or commit > self.level_at):
            self.level_at = commit

    def as_lease_fields(self) -> dict[str, object]:
        """The fields for the lease. Empty while nothing is known."""
        if not self.durable:
            return {}
        return {"timeline": self.timeline, "lsn": format_lsn(self.durable), "level_at": self.level_at}
