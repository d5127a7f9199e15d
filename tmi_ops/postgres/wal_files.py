"""WAL files by their names and headers: segments, timelines, `.history` files. Pure: bytes and text in, facts out.

An LSN is an int here, a byte position in the WAL; `format_lsn` writes it as PostgreSQL does (`16/B374D848`).

Sources: src/include/access/xlog_internal.h (names, page headers) and src/backend/access/transam/timeline.c (histories).
"""

from __future__ import annotations

import functools
import re
import struct
from dataclasses import dataclass

from tmi_ops.errors import IntegrityError, OpsError

DEFAULT_SEGMENT_SIZE = 16 << 20
SMALLEST_SEGMENT, LARGEST_SEGMENT = 1 << 20, 1 << 30
LONG_HEADER_SIZE = 40

SEGMENT_NAME = re.compile(r"[0-9A-F]{24}")
HISTORY_NAME = re.compile(r"[0-9A-F]{8}\.history")
PARTIAL_SUFFIX = ".partial"

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_LOG_SIZE = 1 << 32  # a segment's name counts in units of 4 GiB
_LONG_HEADER_FLAG = 0x0002
_MAGIC_HIGH_BYTES = (0xD0, 0xD1)  # XLOG_PAGE_MAGIC of every version from 9 to 18 is 0xD0.. or 0xD1..


@functools.lru_cache(maxsize=1 << 14)  # a look at thousands of backups asks for each LSN a dozen times
def parse_lsn(text: str) -> int:
    """`16/B374D848` as a number.

    Raises:
        OpsError: it is not an LSN.
    """
    match = _LSN.fullmatch(text.strip())
    if match is None:
        raise OpsError(f"{text!r} is not an LSN.", hint="write it as PostgreSQL does, for example 0/3000148")
    return int(match[1], 16) << 32 | int(match[2], 16)


def format_lsn(lsn: int) -> str:
    """As PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


@dataclass(frozen=True, order=True)
class Segment:
    """One WAL segment: `size` bytes of `timeline` from LSN `start`, a multiple of `size`."""

    timeline: int
    start: int
    size: int = DEFAULT_SEGMENT_SIZE

    @property
    def end(self) -> int:
        """The first LSN after it."""
        return self.start + self.size

    @property
    def name(self) -> str:
        """The name of its file: 24 hexadecimal digits."""
        number, per_log = self.start // self.size, _LOG_SIZE // self.size
        return f"{self.timeline:08X}{number // per_log:08X}{number % per_log:08X}"

    @property
    def next(self) -> Segment:
        return Segment(self.timeline, self.end, self.size)


def segment_at(timeline: int, lsn: int, size: int = DEFAULT_SEGMENT_SIZE) -> Segment:
    """The segment that contains the byte at `lsn`."""
    return Segment(timeline, lsn - lsn % size, size)


def parse_segment_name(name: str, size: int = DEFAULT_SEGMENT_SIZE) -> Segment:
    """Read a segment's name; `size` is the server's wal_segment_size in bytes.

    Raises:
        OpsError: it is not the name of a segment of that size.
    """
    if SEGMENT_NAME.fullmatch(name):
        timeline, log, rest = (int(name[start : start + 8], 16) for start in (0, 8, 16))
        if timeline and rest < _LOG_SIZE // size:
            return Segment(timeline, log * _LOG_SIZE + rest * size, size)
    raise OpsError(f"{name!r} is not the name of a WAL segment of {size >> 20} MiB.")


def history_name(timeline: int) -> str:
    """The name of the history file of `timeline`."""
    return f"{timeline:08X}.history"


@dataclass(frozen=True)
class LongHeader:
    """The header of the first page of a segment.

    `timeline` may be an ancestor's: the first segment of a timeline begins with a copy of its parent's bytes.
    """

    magic: int
    timeline: int
    page_address: int
    system_identifier: str
    segment_size: int


def parse_header(data: bytes | bytearray | memoryview, what: str) -> LongHeader:
    """Read the header at the start of a segment, in either byte order.

    Args:
        what: the segment, for the error message.

    Raises:
        IntegrityError: this is not the start of a segment.
    """
    if len(data) >= LONG_HEADER_SIZE:
        for order in "<>":
            magic, info, timeline, address, _, identifier, size, _ = struct.unpack_from(f"{order}HHIQI4xQII", data)
            if magic >> 8 in _MAGIC_HIGH_BYTES and info & _LONG_HEADER_FLAG and _is_segment_size(size):
                return LongHeader(magic, timeline, address, str(identifier), size)
    raise _damaged(f"{what} does not start like a WAL segment")


def check_header(
    data: bytes | bytearray | memoryview, segment: Segment, system_identifier: str, what: str
) -> LongHeader:
    """Read the header and check that it matches the segment's name.

    Raises:
        IntegrityError: it is from another cluster, position or timeline, or has another segment size.
    """
    header = parse_header(data, what)
    if header.system_identifier != system_identifier:
        raise _damaged(f"{what} is from the cluster {header.system_identifier}, not from {system_identifier}")
    if header.segment_size != segment.size:
        raise _damaged(f"{what} is from a cluster with segments of {header.segment_size} bytes, not of {segment.size}")
    if header.page_address != segment.start:
        found = Segment(header.timeline, header.page_address, segment.size).name
        raise _damaged(f"{what} contains the WAL of {found}")
    if not 0 < header.timeline <= segment.timeline:
        raise _damaged(f"{what} starts on timeline {header.timeline}")
    return header


@dataclass(frozen=True)
class TimelineSwitch:
    """A line of a history file: `timeline` was left at LSN `lsn`, where its child begins."""

    timeline: int
    lsn: int
    reason: str


def parse_history(text: str, timeline: int) -> tuple[TimelineSwitch, ...]:
    """Read the history file of `timeline`: its ancestors, oldest first, each with the LSN where it was left.

    Raises:
        IntegrityError: it is not a history file of that timeline.
    """
    what = history_name(timeline)
    switches = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = re.match(r"\s*(\d+)\s+([0-9A-Fa-f]+/[0-9A-Fa-f]+)\s*(.*)", line)
        if match is None:
            raise _damaged(f"{what} has a line that does not belong in a history file: {line[:60]!r}")
        switches.append(TimelineSwitch(int(match[1]), parse_lsn(match[2]), match[3].strip()))
    ancestors = [switch.timeline for switch in switches]
    if ancestors != sorted(set(ancestors)) or (ancestors and ancestors[-1] >= timeline):
        raise _damaged(f"{what} has its timelines out of order")
    return tuple(switches)


def _is_segment_size(size: int) -> bool:
    return SMALLEST_SEGMENT <= size <= LARGEST_SEGMENT and size & (size - 1) == 0


def _damaged(problem: str) -> IntegrityError:
    return IntegrityError(
        f"{problem}.",
        detail="It was not used.",
        hint="see which parts of the archive are intact with `tmi-ops wal gaps --deep`",
    )
