"""Compares a restored copy with its source: every table's rows, every object's definition, every sequence."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import zstandard

from tmi_ops.backup import fingerprint
from tmi_ops.backup.archive.contents import END_OF_ROWS, TableContent
from tmi_ops.backup.archive.decompression import decompressor
from tmi_ops.backup.archive.files import READ_SIZE, chunks_of, read_toc
from tmi_ops.backup.archive.reader import ArchiveReader, Data, DataBegins, DataEnds, TocRead
from tmi_ops.backup.archive.toc import TABLE_DATA, ArchiveError, Compression, TocEntry
from tmi_ops.backup.contents import CONTENTS_OBJECT, fingerprints_of, parse_contents, written_name
from tmi_ops.backup.copying import TOC_OBJECT
from tmi_ops.backup.counting import count_database
from tmi_ops.backup.definitions import definitions_of, live_definitions
from tmi_ops.backup.fingerprint import fingerprint_tables, read_sequences
from tmi_ops.backup.snapshot import list_tables, pin_text_output
from tmi_ops.backup.undumped import read_facts
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.versions import major_of
from tmi_ops.progress import Report
from tmi_ops.recovery.contents import differing_large_objects, differing_sequences, differing_tables, live_rows
from tmi_ops.recovery.definitions import compare_definitions, compare_facts
from tmi_ops.recovery.fetch import FetchedBackup
from tmi_ops.recovery.objects import compare_objects
from tmi_ops.recovery.trees import Majors
from tmi_ops.settings import PostgresSettings
from tmi_ops.store.manifest import SequenceRange, TableFingerprint

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
    """The lines after the table's COPY statement.

    A function's body may contain the same line; the digest recorded when the script was made tells them apart.
    """
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


@dataclass(frozen=True)
class Comparison:
    """The differences between a restored copy and its source, one sentence each; equal if there are none.

    `notes`: differences of the server, such as another version of an extension.
    """

    differences: tuple[str, ...]
    fingerprints: dict[str, TableFingerprint]
    notes: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        return not self.differences

    @property
    def rows(self) -> int:
        return sum(fingerprint.rows for fingerprint in self.fingerprints.values())


def compare_with_source(
    address: PostgresSettings, fetched: FetchedBackup, programs: Programs, report: Report
) -> Comparison:
    """Compare the restored database that `address` names with the backup.

    For a schema-only backup, only objects are compared.

    Args:
        programs: at least as new as the server at `address`.
    """
    manifest = fetched.manifest
    if manifest.format == "schema-only":
        objects = compare_objects(address, fetched, live_definitions(address, programs))
        return Comparison(objects.differences, {}, objects.notes)
    if manifest.digest_method == "copy":
        return _compare_contents(address, fetched, programs, report)
    objects = compare_objects(address, fetched, live_definitions(address, programs))
    rows = _compare_records(address, fetched, report)
    return Comparison((*objects.differences, *rows.differences), rows.fingerprints, objects.notes)


def _compare_contents(
    address: PostgresSettings, fetched: FetchedBackup, programs: Programs, report: Report
) -> Comparison:
    source = parse_contents(fetched.path(CONTENTS_OBJECT).read_bytes())
    with report.phase("compare", total=1, unit="steps") as phase:
        toc, copy = count_database(address, programs)
        phase.advance(1)
    objects = compare_objects(address, fetched, definitions_of(toc))
    with connect(address) as connection:
        pin_text_output(connection)
        differences = differing_tables(
            connection,
            source,
            copy,
            fetched.manifest.encoding,
            lambda table: dumped_rows(fetched, table),
            name_keys=not fetched.manifest.encrypted,
        )
    differences += differing_sequences(source.sequences, copy.sequences)
    differences += differing_large_objects(source, copy)
    return Comparison((*objects.differences, *differences), fingerprints_of(copy), objects.notes)


def _compare_records(address: PostgresSettings, fetched: FetchedBackup, report: Report) -> Comparison:
    """For backups of earlier releases, whose digests were computed by reading every row again with SQL."""
    manifest = fetched.manifest
    with connect(address) as connection:
        pin_text_output(connection)
        fingerprints = fingerprint_tables(connection, list_tables(connection), report)
        differences = fingerprint.differing_tables(manifest.fingerprints, fingerprints)
        differences += differing_values(manifest.sequences, read_sequences(connection))
    return Comparison(tuple(differences), fingerprints)


def compare_databases(
    source: PostgresSettings, copy: PostgresSettings, programs: Programs, report: Report
) -> Comparison:
    """Compare two running databases without concurrent writes: every definition, row, sequence and large object.

    Each is dumped once and counted like a backup (`backup/counting.py`).

    Args:
        programs: at least as new as either server.
    """
    with report.phase("compare", total=2, unit="steps") as phase:
        toc, contents = count_database(source, programs)
        phase.advance(1)
        copied_toc, copied = count_database(copy, programs)
        phase.advance(1)
    with connect(source) as before, connect(copy) as after:
        for connection in (before, after):
            pin_text_output(connection)
        majors = Majors(_major(before), _major(after))
        objects = compare_definitions(definitions_of(toc), definitions_of(copied_toc), majors)
        objects += compare_facts(read_facts(before), read_facts(after))
        rows = differing_tables(
            after,
            contents,
            copied,
            toc.encoding,
            lambda table: iter(live_rows(before, table, toc.encoding)),
            name_keys=True,
        )
    sequences = differing_sequences(contents.sequences, copied.sequences)
    differences = (*objects.differences, *rows, *sequences, *differing_large_objects(contents, copied))
    return Comparison(differences, fingerprints_of(copied), objects.notes)


def _major(connection: psycopg.Connection[Any]) -> int:
    return major_of(connection.info.server_version)


def differing_values(source: dict[str, SequenceRange], copy: dict[str, int]) -> list[str]:
    """Sequences of the copy whose value is outside the range the source could have had at the time of the dump."""
    differences = []
    for name, bounds in sorted(source.items()):
        low, high = sorted((bounds.before, bounds.after))
        value = copy.get(name)
        if value is None:
            differences.append(f"sequence {name} is missing from the restored copy")
        elif not low <= value <= high:
            differences.append(f"sequence {name} is at {value}, in the source it was between {low} and {high}")
    return differences
