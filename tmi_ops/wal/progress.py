"""How far a receiver has come, and up to which moment the archive is known to hold everything.

1. With WAL the server says how far it had flushed when it sent it: once all that is stored, the archive was level then.
2. A keepalive says only how far the server had *sent*, which is less where it waits for a slow receiver. So one counts
   when the answer to a question asked after it came without any WAL between: then there was nothing left to send.
3. On a timeline that the server has left, neither says anything about the present.
4. A standby knows nothing of what its primary flushed: there the newest commit in the stored WAL counts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tmi_ops.postgres.wal_files import format_lsn

_OBSERVED_EVERY = timedelta(seconds=0.5)


@dataclass
class StreamProgress:
    """Where the stream stands. Written by one thread, read by others.

    `durable` is the LSN before which the store holds everything; `server_end` the newest the server spoke of.
    `level_at`: all that the server had flushed at this moment of its own clock is in the store.
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
        """Bytes that the server has flushed and the store does not hold yet."""
        return max(0, self.server_end - self.durable)

    def observe(self, server_end: int, at: datetime) -> None:
        """With WAL the server said how far it had flushed, at a moment of its clock."""
        self._idle_since = None
        self.server_end = max(self.server_end, server_end)
        if not self._observed or at - self._observed[-1][1] >= _OBSERVED_EVERY or server_end <= self.durable:
            self._observed.append((server_end, at))
        self.stored(self.durable)

    def leave_unobserved(self, server_end: int) -> None:
        """WAL of a timeline that the server has left."""
        self._idle_since = None
        self.server_end = max(self.server_end, server_end)

    def keepalive(self, sent: int, at: datetime, *, asked_for: bool) -> None:
        """The server had sent up to `sent` at `at`; `asked_for`: we had asked since the keepalive before this one."""
        if asked_for and self._idle_since is not None:
            self._observed.append((sent, self._idle_since))
            self.stored(self.durable)
        self._idle_since = at

    def stored(self, durable: int) -> None:
        """The store holds everything before `durable` now."""
        self.durable = durable
        while self._observed and self._observed[0][0] <= durable:
            _, at = self._observed.popleft()
            self.level_at = at if self.level_at is None else max(self.level_at, at)

    def vouched_for(self, commit: datetime | None) -> None:
        """Of a standby: the newest commit of its primary that the store holds. What came after it is not known."""
        if commit is not None and (self.level_at is None or commit > self.level_at):
            self.level_at = commit

    def as_lease_fields(self) -> dict[str, object]:
        """What the lease tells of it; nothing before anything is known."""
        if not self.durable:
            return {}
        return {"timeline": self.timeline, "lsn": format_lsn(self.durable), "level_at": self.level_at}
