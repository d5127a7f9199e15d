"""The header and table of contents of a pg_dump archive, as values.

Source: PostgreSQL's src/bin/pg_dump/pg_backup_archiver.c, functions ReadHead and ReadToc.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

from tmi_ops.error_codes import Code
from tmi_ops.errors import BackupError

Compression = Literal["none", "gzip", "lz4", "zstd"]

TABLE_DATA = "TABLE DATA"
LARGE_OBJECTS = "BLOBS"
SEQUENCE_SET = "SEQUENCE SET"
# Entries whose data are in blocks of their own after the table of contents.
WITH_DATA = frozenset({TABLE_DATA, LARGE_OBJECTS})

_ENCODING = re.compile(r"SET client_encoding = '([^']+)';")
_SETVAL = re.compile(r", (-?\d+)(?:, (true|false))?\);\s*\Z")
_COPY = re.compile(r"\ACOPY .*? FROM stdin;\s*\Z", re.DOTALL)
_COLUMN = re.compile(r'(?:"((?:[^"]|"")*)"|([^\s",()]+))\s*(?:,\s*|\Z)')


class ArchiveError(BackupError):
    """The bytes are not a pg_dump archive that we can read: damaged, cut off, or of another version."""

    default_code = Code.ARCHIVE_FORMAT


@dataclass(frozen=True)
class ArchiveHeader:
    """What precedes the table of contents. `server_version` and `pg_dump_version` are as those programs report them."""

    version: tuple[int, int, int]
    int_size: int
    offset_size: int
    format: int
    compression: Compression
    database: str
    server_version: str
    pg_dump_version: str


@dataclass(frozen=True)
class TocEntry:
    """One entry: an object's definition, or its data.

    `tag` is the object's name by which pg_dump identifies it within `namespace` and `desc` (its kind): not quoted for
    tables and sequences. `section`: 1 none, 2 pre-data, 3 data, 4 post-data. `relkind` and `file_name` (of its data, in
    the directory format) are "" if the archive has none.
    """

    dump_id: int
    has_data: bool
    catalogue_oid: int
    oid: int
    tag: str
    desc: str
    section: int
    definition: str
    drop_statement: str
    copy_statement: str
    namespace: str
    tablespace: str
    access_method: str
    relkind: str
    owner: str
    dependencies: tuple[int, ...]
    file_name: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a TABLE DATA entry in the order of its data, unquoted.

        Raises:
            ArchiveError: its COPY statement is not one of pg_dump's.
        """
        return copied_columns(self.copy_statement)

    @property
    def sequence_value(self) -> tuple[int, bool]:
        """Of a SEQUENCE SET entry: the last value, and whether it was handed out.

        Raises:
            ArchiveError: its statement is not one of pg_dump's.
        """
        match = _SETVAL.search(self.definition)
        if match is None:
            raise ArchiveError(f"The sequence {self.namespace}.{self.tag} is set by an unknown statement.")
        return int(match[1]), match[2] != "false"


@dataclass(frozen=True)
class Toc:
    """An archive's header and its entries, in restore order. Texts are decoded from the dump's encoding."""

    header: ArchiveHeader
    entries: tuple[TocEntry, ...]

    @property
    def encoding(self) -> str:
        """PostgreSQL's name for the encoding of texts and data."""
        return _encoding_of(self.entries)

    def of_kind(self, desc: str) -> Iterator[TocEntry]:
        """The entries of one kind, for example `TABLE` or `SEQUENCE SET`."""
        return (entry for entry in self.entries if entry.desc == desc)


def decoded(header: ArchiveHeader, raw: tuple[TocEntry, ...]) -> Toc:
    """The table of contents with its texts decoded; in `raw` they are UTF-8 with surrogate escapes."""
    codec = _codec(_encoding_of(raw))
    if codec is None:
        return Toc(header, raw)
    return Toc(header, tuple(_decoded_entry(entry, codec) for entry in raw))


def copied_columns(copy_statement: str) -> tuple[str, ...]:
    """The column list of pg_dump's `COPY schema.table (a, "b c") FROM stdin;`; empty for a table without columns.

    Raises:
        ArchiveError: it is no such statement.
    """
    if not _COPY.match(copy_statement):
        raise ArchiveError("The data of a table are loaded by an unknown statement.")
    start, end = _column_list(copy_statement)
    listed = copy_statement[start:end].strip()
    names: list[str] = []
    position = 0
    while position < len(listed):
        match = _COLUMN.match(listed, position)
        if match is None or match.end() == position:
            raise ArchiveError("The column list of a table's data cannot be read.")
        names.append(match[1].replace('""', '"') if match[1] is not None else match[2])
        position = match.end()
    return tuple(names)


def _column_list(statement: str) -> tuple[int, int]:
    """Start and end of the list between the first unquoted parentheses; (0, 0) if there is none."""
    quoted, start = False, -1
    for position, character in enumerate(statement):
        if character == '"':
            quoted = not quoted
        elif not quoted and character == "(" and start < 0:
            start = position + 1
        elif not quoted and character == ")":
            return (start, position) if start >= 0 else (0, 0)
    return 0, 0


def _encoding_of(entries: tuple[TocEntry, ...]) -> str:
    for entry in entries:
        if entry.desc == "ENCODING" and (match := _ENCODING.search(entry.definition)):
            return match[1]
    return "UTF8"


def _codec(encoding: str) -> str | None:
    """Python's codec for an encoding of PostgreSQL; None for UTF-8, and if names stay as they are (SQL_ASCII)."""
    name = encoding.upper().replace("-", "").replace("_", "")
    if name in ("UTF8", "UNICODE", "SQLASCII"):
        return None
    candidates = (f"cp{name.removeprefix('WIN')}" if name.startswith("WIN") else name, encoding)
    for candidate in candidates:
        try:
            return codecs.lookup(candidate).name
        except LookupError:
            continue
    return None


_TEXTS = tuple(field.name for field in fields(TocEntry) if field.type == "str")


def _decoded_entry(entry: TocEntry, codec: str) -> TocEntry:
    values = {field.name: getattr(entry, field.name) for field in fields(entry)}
    for name in _TEXTS:
        if not values[name].isascii():
            values[name] = values[name].encode("utf-8", "surrogateescape").decode(codec, "replace")
    return TocEntry(**values)
