"""Reads the records of a WAL segment that link it to its neighbours and date it. Pure: bytes in, facts out.

A page's header says how many bytes of an earlier record it continues, so the first record of any page is found at once,
and with it the first and the last record of a segment. Each record names the one before it (`xl_prev`): if the first
record of a segment does not name the last of the segment before, the two are not of one history, whatever their names.

Sources: src/include/access/xlog_internal.h (page headers), src/include/access/xlogrecord.h (records), and for the
contents of the three kinds of record that are read src/include/access/xact.h, xlog_internal.h and
src/include/catalog/pg_control.h. Their layout is the same from PostgreSQL 13 to 18.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from tmi_ops.postgres.wal_files import LONG_HEADER_SIZE, parse_header

SHORT_HEADER_SIZE = 24
RECORD_HEADER_SIZE = 24
# How many pages are searched from either end for a commit; a busy server commits on nearly every page.
PAGES_SEARCHED = 16

_IS_CONTINUED, _OVERWRITES = 0x0001, 0x0008
_XLOG, _TRANSACTION = 0, 1
_PARAMETER_CHANGE = 0x60
_RESTORE_POINT = 0x70
_COMMIT, _COMMIT_PREPARED = 0x00, 0x30
_KIND, _KIND_OF_XLOG = 0x70, 0xF0
_PARAMETERS_LENGTH = 28
_PARAMETER_RECORD_LENGTH = RECORD_HEADER_SIZE + 2 + _PARAMETERS_LENGTH
# From the record's kind on: the kind, two bytes of padding, a checksum, and the beginning of its data.
_PARAMETERS_FROM_KIND = re.compile(rb"\x60\0\0\0.{4}\xff\x1c", re.DOTALL)
_DATA_SHORT, _DATA_LONG, _ORIGIN, _TOPLEVEL_XID = 255, 254, 253, 252
_LEVELS = {0: "minimal", 1: "replica", 2: "logical"}
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class LevelChange:
    """A restart of the server with another setting: from `lsn` on, WAL is written with this `wal_level`."""

    lsn: int
    level: str


@dataclass(frozen=True)
class SegmentRecords:
    """What links a segment to its neighbours, and the times in it.

    Args:
        first: LSN of the first record that begins here; None: none does.
        prev: the LSN that this record names as the record before it; None: not visible here.
        last: LSN of the last record that begins here.
        before_last: LSN of the record before `last`; None: not visible here.
        overwrites: the first record replaces one that a crash cut off, so it names the one before that.
        first_commit, last_commit: times of commits near the start and the end; None: there is none near.
        levels: the changes of wal_level.
    """

    first: int | None
    prev: int | None
    last: int | None
    before_last: int | None = None
    overwrites: bool = False
    first_commit: datetime | None = None
    last_commit: datetime | None = None
    levels: tuple[LevelChange, ...] = ()


def read_records(
    content: bytes | bytearray | memoryview, end: int | None = None, *, levels: bool = True
) -> SegmentRecords:
    """Read a segment. Takes about a millisecond, with `levels` some ten more.

    Args:
        content: its bytes, from its start.
        end: the LSN up to which they are WAL; None: all of them.
        levels: whether to search for changes of wal_level. The server was restarted at each.

    Raises:
        IntegrityError: they do not start like a segment.
    """
    pages = _Pages(content, end)
    first = next((record for page in pages.forward() for record in islice(pages.records(page), 1)), None)
    ending = next((found for page in pages.backward() if (found := list(pages.records(page)))), [])
    last = ending[-1] if ending else None
    return SegmentRecords(
        first=None if first is None else pages.base + first,
        prev=None if first is None else pages.prev(first),
        last=None if last is None else pages.base + last,
        before_last=pages.base + ending[-2] if len(ending) > 1 else None if last is None else pages.prev(last),
        overwrites=first is not None and pages.overwrites(first),
        first_commit=_first_commit(pages, islice(pages.forward(), PAGES_SEARCHED), newest_first=False),
        last_commit=_first_commit(pages, islice(pages.backward(), PAGES_SEARCHED), newest_first=True),
        levels=tuple(pages.level_changes()) if levels else (),
    )


def all_commits(content: bytes | bytearray | memoryview, end: int | None = None) -> list[tuple[int, datetime]]:
    """LSN and time of every commit whose record begins in a segment, in WAL order. Reads all its records.

    Raises:
        IntegrityError: as `read_records`.
    """
    pages = _Pages(content, end)
    return [
        (pages.base + record, at)
        for page in pages.forward()
        for record in pages.records(page)
        if (at := pages.commit_time(record)) is not None
    ]


def restore_point_made_at(content: bytes | bytearray | memoryview, lsn: int) -> datetime | None:
    """When the restore point whose record begins at an LSN was created; None: no complete one begins there.

    Raises:
        IntegrityError: as `read_records`.
    """
    pages = _Pages(content, None)
    return pages.restore_point_time(lsn - pages.base)


def _first_commit(pages: _Pages, searched: Iterator[int], *, newest_first: bool) -> datetime | None:
    for page in searched:
        records = list(pages.records(page))
        for record in reversed(records) if newest_first else records:
            at = pages.commit_time(record)
            if at is not None:
                return at
    return None


class _Pages:
    """A segment's pages and records by their offset in it."""

    def __init__(self, content: bytes | bytearray | memoryview, end: int | None) -> None:
        header = parse_header(content, "the segment")
        order, self._page_size = _order_and_page_size(content)
        self.base = header.page_address
        self._content = memoryview(content)
        self._end = len(content) if end is None else max(0, min(len(content), end - self.base))
        self._header = struct.Struct(f"{order}HHIQI")
        self._u32, self._u64, self._i64 = (struct.Struct(f"{order}{kind}") for kind in "IQq")
        self._parameters = struct.Struct(f"{order}6i")
        self._beginning = struct.pack(f"{order}II", _PARAMETER_RECORD_LENGTH, 0)

    def forward(self) -> Iterator[int]:
        """Pages with a header, until one without."""
        for page in range(0, self._end, self._page_size):
            if not self._is_page(page):
                return
            yield page

    def backward(self) -> Iterator[int]:
        """Pages with a header, the last first; skips those that a segment switch left empty."""
        for page in range((self._end - 1) // self._page_size * self._page_size, -1, -self._page_size):
            if self._is_page(page):
                yield page

    def records(self, page: int) -> Iterator[int]:
        """The records that begin on a page."""
        end = min(page + self._page_size, self._end)
        record = page + self._header_size(page) + _aligned(self._rest(page))
        while record + self._u32.size <= end:
            length = self._u32.unpack_from(self._content, record)[0]
            if length < RECORD_HEADER_SIZE:
                return  # the WAL ends here, or continues in the next segment
            yield record
            record += _aligned(length)

    def prev(self, record: int) -> int | None:
        """The LSN that a record names as the one before it; None if that field is not in this segment."""
        header = self._gathered(record, 16)
        return None if header is None else int(self._u64.unpack_from(header, 8)[0])

    def overwrites(self, record: int) -> bool:
        """Whether this record is the first of a page with that flag."""
        page = record - record % self._page_size
        return record == page + self._header_size(page) and bool(self._info(page) & _OVERWRITES)

    def commit_time(self, record: int) -> datetime | None:
        """The time of a commit; None: not a commit, or not complete in this segment."""
        found = self._gathered(record, RECORD_HEADER_SIZE + 24, at_least=RECORD_HEADER_SIZE)
        if found is None or found[17] != _TRANSACTION or found[16] & _KIND not in (_COMMIT, _COMMIT_PREPARED):
            return None
        return self._time_in(found)

    def restore_point_time(self, record: int) -> datetime | None:
        """The time of a restore point; None: not a restore point, or its time is not complete in this segment."""
        found = self._gathered(record, RECORD_HEADER_SIZE + 2 + 8) if record >= LONG_HEADER_SIZE else None
        if found is None or found[17] != _XLOG or found[16] & _KIND_OF_XLOG != _RESTORE_POINT:
            return None
        return self._time_in(found)

    def _time_in(self, record: bytes) -> datetime | None:
        """The start of a record's main data."""
        at = _main_data(record, RECORD_HEADER_SIZE)
        return None if at is None or at + 8 > len(record) else _moment(self._i64.unpack_from(record, at)[0])

    def level_changes(self) -> Iterator[LevelChange]:
        """Searches for the first bytes of such a record, and accepts a match only where a record begins."""
        for record in sorted({*self._looking_like_parameters(), *self._parameters_over_pages()}):
            body = self._gathered(record, _PARAMETER_RECORD_LENGTH)
            if body is None or body[: len(self._beginning)] != self._beginning:
                continue
            if body[16] != _PARAMETER_CHANGE or body[17] != _XLOG or body[24] != _DATA_SHORT:
                continue
            level = _LEVELS.get(self._parameters.unpack_from(body, RECORD_HEADER_SIZE + 2)[5])
            if level is not None and record in self.records(record - record % self._page_size):
                yield LevelChange(self.base + record, level)

    def _looking_like_parameters(self) -> Iterator[int]:
        for found in _PARAMETERS_FROM_KIND.finditer(self._content[: self._end]):
            record = found.start() - 16
            if record > 0 and record % 8 == 0:
                yield record

    def _parameters_over_pages(self) -> Iterator[int]:
        """Where such a record would begin that continues on the next page."""
        for page in self.forward():
            rest = self._rest(page)
            if page and 0 < rest < _PARAMETER_RECORD_LENGTH:
                yield page - (_PARAMETER_RECORD_LENGTH - rest)

    def _gathered(self, offset: int, length: int, at_least: int | None = None) -> bytes | None:
        """Bytes of a record, without the page headers between them; None if there are fewer than wanted."""
        gathered = b""
        while len(gathered) < length and offset < self._end:
            if offset % self._page_size == 0:
                offset += self._header_size(offset)
            room = self._page_size - offset % self._page_size
            piece = bytes(self._content[offset : min(offset + min(room, length - len(gathered)), self._end)])
            gathered += piece
            offset += len(piece)
        return gathered if len(gathered) >= (length if at_least is None else at_least) else None

    def _is_page(self, page: int) -> bool:
        if page + SHORT_HEADER_SIZE > self._end:
            return False
        magic, _, _, address, _ = self._header.unpack_from(self._content, page)
        return bool(magic) and address == self.base + page

    def _info(self, page: int) -> int:
        return int(self._header.unpack_from(self._content, page)[1])

    def _rest(self, page: int) -> int:
        """How many bytes of an earlier record continue on this page and after it."""
        _, info, _, _, rest = self._header.unpack_from(self._content, page)
        return int(rest) if info & _IS_CONTINUED else 0

    @staticmethod
    def _header_size(page: int) -> int:
        return LONG_HEADER_SIZE if page == 0 else SHORT_HEADER_SIZE


def _order_and_page_size(content: bytes | bytearray | memoryview) -> tuple[str, int]:
    """Of a beginning that `parse_header` took."""
    for order in "<>":
        size: int = struct.unpack_from(f"{order}I", content, LONG_HEADER_SIZE - 4)[0]
        if 1 << 10 <= size <= 1 << 16 and size & (size - 1) == 0:
            return order, size
    return "<", 8192


def _main_data(record: bytes, at: int) -> int | None:
    """Where the main data of a record without blocks begins; its headers begin at `at`. None: not visible."""
    while at < len(record):
        if record[at] == _DATA_SHORT:
            return at + 2
        if record[at] == _DATA_LONG:
            return at + 5
        if record[at] not in (_ORIGIN, _TOPLEVEL_XID):
            return None
        at += 3 if record[at] == _ORIGIN else 5
    return None


def _moment(microseconds: int) -> datetime | None:
    try:
        at = _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return None
    return at if _EPOCH <= at < _LATEST else None


def _aligned(length: int) -> int:
    return -(-length // 8) * 8
