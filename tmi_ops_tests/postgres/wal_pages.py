"""WAL made of records of our own, laid over pages and segments as PostgreSQL lays them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

PAGE, SIZE = 8192, 1 << 20
FIRST = 10 * SIZE
SYSTEM = 7000000000000000001
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Record:
    """`body` follows the 24 bytes of a record's header."""

    body: bytes
    info: int = 0
    rmgr: int = 10


def commit(at: datetime) -> Record:
    micros = (at - _EPOCH) // timedelta(microseconds=1)
    return Record(bytes([255, 8]) + struct.pack("<q", micros), rmgr=1)


def level_change(level: int) -> Record:
    return Record(bytes([255, 28]) + struct.pack("<6i2?2x", 100, 8, 10, 0, 64, level, False, False), 0x60, 0)


def restore_point(at: datetime, name: str) -> Record:
    micros = (at - _EPOCH) // timedelta(microseconds=1)
    return Record(bytes([255, 72]) + struct.pack("<q64s", micros, name.encode()), 0x70, 0)


def filler(length: int) -> Record:
    return Record(bytes([255, 200]) + b"x" * length)


class Wal:
    """Records one after another; `placed` are the LSNs at which they begin."""

    def __init__(self, timeline: int = 1, prev: int = FIRST - 64) -> None:
        self.timeline = timeline
        self.placed: list[int] = []
        self._content = bytearray()
        self._prev = prev

    @property
    def end(self) -> int:
        return FIRST + len(self._content)

    def add(self, *records: Record) -> Wal:
        for record in records:
            self._add(record)
        return self

    def segments(self) -> list[bytes]:
        """Padded with zeros."""
        whole = -(-len(self._content) // SIZE) * SIZE
        padded = bytes(self._content).ljust(whole, b"\0")
        return [padded[begin : begin + SIZE] for begin in range(0, whole, SIZE)]

    def switch(self) -> Wal:
        """Leave the rest of the segment empty."""
        self._content += bytes(-len(self._content) % SIZE)
        return self

    def _add(self, record: Record) -> None:
        if len(self._content) % PAGE == 0:
            self._header(0)
        lsn, length = self.end, 24 + len(record.body)
        head = struct.pack("<IIQBB2xI", length, 0, self._prev, record.info, record.rmgr, 0xC0FFEE)
        rest = head + record.body
        while rest:
            if len(self._content) % PAGE == 0:
                self._header(len(rest))
            room = PAGE - len(self._content) % PAGE
            self._content += rest[:room]
            rest = rest[room:]
        self._content += bytes(-len(self._content) % 8)
        self.placed.append(lsn)
        self._prev = lsn

    def _header(self, remaining: int) -> None:
        is_first = len(self._content) % SIZE == 0
        info = (1 if remaining else 0) | (2 if is_first else 0)
        self._content += struct.pack("<HHIQI4x", 0xD116, info, self.timeline, self.end, remaining)
        if is_first:
            self._content += struct.pack("<QII", SYSTEM, SIZE, PAGE)


def by_segment(wal: Wal) -> Iterator[Sequence[int]]:
    """The LSNs of the records that begin in each segment."""
    for number in range(len(wal.segments())):
        start = FIRST + number * SIZE
        yield [lsn for lsn in wal.placed if start <= lsn < start + SIZE]
