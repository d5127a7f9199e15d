"""Archives as pg_dump writes them, made without it: of any version, and wrong where a test wants them so."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import zstandard

from tmi_ops.backup.archive.contents import END_OF_ROWS
from tmi_ops.backup.archive.toc import Compression

VERSIONS = [(1, minor, 0) for minor in range(12, 17)]
COMPRESSIONS: tuple[Compression, ...] = ("none", "gzip", "zstd")


@dataclass(frozen=True)
class Entry:
    dump_id: int
    desc: str
    tag: str
    namespace: str = "public"
    definition: str = ""
    copy_statement: str = ""
    has_data: bool = False
    dependencies: tuple[int, ...] = ()


def integer(value: int, size: int = 4) -> bytes:
    return bytes([value < 0]) + abs(value).to_bytes(size, "little")


def text(value: str | bytes | None) -> bytes:
    if value is None:
        return integer(-1)
    raw = value.encode() if isinstance(value, str) else value
    return integer(len(raw)) + raw


def header(version: tuple[int, int, int] = (1, 16, 0), compression: Compression = "none", format_: int = 1) -> bytes:
    packed = (
        bytes([("none", "gzip", "lz4", "zstd").index(compression)])
        if version >= (1, 15)
        else integer(0 if compression == "none" else 1)
    )
    times = b"".join(integer(value) for value in (1, 2, 3, 4, 5, 126, 0))
    return (
        b"PGDMP" + bytes(version) + bytes([4, 8, format_]) + packed + times + text("tmi") + text("17.2") + text("17.2")
    )


def entry(item: Entry, version: tuple[int, int, int]) -> bytes:
    return b"".join(
        (
            integer(item.dump_id),
            integer(item.has_data),
            text("1259"),
            text("16384"),
            text(item.tag),
            text(item.desc),
            integer(3),
            text(item.definition),
            text("DROP ..."),
            text(item.copy_statement),
            text(item.namespace),
            text(""),
            text("heap") if version >= (1, 14) else b"",
            integer(ord("r")) if version >= (1, 16) else b"",
            text("owner"),
            text("false"),
            *(text(str(number)) for number in item.dependencies),
            text(None),
            bytes([1]) + bytes(8),
        )
    )


def packed(content: bytes, compression: Compression) -> bytes:
    if compression == "gzip":
        return zlib.compress(content)
    return zstandard.compress(content) if compression == "zstd" else content


def chunks(content: bytes, size: int = 20) -> bytes:
    pieces = (content[start : start + size] for start in range(0, len(content), size))
    return b"".join(integer(len(piece)) + piece for piece in pieces) + integer(0)


def archive(
    tables: Mapping[str, bytes],
    *,
    objects: Mapping[int, bytes] | None = None,
    others: Sequence[Entry] = (),
    version: tuple[int, int, int] = (1, 16, 0),
    compression: Compression = "none",
    columns: str = "(id, note)",
) -> bytes:
    """An archive of tables (name to rows as COPY writes them) and large objects (oid to content)."""
    entries = list(others)
    blocks = []
    for name, rows in tables.items():
        number = len(entries) + 1
        copy = f"COPY public.{name} {columns} FROM stdin;\n"
        entries.append(Entry(number, "TABLE DATA", name, copy_statement=copy, has_data=True, dependencies=(1, 77)))
        blocks.append(bytes([1]) + integer(number) + chunks(packed(rows + END_OF_ROWS, compression)))
    if objects is not None:
        number = len(entries) + 1
        entries.append(Entry(number, "BLOBS", "BLOBS", namespace="", has_data=True))
        stored = (
            integer(oid if oid < 1 << 31 else oid - (1 << 32)) + chunks(packed(content, compression))
            for oid, content in objects.items()
        )
        blocks.append(bytes([3]) + integer(number) + b"".join(stored) + integer(0))
    toc = integer(len(entries)) + b"".join(entry(item, version) for item in entries)
    return header(version, compression) + toc + b"".join(blocks)
