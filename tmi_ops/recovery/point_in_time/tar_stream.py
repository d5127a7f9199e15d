"""Extracts PostgreSQL's base backups, zstd-compressed tars, directly from the store's chunks into files.

Accepts only what PostgreSQL puts into a base backup: directories, files, and the symbolic links of tablespaces, which
are skipped (the restore decides where they point). Everything else is refused, as are paths that lead out of the
target.
"""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

import zstandard

from tmi_ops.errors import DiskSpaceError, IntegrityError

BLOCK = 512
PLAIN_CHUNK = 1 << 20
# A tar is padded at its end, to a record of 10 KiB at most.
MOST_TRAILING = 1 << 20
DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
_FULL = (errno.ENOSPC, errno.EDQUOT)


def extract(chunks: Iterator[bytes], target: Path, what: str, *, limit: int | None = None) -> int:
    """Extract a zstd-compressed tar into the existing directory `target`.

    Args:
        chunks: its compressed bytes, read to the end.
        what: name of the archive, for messages.
        limit: maximum size of its files in bytes; nothing beyond it is written. None for no limit.

    Returns:
        Bytes of the files.

    Raises:
        IntegrityError: it is not such a tar, or is truncated.
        DiskSpaceError: the disk is full.
    """
    plain = _Plain(chunks, what)
    written = members = 0
    while (header := plain.read(BLOCK)) != bytes(BLOCK):
        member = _parse(header, what)
        members += 1
        if limit is not None and (written + member.size > limit or members > _most_members(limit)):
            raise IntegrityError(f"{what} contains more than the {limit:,} bytes of files that were backed up.")
        path = target / _inside(member.name, what)
        try:
            if member.isdir():
                path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            elif member.isreg():
                _write(path, plain, member.size)
                plain.read(-member.size % BLOCK)
            elif not (member.issym() and path.parent.name == "pg_tblspc"):
                raise IntegrityError(f"{what} contains {member.name!r}, which is neither a file nor a directory.")
        except OSError as error:
            raise disk_failed(error, path) from error
        if member.isreg():
            written += member.size
    plain.drain()
    return written


def _most_members(limit: int) -> int:
    """Upper limit for the number of files and directories in a cluster of that size."""
    return 100_000 + limit // BLOCK


def disk_failed(error: OSError, path: Path) -> Exception:
    """A DiskSpaceError if writing `path` failed because the disk is full; else the error itself."""
    if error.errno not in _FULL:
        return error
    return DiskSpaceError(
        f"The disk of {path} is full.",
        detail="What was restored so far was removed again; the backups are untouched.",
        hint="free some space there, or restore to a larger disk (--into)",
    )


def _write(path: Path, plain: _Plain, size: int) -> None:
    path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE), "wb", buffering=0) as file:
        for piece in plain.pieces(size):
            rest = memoryview(piece)
            while rest:
                rest = rest[file.write(rest) :]


def _parse(header: bytes, what: str) -> tarfile.TarInfo:
    try:
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        raise IntegrityError(f"{what} is not a tar written by PostgreSQL: {error}.") from error
    if member.size < 0 or (member.size and not member.isreg()):
        raise IntegrityError(f"{what} is not a tar written by PostgreSQL: {member.name!r} has {member.size} bytes.")
    return member


def _inside(name: str, what: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise IntegrityError(f"{what} contains a path that leads out of it: {name!r}.")
    return path


class _Plain:
    """The decompressed bytes; never much more than one chunk in memory."""

    def __init__(self, chunks: Iterator[bytes], what: str) -> None:
        self._what = what
        self._source = _ChunkFile(chunks)
        self._reader = zstandard.ZstdDecompressor().stream_reader(
            cast("IO[bytes]", self._source), read_size=PLAIN_CHUNK, read_across_frames=True
        )
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Exactly `size` bytes, in pieces."""
        while size:
            if not self._rest:
                self._rest = memoryview(self._next())
            piece = self._rest[:size]
            self._rest = self._rest[len(piece) :]
            size -= len(piece)
            yield piece

    def drain(self) -> None:
        """Read to the end of the source, so that it can verify its checksum."""
        trailing = len(self._rest)
        while chunk := self._decompressed():
            trailing += len(chunk)
            if trailing > MOST_TRAILING:
                raise IntegrityError(f"{self._what} continues after its end.")
        self._source.drain()

    def _next(self) -> bytes:
        if chunk := self._decompressed():
            return chunk
        raise IntegrityError(f"{self._what} is truncated.")

    def _decompressed(self) -> bytes:
        try:
            return bytes(self._reader.read(PLAIN_CHUNK))
        except zstandard.ZstdError as error:
            raise IntegrityError(f"{self._what} cannot be decompressed: {error}.") from error


class _ChunkFile:
    """A readable file made from an iterator of chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        piece = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(piece) :]
        return bytes(piece)

    def drain(self) -> None:
        for _ in self._chunks:
            pass
