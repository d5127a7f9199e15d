"""Redirects a tablespace that the WAL creates after the base backup into the data directory.

Its original path belongs to another machine or, on the server's own machine, to the server's live files. The record of
its creation ends with that path. With the path emptied, the server creates a directory in pg_tblspc instead, as with
allow_in_place_tablespaces. Only records with a valid checksum are changed; they get a new checksum.

Sources: src/include/access/xlogrecord.h, src/include/commands/tablespace.h (xl_tblspc_create_rec).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from tmi_ops.recovery.point_in_time.replay_end import RECORD_HEADER, Wal

_CRC_AT = 20
_SHORT_DATA, _LONG_DATA, _ORIGIN, _TOPLEVEL_XID = 255, 254, 253, 252
_POLYNOMIAL = 0x82F63B78  # CRC-32C, bits reversed


def emptied_place(wal: Wal, begins: int, oid: int) -> Mapping[int, int] | None:
    """The bytes to change, by LSN, so that the record at `begins` creates the tablespace `oid` in place.

    None if it is not such a record, or is incomplete.
    """
    head, _ = wal.take(begins, RECORD_HEADER)
    length = int.from_bytes(head[:4], "little")
    record, _ = wal.take(begins, length)
    if len(record) < RECORD_HEADER or len(record) != length:
        return None
    if int.from_bytes(record[_CRC_AT:RECORD_HEADER], "little") != _checksum(record):
        return None
    data = _main_data(record)
    if data is None or int.from_bytes(record[data : data + 4], "little") != oid:
        return None
    changed = bytearray(record)
    changed[data + 4] = 0
    changed[_CRC_AT:RECORD_HEADER] = _checksum(changed).to_bytes(4, "little")
    places = wal.places(begins, length)
    return {place: new for place, old, new in zip(places, record, changed, strict=True) if old != new}


def _main_data(record: bytes) -> int | None:
    """Offset of the main data of a record without blocks."""
    at = RECORD_HEADER
    while at < len(record):
        if record[at] == _ORIGIN:
            at += 3
        elif record[at] == _TOPLEVEL_XID:
            at += 5
        elif record[at] == _SHORT_DATA:
            return at + 2
        elif record[at] == _LONG_DATA:
            return at + 5
        else:
            return None
    return None


def _checksum(record: bytes | bytearray) -> int:
    """CRC of the bytes after the header, followed by the header up to the checksum."""
    return crc32c(bytes(record[RECORD_HEADER:]) + bytes(record[:_CRC_AT]))


def crc32c(data: bytes) -> int:
    table, found = _table(), 0xFFFFFFFF
    for byte in data:
        found = table[(found ^ byte) & 0xFF] ^ (found >> 8)
    return found ^ 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    found = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        found.append(value)
    return tuple(found)
