"""Reads an archive in the custom format as it streams by: bytes in, events out, without seeking or spooling.

    PGDMP, versions, sizes of integers and offsets, format, compression, times, names     the header
    the number of entries, then each entry's fields                                       the table of contents
    1, dump id, (length, bytes)... 0                                                      a table's data
    3, dump id, (oid, (length, bytes)... 0)... 0                                          large objects

The reader trusts nothing: an unknown block, a block of an entry that does not exist or already had its data, and an end
in the middle are errors. It buffers at most one unfinished entry besides the chunk it was fed.
Source: PostgreSQL's src/bin/pg_dump/pg_backup_custom.c
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

from tmi_ops.backup.archive.fields import CUSTOM_FORMAT, Fields, Input, MoreNeededError, read_entry, read_header
from tmi_ops.backup.archive.toc import LARGE_OBJECTS, TABLE_DATA, WITH_DATA, ArchiveError, Toc, TocEntry, decoded

_KIND_OF_BLOCK = {1: TABLE_DATA, 3: LARGE_OBJECTS}
_OIDS = 1 << 32


@dataclass(frozen=True)
class TocRead:
    """The table of contents is complete; data follow. `end`: bytes of the archive that it and the header took."""

    toc: Toc
    end: int


@dataclass(frozen=True)
class DataBegins:
    """The data of an entry begin: of a table, or of one large object if `large_object` is its oid."""

    entry: TocEntry
    large_object: int | None = None


@dataclass(frozen=True)
class Data:
    """The next piece of the data as stored: compressed as the header says, one stream per DataBegins."""

    content: bytes


@dataclass(frozen=True)
class DataEnds:
    """The data that began last are complete."""


Event = TocRead | DataBegins | Data | DataEnds
_Value = TypeVar("_Value")
# Yields None if more bytes are needed.
_Steps = Generator[Event | None, None, _Value]


class ArchiveReader:
    """Reads one archive: feed it chunk by chunk, then close it."""

    def __init__(self) -> None:
        self._input = Input()
        self._fields = Fields(self._input)
        self._awaited: dict[int, TocEntry] = {}
        self._between_blocks = False
        self._steps = self._read()

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Process the next bytes and yield the events that they complete. Exhaust it before the next call.

        Raises:
            ArchiveError: this is not an archive that pg_dump writes.
        """
        self._input.add(chunk)
        for event in self._steps:
            if event is None:
                return
            yield event

    def close(self) -> None:
        """Declare the end of the input.

        Raises:
            ArchiveError: the archive is cut off, or data of an entry are missing.
        """
        if not self._between_blocks or self._input.rest:
            raise ArchiveError("The dump is cut off.")
        for entry in self._awaited.values():
            raise ArchiveError(f"The dump ends before the data of {entry.namespace}.{entry.tag}.")

    def _read(self) -> _Steps[None]:
        toc = yield from self._toc()
        self._awaited = {entry.dump_id: entry for entry in toc.entries if entry.has_data and entry.desc in WITH_DATA}
        yield TocRead(toc, self._input.read)
        while True:
            self._between_blocks = True
            while not self._input.rest:
                yield None
            self._between_blocks = False
            kind, dump_id = yield from self._whole(lambda: (self._fields.byte(), self._fields.integer()))
            entry = self._awaited.pop(dump_id, None)
            if entry is None or entry.desc != _KIND_OF_BLOCK.get(kind):
                raise ArchiveError(f"The dump has an unexpected block of kind {kind} for entry {dump_id}.")
            yield from self._table(entry) if entry.desc == TABLE_DATA else self._large_objects(entry)

    def _toc(self) -> _Steps[Toc]:
        header = yield from self._whole(lambda: read_header(self._fields))
        if header.format != CUSTOM_FORMAT:
            raise ArchiveError("The dump is not in the custom format.")
        count = yield from self._whole(self._fields.integer)
        entries: list[TocEntry] = []
        while len(entries) < count:
            entries.append((yield from self._whole(lambda: read_entry(self._fields, header))))
        return decoded(header, tuple(entries))

    def _table(self, entry: TocEntry) -> _Steps[None]:
        yield DataBegins(entry)
        yield from self._chunks()
        yield DataEnds()

    def _large_objects(self, entry: TocEntry) -> _Steps[None]:
        while oid := (yield from self._whole(self._fields.integer)):
            yield DataBegins(entry, oid % _OIDS)  # those above 2^31 are written as negative numbers
            yield from self._chunks()
            yield DataEnds()

    def _chunks(self) -> _Steps[None]:
        """Read chunks up to the empty one. Uncompressed, each row is a chunk, so available chunks become one event."""
        left, ended = 0, False
        while not ended:
            pieces: list[bytes] = []
            while not ended:
                if left == 0:
                    try:
                        left = self._fields.length()
                    except MoreNeededError:
                        break
                    ended = left == 0
                piece = self._input.take(min(left, self._input.rest))
                pieces.append(piece)
                left -= len(piece)
                if left:
                    break
            if content := b"".join(pieces):
                yield Data(content)
            if not ended:
                yield None

    def _whole(self, read: Callable[[], _Value]) -> _Steps[_Value]:
        """The result of `read`, restarted at its first byte each time that more bytes have arrived."""
        while True:
            start = self._input.position
            try:
                return read()
            except MoreNeededError:
                self._input.position = start
                yield None
