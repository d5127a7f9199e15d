"""The contents of an archive in a few bytes per table: SHA-256, rows and bytes, counted while the archive streams by.

A table's digest is the SHA-256 of its rows as COPY writes them, in the order and with the columns of the dump; so

    psql --command="COPY schema.table (columns) TO STDOUT" | sha256sum

gives the same on a database whose rows are in the same order. Large objects have one sum: the first 128 bits of the
SHA-256 of each one's oid and content are added up, so their order does not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from tmi_ops.backup.archive.decompression import Decompressor, decompressor
from tmi_ops.backup.archive.reader import ArchiveReader, Data, DataBegins, DataEnds, Event, TocRead
from tmi_ops.backup.archive.toc import SEQUENCE_SET, ArchiveError, Toc, TocEntry

END_OF_ROWS = b"\\.\n\n\n"  # pg_dump writes it after a table's rows: the end of COPY's data and two empty lines
_END_LINES = END_OF_ROWS.count(b"\n")
_SUM_BYTES = 16
_LONG_LINE = 400  # bytes above which one call per line end is faster than counting over the bytes (0.4 ns each)


@dataclass(frozen=True)
class TableContent:
    """The rows of one table in a dump; `bytes` counts COPY's text without its end marker."""

    schema: str
    name: str
    columns: tuple[str, ...]
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SequenceContent:
    """The state of a sequence in a dump; `called`: whether the last value was handed out."""

    schema: str
    name: str
    last_value: int
    called: bool


@dataclass(frozen=True)
class LargeObjectsContent:
    """All large objects of a dump together."""

    count: int = 0
    bytes: int = 0
    digest: str = "0" * (2 * _SUM_BYTES)


@dataclass(frozen=True)
class Contents:
    """All data of one dump."""

    tables: tuple[TableContent, ...] = ()
    sequences: tuple[SequenceContent, ...] = ()
    large_objects: LargeObjectsContent = LargeObjectsContent()


class RowsDigest:
    """Digest of one table's rows, fed with the text that pg_dump wrote for them."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._held = b""
        self._lines = 0
        self._bytes = 0

    def feed(self, piece: bytes) -> None:
        self._lines += count_lines(piece, long=self._bytes > _LONG_LINE * self._lines)
        self._bytes += len(piece)
        held = len(END_OF_ROWS)
        if len(piece) < held:
            piece = self._held + piece
        else:
            self._hash.update(self._held)
        self._hash.update(memoryview(piece)[:-held])
        self._held = piece[-held:]

    def content(self, entry: TocEntry) -> TableContent:
        """The content of the table with this TABLE DATA entry.

        Raises:
            ArchiveError: the end of the rows is missing.
        """
        if self._held != END_OF_ROWS:
            raise ArchiveError(f"The rows of {entry.namespace}.{entry.tag} are cut off.")
        rows, size = self._lines - _END_LINES, self._bytes - len(END_OF_ROWS)
        return TableContent(entry.namespace, entry.tag, entry.columns, rows, size, self._hash.hexdigest())


def count_lines(piece: bytes, *, long: bool) -> int:
    """The number of line ends. `long`: lines are long, so searching from one to the next is faster."""
    if not long:
        return piece.count(b"\n")
    lines, position = 0, piece.find(b"\n")
    while position >= 0:
        lines += 1
        position = piece.find(b"\n", position + 1)
    return lines


class LargeObjectsSum:
    """The sum over large objects, fed one after the other."""

    def __init__(self) -> None:
        self._count = self._bytes = self._sum = 0
        self._hash = hashlib.sha256()

    def begin(self, oid: int) -> None:
        self._hash = hashlib.sha256(oid.to_bytes(4, "big"))
        self._count += 1

    def feed(self, piece: bytes) -> None:
        self._hash.update(piece)
        self._bytes += len(piece)

    def end(self) -> None:
        self._sum = (self._sum + int.from_bytes(self._hash.digest()[:_SUM_BYTES], "big")) % (1 << 8 * _SUM_BYTES)

    def content(self) -> LargeObjectsContent:
        return LargeObjectsContent(self._count, self._bytes, f"{self._sum:0{2 * _SUM_BYTES}x}")


def sum_of_objects(parts: Iterable[LargeObjectsContent]) -> LargeObjectsContent:
    """The total of parts that were counted separately."""
    count = size = total = 0
    for part in parts:
        count += part.count
        size += part.bytes
        total += int(part.digest, 16)
    return LargeObjectsContent(count, size, f"{total % (1 << 8 * _SUM_BYTES):0{2 * _SUM_BYTES}x}")


class ContentsReader:
    """Counts an archive in the custom format: feed it chunk by chunk, then ask for the result."""

    def __init__(self) -> None:
        self.head = bytearray()
        """Header and table of contents as they are in the archive: an archive themselves, as of a dump without data."""
        self._reader = ArchiveReader()
        self._toc: Toc | None = None
        self._tables: list[TableContent] = []
        self._objects = LargeObjectsSum()
        self._entry: TocEntry | None = None
        self._rows: RowsDigest | None = None
        self._unpacking: Decompressor | None = None

    def feed(self, chunk: bytes) -> None:
        """Process the next bytes.

        Raises:
            ArchiveError: this is not an archive that pg_dump writes.
        """
        if self._toc is None:
            self.head += chunk
        for event in self._reader.feed(chunk):
            self._take(event)

    def result(self) -> tuple[Toc, Contents]:
        """What the archive held. Call it after the last chunk.

        Raises:
            ArchiveError: the archive is cut off.
        """
        self._reader.close()
        if self._toc is None:
            raise AssertionError
        return self._toc, Contents(tuple(self._tables), sequences_of(self._toc), self._objects.content())

    def _take(self, event: Event) -> None:
        if isinstance(event, Data):
            if self._unpacking is None:
                raise AssertionError
            self._unpacking.feed(event.content)
        elif isinstance(event, TocRead):
            self._toc = event.toc
            del self.head[event.end :]
        elif isinstance(event, DataBegins):
            self._begin(event)
        elif isinstance(event, DataEnds):
            self._end()

    def _begin(self, event: DataBegins) -> None:
        if self._toc is None:
            raise AssertionError
        self._entry = event.entry
        if event.large_object is None:
            self._rows = RowsDigest()
            sink = self._rows.feed
        else:
            self._rows = None
            self._objects.begin(event.large_object)
            sink = self._objects.feed
        self._unpacking = decompressor(self._toc.header.compression, sink)

    def _end(self) -> None:
        if self._unpacking is None or self._entry is None:
            raise AssertionError
        self._unpacking.close()
        if self._rows is None:
            self._objects.end()
        else:
            self._tables.append(self._rows.content(self._entry))


def sequences_of(toc: Toc) -> tuple[SequenceContent, ...]:
    """The state of each sequence according to the dump's own statements."""
    return tuple(SequenceContent(e.namespace, e.tag, *e.sequence_value) for e in toc.of_kind(SEQUENCE_SET))
