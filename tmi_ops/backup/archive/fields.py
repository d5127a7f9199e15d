"""The values that an archive consists of: bytes, integers preceded by a sign, texts preceded by their length.

Every length is checked against a bound before memory is allocated for it.
Source: PostgreSQL's src/bin/pg_dump/pg_backup_archiver.c, functions ReadInt, ReadStr, ReadHead and ReadToc.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tmi_ops.backup.archive.toc import ArchiveError, ArchiveHeader, Compression, TocEntry

MAGIC = b"PGDMP"
OLDEST_VERSION, NEWEST_VERSION = (1, 12), (1, 16)
# PostgreSQL allocates no more memory than this for a value (MaxAllocSize), so no text or chunk can be longer.
MAX_LENGTH = 0x3FFFFFFF
MAX_DEPENDENCIES = 1_000_000
CUSTOM_FORMAT, TAR_FORMAT = 1, 3

_ACCESS_METHOD_SINCE, _COMPRESSION_BYTE_SINCE, _RELKIND_SINCE = (1, 14), (1, 15), (1, 16)
# pg_restore opens whatever file an entry names.
_FILE_NAME = re.compile(r"(?:[0-9]{1,10}\.dat|blobs(?:_[0-9]{1,10})?\.toc)?")
_OFFSET_STATES = (1, 2, 3)  # not set, set, no data
_COMPRESSIONS: tuple[Compression, ...] = ("none", "gzip", "lz4", "zstd")
_INTEGER_SIZES = (4, 8)
_TIME_FIELDS = 7


class MoreNeededError(Exception):
    """The input ends within a value."""


@dataclass
class Input:
    """Bytes received and not read yet."""

    buffer: bytearray = field(default_factory=bytearray)
    position: int = 0
    dropped: int = 0

    @property
    def rest(self) -> int:
        return len(self.buffer) - self.position

    @property
    def read(self) -> int:
        """The number of bytes read since the beginning."""
        return self.dropped + self.position

    def add(self, chunk: bytes) -> None:
        del self.buffer[: self.position]
        self.dropped += self.position
        self.position = 0
        self.buffer += chunk

    def take(self, length: int) -> bytes:
        """Exactly `length` bytes.

        Raises:
            MoreNeededError: there are fewer.
        """
        end = self.position + length
        if end > len(self.buffer):
            raise MoreNeededError
        taken = bytes(self.buffer[self.position : end])
        self.position = end
        return taken


@dataclass
class Fields:
    """Reads values from an input. Each method raises MoreNeededError if the input ends within its value."""

    input: Input
    int_size: int = 4

    def byte(self) -> int:
        return self.input.take(1)[0]

    def integer(self) -> int:
        raw = self.input.take(1 + self.int_size)
        value = int.from_bytes(raw[1:], "little")
        return -value if raw[0] else value

    def length(self) -> int:
        """The length of what follows.

        Raises:
            ArchiveError: the length is impossible.
        """
        value = self.integer()
        if not 0 <= value <= MAX_LENGTH:
            raise ArchiveError(f"The dump states an impossible length of {value} bytes.")
        return value

    def text(self) -> str | None:
        """A text as UTF-8 with surrogate escapes; None if null."""
        value = self.integer()
        if value < 0:
            return None
        if value > MAX_LENGTH:
            raise ArchiveError(f"The dump states an impossible text length of {value} bytes.")
        return self.input.take(value).decode("utf-8", "surrogateescape")


def read_header(fields: Fields) -> ArchiveHeader:
    """Read the header, and take the size of integers from it.

    Raises:
        ArchiveError: this is not an archive, or its version is unknown.
    """
    fields.int_size = 4
    if fields.input.take(len(MAGIC)) != MAGIC:
        raise ArchiveError("The dump does not begin with the header of a pg_dump archive.")
    version = (fields.byte(), fields.byte(), fields.byte())
    if not OLDEST_VERSION <= version[:2] <= NEWEST_VERSION:
        raise ArchiveError(
            f"The dump is an archive of version {'.'.join(map(str, version))}; this release reads "
            f"{'.'.join(map(str, OLDEST_VERSION))} to {'.'.join(map(str, NEWEST_VERSION))}.",
            hint="use a newer release of tmi_ops, or the programs of an older PostgreSQL (TMI_OPS_PG_BINDIR)",
        )
    int_size, offset_size, format_ = fields.byte(), fields.byte(), fields.byte()
    if int_size not in _INTEGER_SIZES or offset_size not in _INTEGER_SIZES:
        raise ArchiveError("The dump was written on a machine with a different integer size.")
    fields.int_size = int_size
    compression = _compression(fields, version)
    for _ in range(_TIME_FIELDS):
        fields.integer()
    database, server, pg_dump = (fields.text() or "" for _ in range(3))
    return ArchiveHeader(version, int_size, offset_size, format_, compression, database, server, pg_dump)


def read_entry(fields: Fields, header: ArchiveHeader) -> TocEntry:
    """Read one entry of the table of contents; its texts are not decoded yet.

    Raises:
        ArchiveError: it is not what pg_dump writes.
    """
    version = header.version
    dump_id, had_dumper = fields.integer(), fields.integer()
    if dump_id <= 0:
        raise ArchiveError(f"The dump has an entry with the invalid number {dump_id}.")
    catalogue_oid, oid = _oid(fields), _oid(fields)
    tag, desc = fields.text() or "", fields.text() or ""
    section = fields.integer()
    definition, drop, copy, namespace, tablespace = (fields.text() or "" for _ in range(5))
    access_method = fields.text() or "" if version >= _ACCESS_METHOD_SINCE else ""
    relkind = _relkind(fields.integer()) if version >= _RELKIND_SINCE else ""
    owner = fields.text() or ""
    fields.text()  # whether it has OIDs; none has since PostgreSQL 12
    dependencies = _dependencies(fields)
    file_name = ""
    if header.format == CUSTOM_FORMAT:
        if fields.byte() not in _OFFSET_STATES:
            raise ArchiveError("The dump uses an unknown kind of data offset.")
        fields.input.take(header.offset_size)
    else:
        file_name = fields.text() or ""
        if not _FILE_NAME.fullmatch(file_name):
            raise ArchiveError(
                f"The dump has an entry with the data file {file_name!r}, which is not a name that pg_dump gives."
            )
    return TocEntry(
        dump_id=dump_id,
        has_data=had_dumper != 0,
        catalogue_oid=catalogue_oid,
        oid=oid,
        tag=tag,
        desc=desc,
        section=section,
        definition=definition,
        drop_statement=drop,
        copy_statement=copy,
        namespace=namespace,
        tablespace=tablespace,
        access_method=access_method,
        relkind=relkind,
        owner=owner,
        dependencies=dependencies,
        file_name=file_name,
    )


def _compression(fields: Fields, version: tuple[int, int, int]) -> Compression:
    if version < _COMPRESSION_BYTE_SINCE:
        return "gzip" if fields.integer() != 0 else "none"
    number = fields.byte()
    if number >= len(_COMPRESSIONS):
        raise ArchiveError(f"The dump uses an unknown compression (number {number}).")
    return _COMPRESSIONS[number]


def _oid(fields: Fields) -> int:
    text = fields.text() or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(2**32))):
        raise ArchiveError("The dump has an entry whose OID is not a number.")
    return int(text)


def _relkind(value: int) -> str:
    return chr(value) if 0 < value < 128 else ""


def _dependencies(fields: Fields) -> tuple[int, ...]:
    found: list[int] = []
    while (text := fields.text()) is not None:
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(2**32))):
            raise ArchiveError("The dump has an entry with a dependency that is not a number.")
        found.append(int(text))
        if len(found) > MAX_DEPENDENCIES:
            raise ArchiveError(f"The dump has an entry with more than {MAX_DEPENDENCIES:,} dependencies.")
    return tuple(found)
