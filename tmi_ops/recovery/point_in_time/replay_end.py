"""Decides from the bytes after the last replayed record whether WAL was left unreplayed. Pure.

A server that replays to the end of the WAL stops at the first invalid record, whatever is after it. At the true end,
nothing follows, or the beginning of a record that continues beyond the end. A record that does not follow the last one
(its `xl_prev` differs), or a complete one that was not replayed, means a splice or damage: there is more WAL, and the
cluster does not have it.

Source: src/include/access/xlogrecord.h and xlog_internal.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

Follows = Literal["nothing", "unfinished", "more"]

RECORD_HEADER = 24
_SHORT_HEADER, _LONG_HEADER = 24, 40
_CONTINUES, _LONG = 0x0001, 0x0002
_MAGIC_HIGH_BYTES = (0xD0, 0xD1)
_DEFAULT_PAGE = 8192
_PAGE_SIZE_AT = 36  # in a long header
_SWITCH = (0, 0x40)  # resource manager and info of a WAL switch record


@dataclass(frozen=True)
class Wal:
    """Bytes of WAL from LSN `start`, the start of a segment. `end`: LSN at which the archived WAL ends."""

    content: bytes
    start: int
    end: int
    segment_size: int

    @property
    def page(self) -> int:
        if len(self.content) >= _LONG_HEADER and self._header(self.start)[1] & _LONG:
            return int(struct.unpack_from("<I", self.content, _PAGE_SIZE_AT)[0]) or _DEFAULT_PAGE
        return _DEFAULT_PAGE

    @property
    def until(self) -> int:
        return min(self.end, self.start + len(self.content))

    def take(self, lsn: int, size: int) -> tuple[bytes, int]:
        """Up to `size` bytes of a record from `lsn`, without page headers, and the LSN after them."""
        taken = b""
        while size:
            if lsn % self.page == 0:
                lsn += self.header_size(lsn)
            part = min(size, self.page - lsn % self.page)
            taken += self.content[lsn - self.start : min(lsn + part, self.until) - self.start]
            lsn, size = lsn + part, size - part
        return taken, lsn

    def places(self, lsn: int, size: int) -> list[int]:
        """The LSNs of `size` bytes of a record from `lsn`."""
        found: list[int] = []
        while len(found) < size:
            if lsn % self.page == 0:
                lsn += self.header_size(lsn)
            found.append(lsn)
            lsn += 1
        return found

    def header_size(self, lsn: int) -> int:
        return _LONG_HEADER if lsn % self.segment_size == 0 else _SHORT_HEADER

    def is_page(self, lsn: int) -> bool:
        """Whether a valid page for this LSN begins there; pages of a recycled file have other addresses."""
        if lsn + _SHORT_HEADER > self.until:
            return False
        magic, _, address = self._header(lsn)
        return magic >> 8 in _MAGIC_HIGH_BYTES and address == lsn

    def continues(self, lsn: int) -> bool:
        return bool(self._header(lsn)[1] & _CONTINUES)

    def _header(self, lsn: int) -> tuple[int, int, int]:
        magic, info, _, address = struct.unpack_from("<HHIQ", self.content, lsn - self.start)
        return magic, info, address


def what_follows(wal: Wal, at: int, last_record: int | None) -> Follows:
    """What the archived WAL contains after `at`, where the replay ended.

    Args:
        last_record: LSN at which the last replayed record began; None: unknown.
    """
    place = at
    if place >= wal.until:
        return "nothing"
    if place % wal.page == 0:
        if not wal.is_page(place):
            return _later_pages(wal, place)
        if wal.continues(place):
            return "more"
        place += wal.header_size(place)
    head, _ = wal.take(place, RECORD_HEADER)
    length = int.from_bytes(head[:4], "little")
    if length == 0:
        rest = wal.content[place - wal.start : min(place - place % wal.page + wal.page, wal.until) - wal.start]
        return "more" if any(rest) else _later_pages(wal, place)
    if len(head) >= 16 and last_record is not None and int.from_bytes(head[8:16], "little") != last_record:
        return "more"
    _, behind = wal.take(place, max(length, RECORD_HEADER))
    return "unfinished" if length >= RECORD_HEADER and behind > wal.end else "more"


def end_of_record(wal: Wal, begins: int) -> int:
    """The LSN after a replayed record, where the next one would begin."""
    head, _ = wal.take(begins, RECORD_HEADER)
    _, behind = wal.take(begins, int.from_bytes(head[:4], "little"))
    if len(head) == RECORD_HEADER and (head[17], head[16]) == _SWITCH:
        return begins - begins % wal.segment_size + wal.segment_size
    return -(-behind // 8) * 8


def _later_pages(wal: Wal, place: int) -> Follows:
    page = place - place % wal.page + wal.page
    return "more" if any(wal.is_page(lsn) for lsn in range(page, wal.until, wal.page)) else "nothing"
