"""The segment being filled from the stream. Every byte must follow the one before it."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field

from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.wal_files import Segment, format_lsn


@dataclass
class OpenSegment:
    """The bytes of a segment received so far. Takes the memory of one segment."""

    segment: Segment
    filled: int = 0
    # The buffer of a segment that is stored by now, to be reused: allocating memory costs more than filling it.
    used: InitVar[bytearray | None] = None
    _content: bytearray = field(init=False, repr=False)

    def __post_init__(self, used: bytearray | None) -> None:
        fits = used is not None and len(used) == self.segment.size
        self._content = used if used is not None and fits else bytearray(self.segment.size)

    @property
    def end(self) -> int:
        """The LSN after the last byte received."""
        return self.segment.start + self.filled

    @property
    def is_whole(self) -> bool:
        return self.filled == self.segment.size

    def add(self, start: int, content: memoryview) -> int:
        """Add bytes that begin at LSN `start`, up to the end of the segment.

        Returns:
            The number of bytes added.

        Raises:
            DatabaseError: `start` is not `end`; nothing was added.
        """
        if start != self.end:
            raise DatabaseError(
                f"The server sent WAL from {format_lsn(start)} instead of {format_lsn(self.end)}.",
                detail="This WAL was not archived.",
                hint="start the receiver again; it continues where the archive ends",
                transient=True,
            )
        taken = min(len(content), self.segment.size - self.filled)
        self._content[self.filled : self.filled + taken] = content[:taken]
        self.filled += taken
        return taken

    def hand_over(self) -> bytearray:
        """Return the whole buffer without copying it. This object must not be used afterwards."""
        content, self._content = self._content, bytearray()
        return content

    def part(self, start: int, end: int) -> bytes:
        """A copy of the bytes between two offsets."""
        with memoryview(self._content) as content:
            return bytes(content[start : min(end, self.filled)])

    def view(self) -> memoryview:
        """The bytes received so far, not copied: they no longer change."""
        return memoryview(self._content)[: self.filled]
