"""Which archived WAL leads along a line of timelines, and how far it goes without a hole. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tmi_ops.postgres.wal_files import PARTIAL_SUFFIX, Segment, parse_lsn, segment_at
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.wal.archive import WalArchive
from tmi_ops.wal.lineage import Lineage, Stretch


@dataclass(frozen=True)
class WalFile:
    """A segment that recovery may ask for: `segment` as PostgreSQL names it, `stored` as the archive does.

    From LSN `cut` on its bytes belong to a history that the line has left; they must not be replayed. None: all belong.
    """

    segment: Segment
    stored: str
    cut: int | None = None

    @property
    def name(self) -> str:
        return self.segment.name


@dataclass(frozen=True)
class WalRange:
    """The WAL from `start` to `end`, without a hole.

    `missing` is the first segment that is absent while there is WAL after it; None: `end` is where the WAL ends.
    """

    files: tuple[WalFile, ...]
    start: int
    end: int
    missing: Segment | None

    @property
    def size(self) -> int:
        """Bytes of WAL, uncompressed."""
        return self.end - self.start


def wal_after(base: BaseManifest, line: Lineage, archive: WalArchive, start: int, stop: int) -> WalRange:
    """The archived WAL that continues a base backup along a line which it lies on.

    Args:
        start, stop: of the base. The WAL between is part of it; that of a primary ends with a whole segment.
    """
    position = continued_at(base, line)
    walk = _Walk(archive, base.wal_segment_size)
    stretches = list(line.from_lsn(position))
    for stretch, following in zip(stretches, [*stretches[1:], None], strict=True):
        if not walk.along(stretch, following):
            break
    end = max(stop, walk.end or position)
    return WalRange(tuple(walk.files), start, end, walk.missing if _goes_on(walk, archive, stretches) else None)


def continued_at(base: BaseManifest, line: Lineage) -> int:
    """The LSN from which on the archive must have what follows a base on a line that it lies on."""
    stop = parse_lsn(base.stop_lsn)
    if base.from_standby is not False:
        return stop
    whole = -(-stop // base.wal_segment_size) * base.wal_segment_size
    left = next(item.end for item in line.stretches if item.timeline == base.timeline)
    return whole if left is None else min(whole, left)


class _Walk:
    """Goes from segment to segment until one is not there."""

    def __init__(self, archive: WalArchive, size: int) -> None:
        self._size = size
        self._whole = {item.segment for group in archive.segments.values() for item in group}
        self._partial = {item.segment: item.end_lsn for group in archive.partials.values() for item in group}
        self.files: list[WalFile] = []
        self.end: int | None = None
        self.missing: Segment | None = None

    def along(self, stretch: Stretch, following: Stretch | None) -> bool:
        """Whether the stretch is there to its end, so that the next one can be gone."""
        for segment in self._segments(stretch):
            cut = stretch.end if stretch.end is not None and stretch.end < segment.end else None
            if cut is not None and following is not None and self._has(segment_at(following.timeline, cut, self._size)):
                # The next timeline's first segment begins with a copy of these bytes, and is what PostgreSQL prefers.
                return True
            if segment in self._whole:
                self.files.append(WalFile(segment, segment.name, cut))
                self.end = cut or segment.end
            elif segment in self._partial:
                reached = self._partial[segment]
                self.files.append(WalFile(segment, f"{segment.name}{PARTIAL_SUFFIX}", cut))
                self.end = reached if cut is None else min(reached, cut)
                if self.end < (cut or segment.end):
                    self.missing = segment
                    return False
            else:
                self.missing = segment
                return False
        return True

    def _segments(self, stretch: Stretch) -> Iterator[Segment]:
        segment = segment_at(stretch.timeline, stretch.start, self._size)
        while stretch.end is None or segment.start < stretch.end:
            yield segment
            segment = segment.next

    def _has(self, segment: Segment) -> bool:
        return segment in self._whole or segment in self._partial


def files_on(line: Lineage, archive: WalArchive) -> list[WalFile]:
    """Everything archived of a line, in its order, holes not considered."""
    return [file for stretch in line.stretches for file in files_of(stretch, archive)]


def files_of(stretch: Stretch, archive: WalArchive) -> list[WalFile]:
    """Everything archived of a stretch of a timeline, in its order, holes not considered."""
    stored = {item.segment: item.name for item in archive.partials.get(stretch.timeline, ())}
    stored |= {item.segment: item.name for item in archive.segments.get(stretch.timeline, ())}
    files = []
    for segment in sorted(stored):
        if segment.end > stretch.start and (stretch.end is None or segment.start < stretch.end):
            cut = stretch.end if stretch.end is not None and stretch.end < segment.end else None
            files.append(WalFile(segment, stored[segment], cut))
    return files


def _goes_on(walk: _Walk, archive: WalArchive, stretches: list[Stretch]) -> bool:
    """Whether there is WAL on the line after what is missing."""
    missing = walk.missing
    if missing is None:
        return False
    present = (file.segment for stretch in stretches for file in files_of(stretch, archive))
    return any((segment.timeline, segment.start) > (missing.timeline, missing.start) for segment in present)
