"""A bounded pipe of byte chunks between two threads of this process."""

from __future__ import annotations

import threading
from collections import deque

CAPACITY = 4 << 20


class ChannelClosedError(Exception):
    """The other end is closed."""


class Channel:
    """One thread puts chunks, another gets them. Holds up to `CAPACITY` bytes, or one larger chunk."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._ended = False
        self._abandoned = False
        self._changed = threading.Condition()

    def put(self, chunk: bytes) -> None:
        """Put a chunk; blocks while the channel is full.

        Raises:
            ChannelClosedError: the channel was abandoned.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or not self._held or self._held + len(chunk) <= CAPACITY)
            if self._abandoned:
                raise ChannelClosedError
            self._chunks.append(chunk)
            self._held += len(chunk)
            self._changed.notify_all()

    def get(self) -> bytes | None:
        """The next chunk, or None after the last; blocks until there is one.

        Raises:
            ChannelClosedError: the channel was abandoned before its end.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or self._ended or bool(self._chunks))
            if self._abandoned:
                raise ChannelClosedError
            if not self._chunks:
                return None
            chunk = self._chunks.popleft()
            self._held -= len(chunk)
            self._changed.notify_all()
            return chunk

    def end(self) -> None:
        """Declare the end: no chunk follows."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Make both ends stop at once."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
