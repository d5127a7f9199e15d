"""Reading PostgreSQL's base backups: a tar inside zstd, straight from the store's chunks into files.

Only what PostgreSQL puts into a base backup is understood: directories, files, and the symbolic links of tablespaces,
which are left out (where they point to is decided by the restore). Anything else is refused, and so is a path that
leads out of the target.
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
# Behind the end of a tar there is padding, to a record of 10 KiB at most.
MOST_TRAILING = 1 << 20
DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
_FULL = (errno.ENOSPC, errno.EDQUOT)


def extract(chunks: Iterator[bytes], target: Path, what: str, *, limit: int | None = None) -> int:
    """Extract a zstd-compressed tar into the directory `target`, which exists.

    Args:
        chunks: its compressed bytes, read to their end.
        what: the archive in words, for messages.
        limit: the most bytes that its files may have; None: as many as it says. No byte beyond it is written.

    Returns:
        Bytes of the files.

    Raises:
        IntegrityError: it is no such tar, or it is cut.
        DiskSpaceError: the disk is full.
    """
    plain = _Plain(chunks, what)
    written = members = 0
    while (header := plain.read(BLOCK)) != bytes(BLOCK):
        member = _parse(header, what)
        members += 1
        if limit is not None and (written + member.size > limit or members > _most_members(limit)):
            raise IntegrityError(f"{what} holds more than the {limit:,} bytes of files that were backed up.")
        path = target / _inside(member.name, what)
        try:
            if member.isdir():
                path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            elif member.isreg():
                _write(path, plain, member.size)
                plain.read(-member.size % BLOCK)
            elif not (member.issym() and path.parent.name == "pg_tblspc"):
                raise IntegrityError(f"{what} holds {member.name!r}, which is neither a file nor a directory.")
        except OSError as error:
            raise disk_failed(error, path) from error
        if member.isreg():
            written += member.size
    plain.drain()
    return written


def _most_members(limit: int) -> int:
    """More files and directories than any cluster of that size has."""
    return 100_000 + limit // BLOCK


def disk_failed(error: OSError, path: Path) -> Exception:
    """What writing `path` failed with, for a person; the error itself where it is none of a full disk."""
    if error.errno not in _FULL:
        return error
    return DiskSpaceError(
        f"The disk of {path} is full.",
        detail="What was restored so far was removed again; the backups are untouched.",
        hint="free some space there, or restore into a directory on a larger disk (--into)",
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
        raise IntegrityError(f"{what} is not a tar as PostgreSQL writes it: {error}.") from error
    if member.size < 0 or (member.size and not member.isreg()):
        raise IntegrityError(f"{what} is not a tar as PostgreSQL writes it: {member.name!r} has {member.size} bytes.")
    return member


def _inside(name: str, what: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise IntegrityError(f"{what} holds a path that leads out of it: {name!r}.")
    return path


class _Plain:
    """The decompressed bytes, in the pieces that are asked for; never much more than one chunk in memory."""

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
        """Exactly `size` bytes, piece by piece."""
        while size:
            if not self._rest:
                self._rest = memoryview(self._next())
            piece = self._rest[:size]
            self._rest = self._rest[len(piece) :]
            size -= len(piece)
            yield piece

    def drain(self) -> None:
        """Read what follows the tar's end, so that the source can check that it is whole."""
        trailing = len(self._rest)
        while chunk := self._decompressed():
            trailing += len(chunk)
            if trailing > MOST_TRAILING:
                raise IntegrityError(f"{self._what} goes on behind its end.")
        self._source.drain()

    def _next(self) -> bytes:
        if chunk := self._decompressed():
            return chunk
        raise IntegrityError(f"{self._what} ends in the middle.")

    def _decompressed(self) -> bytes:
        try:
            return bytes(self._reader.read(PLAIN_CHUNK))
        except zstandard.ZstdError as error:
            raise IntegrityError(f"{self._what} cannot be decompressed: {error}.") from error


class _ChunkFile:
    """An iterator of chunks as a file to read from."""

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
