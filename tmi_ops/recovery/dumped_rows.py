"""Reads the rows of one table from a fetched dump of any format, as COPY writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import zstandard

from tmi_ops.backup.archive.contents import END_OF_ROWS, TableContent
from tmi_ops.backup.archive.decompression import decompressor
from tmi_ops.backup.archive.files import READ_SIZE, chunks_of, read_toc
from tmi_ops.backup.archive.reader import ArchiveReader, Data, DataBegins, DataEnds, TocRead
from tmi_ops.backup.archive.toc import TABLE_DATA, ArchiveError, Compression, TocEntry
from tmi_ops.backup.contents import written_name
from tmi_ops.backup.copying import TOC_OBJECT
from tmi_ops.recovery.fetch import FetchedBackup

_END = END_OF_ROWS[:3]  # the line that ends COPY's data


def dumped_rows(fetched: FetchedBackup, table: TableContent) -> Iterator[bytes]:
    """The table's rows, in pieces that may end anywhere.

    Raises:
        ArchiveError: the dump does not contain them, or is damaged.
    """
    if fetched.manifest.format == "plain":
        return _of_script(fetched, table)
    if fetched.dump.is_dir():
        return _without_end(_of_directory(fetched.dump, table))
    return _without_end(_of_archive(fetched.dump, table))


def _of_archive(dump: Path, table: TableContent) -> Iterator[bytes]:
    reader = ArchiveReader()
    compression: Compression = "none"
    unpack: Callable[[bytes], None] | None = None
    pieces: list[bytes] = []
    for chunk in chunks_of(dump):
        for event in reader.feed(chunk):
            if isinstance(event, TocRead):
                compression = event.toc.header.compression
            elif isinstance(event, DataBegins):
                if event.large_object is None and _is_of(event.entry, table):
                    unpack = decompressor(compression, pieces.append).feed
            elif unpack is not None and isinstance(event, Data):
                unpack(event.content)
                yield from pieces
                pieces.clear()
            elif unpack is not None and isinstance(event, DataEnds):
                return
    raise _no_rows(table)


def _of_directory(dump: Path, table: TableContent) -> Iterator[bytes]:
    toc = read_toc(dump)
    entry = next((entry for entry in toc.of_kind(TABLE_DATA) if _is_of(entry, table)), None)
    if entry is None:
        raise _no_rows(table)
    pieces: list[bytes] = []
    unpacking = decompressor(toc.header.compression, pieces.append)
    (file,) = dump.glob(f"{entry.dump_id}.dat*")
    for chunk in chunks_of(file):
        unpacking.feed(chunk)
        yield from pieces
        pieces.clear()


def _of_script(fetched: FetchedBackup, table: TableContent) -> Iterator[bytes]:
    """The lines after the table's COPY statement. A function's body may contain the same line; the digest recorded when
    the script was made tells them apart."""
    toc = read_toc(fetched.path(TOC_OBJECT))
    entry = next((entry for entry in toc.of_kind(TABLE_DATA) if _is_of(entry, table)), None)
    if entry is None:
        raise _no_rows(table)
    begin = entry.copy_statement.encode(errors="surrogateescape")
    place = _place_in_script(fetched.dump, begin, table.sha256)
    if place is None:
        raise _no_rows(table)
    for number, line in enumerate(_script(fetched.dump)):
        if number > place and line == _END:
            return
        if number > place:
            yield line


def _place_in_script(script: Path, begin: bytes, sha256: str) -> int | None:
    """The number, from 0, of the line after which the rows with this digest begin."""
    candidates: dict[int, hashlib._Hash] = {}
    for number, line in enumerate(_script(script)):
        if line == _END:
            for place, digest in candidates.items():
                if digest.hexdigest() == sha256:
                    return place
            candidates.clear()
        for digest in candidates.values():
            digest.update(line)
        if line == begin:
            candidates[number] = hashlib.sha256()
    return None


def _script(script: Path) -> Iterator[bytes]:
    with script.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        yield from _lines(iter(lambda: stream.read(READ_SIZE), b""))


def _no_rows(table: TableContent) -> ArchiveError:
    return ArchiveError(f"The dump contains no rows of {written_name(table.schema, table.name)}.")


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines, including their line ends."""
    begun: list[bytes] = []
    for chunk in chunks:
        first, *more = chunk.split(b"\n")
        begun.append(first)
        for piece in more:
            yield b"".join(begun) + b"\n"
            begun = [piece]


def _without_end(pieces: Iterable[bytes]) -> Iterator[bytes]:
    held = b""
    for piece in pieces:
        held += piece
        yield held[: -len(END_OF_ROWS)]
        held = held[-len(END_OF_ROWS) :]


def _is_of(entry: TocEntry, table: TableContent) -> bool:
    return (entry.namespace, entry.tag) == (table.schema, table.name)
