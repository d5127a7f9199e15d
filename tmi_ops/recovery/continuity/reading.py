"""Looks at the archive's objects themselves: the header of each segment, or all of it.

Names and sizes come with the listing. A header takes one small read of the object's beginning: zstd gives out its
first block only when it has all of it, at most 128 KiB. What is encrypted can only be read whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import zstandard

from tmi_ops.errors import IntegrityError, ObjectMissingError
from tmi_ops.postgres.wal_files import LONG_HEADER_SIZE, check_header
from tmi_ops.progress import Report
from tmi_ops.store.client import refusals_explained
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.single_put import is_sealed
from tmi_ops.wal.archive import ArchivedPartial, ArchivedSegment, WalArchive, check_content
from tmi_ops.wal.layout import file_key
from tmi_ops.wal.stored_file import load

READERS = 8
FIRST_BLOCK = (128 << 10) + 64
_AT_ONCE = 512

ArchivedFile = ArchivedSegment | ArchivedPartial


@dataclass(frozen=True)
class Reading:
    """What was looked at.

    Args:
        headers: how many segments' headers were checked.
        contents: how many files were read whole and checked against their SHA-256.
        sealed: how many are encrypted, so that their header was not looked at.
        damaged: names of files that are not what they must be, and why.
    """

    headers: int
    contents: int
    sealed: int
    damaged: Mapping[str, str]


def read_headers(store: ObjectStore, archive: WalArchive, report: Report) -> Reading:
    """Check the header of every archived segment: its cluster, place, timeline and segment size.

    Raises:
        StoreError: the store failed.
    """
    return _read(store, archive, report, deep=False)


def read_contents(store: ObjectStore, archive: WalArchive, report: Report) -> Reading:
    """Read every archived segment whole: SHA-256, size, header.

    Raises:
        StoreError: the store failed, or what is encrypted cannot be read because the private key is missing.
    """
    return _read(store, archive, report, deep=True)


def _read(store: ObjectStore, archive: WalArchive, report: Report, *, deep: bool) -> Reading:
    files = list(files_in(archive))
    damaged: dict[str, str] = {}
    sealed = 0

    def look_at(file: ArchivedFile) -> tuple[ArchivedFile, str | None]:
        return file, (_problem_within if deep else _problem_of_header)(store, archive, file)

    with (
        report.phase("reading WAL" if deep else "reading headers", total=len(files), unit="objects") as phase,
        ThreadPoolExecutor(READERS, thread_name_prefix="archive") as pool,
    ):
        remaining = iter(files)
        while batch := list(itertools.islice(remaining, _AT_ONCE)):
            for file, problem in pool.map(look_at, batch):
                phase.advance(1)
                if problem == _SEALED:
                    sealed += 1
                elif problem is not None:
                    damaged[file.name] = problem
    return Reading(0 if deep else len(files) - sealed, len(files) if deep else 0, sealed, damaged)


def files_in(archive: WalArchive) -> Iterator[ArchivedFile]:
    """All of it, timeline by timeline."""
    for timeline in archive.timelines:
        yield from archive.segments.get(timeline, ())
        yield from archive.partials.get(timeline, ())


_SEALED = "encrypted"
_CLEARED_AWAY = None


def _problem_within(store: ObjectStore, archive: WalArchive, file: ArchivedFile) -> str | None:
    try:
        content, _ = load(store, archive.system_identifier, file.name)
        check_content(content, file.segment.name, archive.system_identifier)
    except ObjectMissingError:
        return _gone(file)
    except IntegrityError as error:
        return error.what
    return None


def _problem_of_header(store: ObjectStore, archive: WalArchive, file: ArchivedFile) -> str | None:
    if file.size == 0:
        return f"{file.name} is an empty object."
    try:
        beginning = _beginning(store, file_key(archive.system_identifier, file.name))
        if is_sealed(beginning):
            return _SEALED
        check_header(_first_bytes(beginning, file.name), file.segment, archive.system_identifier, file.name)
    except ObjectMissingError:
        return _gone(file)
    except IntegrityError as error:
        return error.what
    return None


def _gone(file: ArchivedFile) -> str | None:
    """An open segment is cleared away once it is there whole; a whole one that goes is lost."""
    if isinstance(file, ArchivedPartial):
        return _CLEARED_AWAY
    return f"{file.name} went away while it was looked at."


def _beginning(store: ObjectStore, key: str) -> bytes:
    with refusals_explained(store.where, key):
        answer: Any = store.client.get_object(
            Bucket=store.bucket, Key=f"{store.root}{key}", Range=f"bytes=0-{FIRST_BLOCK - 1}"
        )
        return bytes(answer["Body"].read())


def _first_bytes(beginning: bytes, name: str) -> bytes:
    try:
        with zstandard.ZstdDecompressor().stream_reader(beginning) as reader:
            return bytes(reader.read(LONG_HEADER_SIZE))
    except zstandard.ZstdError as error:
        raise IntegrityError(f"{name} cannot be decompressed ({error}).") from error
