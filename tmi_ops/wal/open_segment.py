"""The segment that is being filled: WAL bytes in, whole segments out. Every byte has its place and comes once."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field

from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.wal_files import Segment, format_lsn


@dataclass
class OpenSegment:
    """A segment's bytes so far; memory: one segment."""

    segment: Segment
    filled: int = 0
    # One that was handed over and is stored by now may be filled again: fresh memory costs more than what is put in it.
    used: InitVar[bytearray | None] = None
    _content: bytearray = field(init=False, repr=False)

    def __post_init__(self, used: bytearray | None) -> None:
        fits = used is not None and len(used) == self.segment.size
        self._content = used if used is not None and fits else bytearray(self.segment.size)

    @property
    def end(self) -> int:
        """The LSN of the first byte that is not here yet."""
        return self.segment.start + self.filled

    @property
    def is_whole(self) -> bool:
        return self.filled == self.segment.size

    def add(self, start: int, content: memoryview) -> int:
        """Take bytes that belong at LSN `start`, as many as there is room for.

        Returns:
            How many were taken.

        Raises:
            DatabaseError: they do not follow what is here; nothing was taken.
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
        """The whole content, without a copy; this object is of no use afterwards."""
        content, self._content = self._content, bytearray()
        return content

    def part(self, start: int, end: int) -> bytes:
        """A copy of the bytes between two offsets."""
        with memoryview(self._content) as content:
            return bytes(content[start : min(end, self.filled)])

    def view(self) -> memoryview:
        """The bytes that are here, themselves: they do not change any more."""
        return memoryview(self._content)[: self.filled]
