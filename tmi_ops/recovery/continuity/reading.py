"""Reads the archive's objects: either their metadata, which says how segments continue each other, or their content.

Names and sizes come with the listing. If the metadata says nothing, the header is read from the object's beginning:
zstd returns its first block only when it has all of it, at most 128 KiB. Encrypted objects would have to be read
completely.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import zstandard

from tmi_ops.errors import IntegrityError, ObjectMissingError
from tmi_ops.postgres.wal_files import LONG_HEADER_SIZE, check_header
from tmi_ops.postgres.wal_records import read_records
from tmi_ops.progress import Report
from tmi_ops.store.backend import ObjectHead
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.small_objects import is_sealed, look
from tmi_ops.store.stamped import require_stamp
from tmi_ops.store.trust import UntrustedError
from tmi_ops.wal.archive import ArchivedPartial, WalArchive
from tmi_ops.wal.chapters import keep_chapters, read_chapters
from tmi_ops.wal.fetching import check_content, load_file
from tmi_ops.wal.layout import file_key
from tmi_ops.wal.links import Links, links_from, links_of
from tmi_ops.wal.runs import ArchivedSegment
from tmi_ops.wal.stored_file import sha256_of

READERS = 8
FIRST_BLOCK = (128 << 10) + 64
_AT_ONCE = 512

ArchivedFile = ArchivedSegment | ArchivedPartial


@dataclass(frozen=True)
class Reading:
    """The result of reading the archive.

    Args:
        headers: number of segments whose headers were checked because they had no metadata.
        contents: number of files that were read completely and verified by SHA-256.
        sealed: number of encrypted files whose header was not checked.
        damaged: names of damaged files, and why.
        links: how each file, by name, continues the one before it, with the SHA-256 of its plain bytes.
    """

    headers: int
    contents: int
    sealed: int
    damaged: Mapping[str, str]
    links: Mapping[str, tuple[Links, str | None]] = field(default_factory=dict)


def read_links(store: ObjectStore, archive: WalArchive, report: Report) -> Reading:
    """Read from the metadata how every archived segment continues the one before it.

    Segments without metadata, from older releases, have their header checked instead: cluster, position, timeline and
    segment size.

    Raises:
        StoreError: the store failed.
    """
    return _read(store, archive, report, deep=False)


def read_contents(store: ObjectStore, archive: WalArchive, report: Report) -> Reading:
    """Read every archived segment completely: SHA-256, size, header, and the records at its ends.

    Raises:
        StoreError: the store failed, or the private key for encrypted objects is missing.
    """
    return _read(store, archive, report, deep=True)


def _read(store: ObjectStore, archive: WalArchive, report: Report, *, deep: bool) -> Reading:
    files = list(files_in(archive))
    found: dict[str, _Looked] = {}
    listed = [(file.segment, file.seen) for file in files if isinstance(file, ArchivedSegment) and file.seen]
    told = {} if deep else read_chapters(store, archive.system_identifier, listed)

    def look_at(file: ArchivedFile) -> tuple[ArchivedFile, _Looked]:
        if isinstance(file, ArchivedSegment) and (metadata := told.get(file.segment)) is not None:
            return file, _judged(store, archive, file, metadata)
        return file, (_look_within if deep else _look_at_metadata)(store, archive, file)

    with (
        report.phase("reading WAL" if deep else "reading links", total=len(files), unit="objects") as phase,
        ThreadPoolExecutor(READERS, thread_name_prefix="archive") as pool,
    ):
        remaining = iter(files)
        while batch := list(itertools.islice(remaining, _AT_ONCE)):
            for file, looked in pool.map(look_at, batch):
                phase.advance(1)
                found[file.name] = looked
    looked_at = {file.segment: found[file.name] for file in files if isinstance(file, ArchivedSegment)}
    heads = {segment: one.head for segment, one in looked_at.items() if one.head is not None}
    keep_chapters(store, archive.system_identifier, heads, (place for place, one in looked_at.items() if one.links))
    sealed = sum(looked.sealed for looked in found.values())
    return Reading(
        headers=sum(looked.header for looked in found.values()),
        contents=len(files) if deep else 0,
        sealed=sealed,
        damaged={name: looked.problem for name, looked in found.items() if looked.problem is not None},
        links={name: (looked.links, looked.sha256) for name, looked in found.items() if looked.links is not None},
    )


@dataclass(frozen=True)
class _Looked:
    """The result for one file. `problem`: why it is damaged. `head`: of the object, if it was requested."""

    problem: str | None = None
    links: Links | None = None
    sha256: str | None = None
    sealed: bool = False
    header: bool = False
    head: ObjectHead | None = None


def files_in(archive: WalArchive) -> Iterator[ArchivedFile]:
    """All files, timeline by timeline."""
    for timeline in archive.timelines:
        yield from archive.segments.get(timeline, ())
        yield from archive.partials.get(timeline, ())


def _look_within(store: ObjectStore, archive: WalArchive, file: ArchivedFile) -> _Looked:
    try:
        content, facts = load_file(store, archive.system_identifier, file.name)
        check_content(content, file.segment.name, archive.system_identifier)
    except ObjectMissingError:
        return _Looked(_gone(file))
    except (IntegrityError, UntrustedError) as error:
        return _Looked(error.message)
    end = file.end_lsn if isinstance(file, ArchivedPartial) else None
    own = links_from(read_records(content, end), levels_read=True)
    head = look(store, _key(archive, file))
    told = links_of({} if head is None else head.metadata)
    # The chain is known only to the segment's writer.
    sha256 = None if end is not None else facts.sha256 or hashlib.sha256(content).hexdigest()
    return _Looked(links=replace(own, chain=told.chain), sha256=sha256)


def _look_at_metadata(store: ObjectStore, archive: WalArchive, file: ArchivedFile) -> _Looked:
    if file.size == 0:
        return _Looked(f"{file.name} is an empty object.")
    head = look(store, _key(archive, file))
    if head is None:
        return _Looked(_gone(file))
    return replace(_judged(store, archive, file, head.metadata), head=head)


def _judged(store: ObjectStore, archive: WalArchive, file: ArchivedFile, metadata: Mapping[str, str]) -> _Looked:
    try:
        require_stamp(store, _key(archive, file), metadata, None, "WAL")
    except UntrustedError as error:
        return _Looked(error.message)
    links = links_of(metadata)
    if links.last is None and _key(archive, file) == file_key(archive.system_identifier, file.name):
        return _look_at_header(store, archive, file)
    return _Looked(links=links, sha256=None if isinstance(file, ArchivedPartial) else sha256_of(metadata))


def _look_at_header(store: ObjectStore, archive: WalArchive, file: ArchivedFile) -> _Looked:
    try:
        beginning = store.backend.get_beginning(file_key(archive.system_identifier, file.name), FIRST_BLOCK)
        if is_sealed(beginning):
            return _Looked(sealed=True)
        check_header(_first_bytes(beginning, file.name), file.segment, archive.system_identifier, file.name)
    except ObjectMissingError:
        return _Looked(_gone(file))
    except IntegrityError as error:
        return _Looked(error.message, header=True)
    return _Looked(header=True)


def _key(archive: WalArchive, file: ArchivedFile) -> str:
    """The key of the object that has the file's metadata."""
    told = file.key if isinstance(file, ArchivedPartial) else ""
    return told or file_key(archive.system_identifier, file.name)


def _gone(file: ArchivedFile) -> str | None:
    """A partial is removed once its segment is complete; a complete segment that disappears is lost."""
    if isinstance(file, ArchivedPartial):
        return None
    return f"{file.name} disappeared while it was being read."


def _first_bytes(beginning: bytes, name: str) -> bytes:
    try:
        with zstandard.ZstdDecompressor().stream_reader(beginning) as reader:
            return bytes(reader.read(LONG_HEADER_SIZE))
    except zstandard.ZstdError as error:
        raise IntegrityError(f"{name} cannot be decompressed ({error}).") from error
