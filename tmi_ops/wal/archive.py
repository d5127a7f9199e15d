"""Reads the WAL archive of a cluster from the store: segments, partials, histories and records."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tmi_ops.errors import OpsError
from tmi_ops.postgres.wal_files import (
    DEFAULT_SEGMENT_SIZE,
    PARTIAL_SUFFIX,
    SEGMENT_NAME,
    Segment,
    parse_segment_name,
    segment_at,
)
from tmi_ops.store.objects import ListedObject, ObjectStore
from tmi_ops.store.remembered import remembered
from tmi_ops.store.small_objects import look
from tmi_ops.wal.breaks import Break
from tmi_ops.wal.chapters import seen_as
from tmi_ops.wal.description import read_segment_size
from tmi_ops.wal.index import (
    LONG_TAIL,
    ListedSegment,
    WalIndex,
    before,
    begins_as_told,
    correct,
    extended,
    listed_behind,
    read_index,
    stored_per_day,
    uncounted,
    without,
    write_index,
)
from tmi_ops.wal.layout import (
    SUFFIX,
    WAL,
    cluster_folder,
    description_key,
    file_key,
    index_key,
    lease_key,
    records_key,
)
from tmi_ops.wal.lineage import Lineage
from tmi_ops.wal.partials import find_open
from tmi_ops.wal.pieces import parse_piece
from tmi_ops.wal.records import ArchiveRecords, Followed, known_records
from tmi_ops.wal.runs import ArchivedSegment, Segments, runs_of

if TYPE_CHECKING:
    from tmi_ops.wal.coverage import Coverage

# A receiver uploads fewer segments than this at once.
IN_FLIGHT = 16
_LOOKS, _LOOK_AGAIN_S, _AT_WORK_S = 3, 0.3, 25.0
_TIMELINE = re.compile(r"[0-9A-F]{8}")
_HISTORY_KEY = re.compile(r"([0-9A-F]{8})\.history")


@dataclass(frozen=True)
class ArchivedPartial:
    """A partial in the archive: valid up to `end_lsn`, zeros after it. `size` is in stored bytes. `key` is the object
    whose metadata says where it ends."""

    segment: Segment
    size: int
    end_lsn: int
    key: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """The name to fetch it by."""
        return f"{self.segment.name}{PARTIAL_SUFFIX}"


@dataclass(frozen=True)
class Stored:
    """Number of objects in an archive and their bytes. `day` and `week`: bytes stored in the last 1 and 7 days;
    segments in the index are counted by full days of UTC."""

    objects: int = 0
    size: int = 0
    day: int = 0
    week: int = 0


@dataclass(frozen=True)
class WalArchive:
    """The archive of one cluster. Segments and partials are by timeline, in WAL order.

    A partial is left out if its whole segment is archived: it is about to be removed.

    Args:
        breaks: the points found by receivers that no replay can pass.
        followed: the timelines that receivers followed or a person chose, oldest first.
        problems: what cannot be read, one sentence each.
        stored: the space it takes in the store.
        etags: ETags of the small objects directly in the cluster's folder, by key.
        coverages: cache of `coverage.coverage`, by line.
    """

    system_identifier: str
    segment_size: int
    segments: Mapping[int, Sequence[ArchivedSegment]]
    partials: Mapping[int, tuple[ArchivedPartial, ...]]
    histories: tuple[int, ...]
    breaks: tuple[Break, ...] = ()
    followed: tuple[Followed, ...] = ()
    problems: tuple[str, ...] = ()
    stored: Stored = field(default_factory=Stored, compare=False)
    etags: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    coverages: dict[Lineage, Coverage] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def timelines(self) -> tuple[int, ...]:
        """The timelines with WAL, ascending."""
        return tuple(sorted({*self.segments, *self.partials}))

    @property
    def size(self) -> int:
        """Stored bytes."""
        whole = sum(run.size for group in self.segments.values() for run in runs_of(group))
        return whole + sum(item.size for group in self.partials.values() for item in group)

    @property
    def ends(self) -> dict[int, int]:
        """By timeline, the LSN where its archived WAL ends, ignoring holes."""
        return {timeline: self.newest_lsn(timeline) or 0 for timeline in self.timelines}

    def newest_lsn(self, timeline: int) -> int | None:
        """The LSN where the archived WAL of a timeline ends, ignoring holes. None if there is none."""
        ends = [item.segment.end for item in self.segments.get(timeline, ())[-1:]]
        ends += [item.end_lsn for item in self.partials.get(timeline, ())[-1:]]
        return max(ends, default=None)


def list_clusters(store: ObjectStore) -> list[str]:
    """System identifiers of the clusters with WAL in the store."""
    return [name for name in store.list_folders(WAL) if name.isdigit()]


def list_wal(
    store: ObjectStore, system_identifier: str, *, whole: bool = False, behind: tuple[int, int] | None = None
) -> WalArchive:
    """List what the archive holds of a cluster, empty if nothing. Reads names and sizes, not the WAL itself.

    Segments in the index are not listed again. If many segments after the index were listed, they are added to it,
    provided that our key may write it.

    Args:
        whole: list every object instead of using the index. Segments that the index names but that are gone are
            removed from it.
        behind: a timeline and an LSN. Everything from there on is listed, because a promise to the user depends on it.
            Before that point the index is used, provided that the oldest segments that it names exist.

    Raises:
        StoreError: the store failed, or the archive was written by a newer release.
    """
    folder = cluster_folder(system_identifier)
    top, timelines = store.list_level(folder)
    etags = {item.key: item.etag for item in top}
    size = _segment_size(store, system_identifier, etags)
    etag = etags.get(index_key(system_identifier))
    found = read_index(store, system_identifier, etag) if etag else None
    index, seen = found or (WalIndex(segment_size=size), etag)
    nothing = WalIndex(segment_size=size, leaving=index.leaving)
    if whole or index.segment_size != size:
        index = nothing
    elif behind is not None:
        index = before(index, segment_at(*behind, size))
        index = index if begins_as_told(store, system_identifier, index) else nothing
    names = list(filter(_TIMELINE.fullmatch, timelines))
    tail = listed_behind(store, system_identifier, names, index)
    is_false = tail is None
    if tail is None:
        index = nothing
        tail = listed_behind(store, system_identifier, names, index) or []
    listed = [*top, *tail]
    if behind is not None and found is not None:
        index = uncounted(index, found[0], _segments_in(listed, size))
    archive = archive_of(store, system_identifier, listed, index)
    if found is not None and (whole or is_false or behind is not None):
        _correct(store, system_identifier, without(found[0], index), listed)
    elif behind is None:
        _keep_index(store, system_identifier, index, seen, listed)
    return archive


def _correct(store: ObjectStore, system_identifier: str, claims: WalIndex, listed: Sequence[ListedObject]) -> None:
    """Remove from the index the segments that a new listing did not find. Does nothing if our key may not write it."""
    there = {item.segment for item in _segments_in(listed, claims.segment_size)}
    with contextlib.suppress(OpsError):
        correct(store, system_identifier, claims, there)


def _keep_index(
    store: ObjectStore, system_identifier: str, index: WalIndex, etag: str | None, listed: Sequence[ListedObject]
) -> None:
    """Add a long tail to the index. If our key may not write it, later listings only take longer."""
    tail = list(_segments_in(listed, index.segment_size))
    if len(tail) >= LONG_TAIL:
        with contextlib.suppress(OpsError):
            write_index(store, system_identifier, extended(index, tail, datetime.now(UTC)), etag)


def _segments_in(listed: Iterable[ListedObject], size: int) -> Iterator[ListedSegment]:
    for item in listed:
        name = item.key.rpartition("/")[2].removesuffix(SUFFIX)
        if SEGMENT_NAME.fullmatch(name):
            yield ListedSegment(parse_segment_name(name, size), item.size, item.modified)


def _segment_size(store: ObjectStore, system_identifier: str, etags: Mapping[str, str]) -> int:
    """The segment size in bytes from the archive's description. No request if the listing shows no description."""
    key = description_key(system_identifier)
    if key not in etags:
        return DEFAULT_SEGMENT_SIZE
    found = remembered(store, key, etags[key], lambda: read_segment_size(store, system_identifier))
    return found or DEFAULT_SEGMENT_SIZE


def archive_of(
    store: ObjectStore, system_identifier: str, found: Iterable[ListedObject], index: WalIndex | None = None
) -> WalArchive:
    """Like `list_wal`, from an existing listing of the cluster's folder.

    Args:
        found: the listing.
        index: the segments that were not listed. None: everything was listed.

    Raises:
        StoreError: as `list_wal`.
    """
    listed = list(found)
    etags = {item.key: item.etag for item in listed if item.key.count("/") == 2}
    index = index or WalIndex(segment_size=_segment_size(store, system_identifier, etags))
    size = index.segment_size
    indexed = {run.timeline: index.of(run.timeline) for run in index.runs}
    now = datetime.now(UTC)
    stored = Stored(
        sum(run.count for run in index.runs),
        sum(run.size for run in index.runs),
        stored_per_day(index, now - timedelta(days=1)),
        stored_per_day(index, now - timedelta(days=7)),
    )
    segments: dict[int, list[ArchivedSegment]] = {}
    open_ones: dict[Segment, list[ListedObject]] = {}
    histories: list[int] = []
    for item in listed:
        stored = _and(stored, item, now)
        name = item.key.rpartition("/")[2].removesuffix(SUFFIX)
        if match := _HISTORY_KEY.fullmatch(name):
            histories.append(int(match[1], 16))
        elif SEGMENT_NAME.fullmatch(name):
            segment = parse_segment_name(name, size)
            seen = seen_as(item.etag, item.size, item.modified)
            segments.setdefault(segment.timeline, []).append(ArchivedSegment(segment, item.size, seen))
        elif piece := parse_piece(name):
            open_ones.setdefault(parse_segment_name(piece[0], size), []).append(item)
    whole = {item.segment for group in segments.values() for item in group}
    partials: dict[int, list[ArchivedPartial]] = {}
    cleared: list[Segment] = []
    for segment, items in open_ones.items():
        if segment in whole:
            continue
        if (partial := _partial(store, system_identifier, segment, items)) is None:
            cleared.append(segment)
        else:
            partials.setdefault(segment.timeline, []).append(partial)
    there = [*whole, *cleared, *(item.segment for group in partials.values() for item in group)]
    there += [runs[-1].segment(number) for runs in indexed.values() for number in _last(runs[-1].count)]
    waiting = [*missing_near_the_end(there), *cleared]
    for segment, stored_size in _on_their_way(store, system_identifier, waiting):
        group = segments.setdefault(segment.timeline, [])
        group.append(ArchivedSegment(segment, stored_size))
        group.sort(key=lambda item: item.segment.start)
    records, problems = _records(store, system_identifier, etags)
    return WalArchive(
        system_identifier=system_identifier,
        segment_size=size,
        segments={
            timeline: Segments(indexed.get(timeline, ()), segments.get(timeline, ()))
            for timeline in sorted({*indexed, *segments})
        },
        partials={timeline: tuple(group) for timeline, group in partials.items()},
        histories=tuple(sorted(histories)),
        breaks=records.as_breaks(),
        followed=records.followed,
        problems=problems,
        stored=stored,
        etags=etags,
    )


def _last(count: int) -> range:
    return range(max(0, count - IN_FLIGHT), count)


def _and(stored: Stored, item: ListedObject, now: datetime) -> Stored:
    age = now - item.modified
    return Stored(
        stored.objects + 1,
        stored.size + item.size,
        stored.day + (item.size if age <= timedelta(days=1) else 0),
        stored.week + (item.size if age <= timedelta(days=7) else 0),
    )


def missing_near_the_end(there: Iterable[Segment]) -> list[Segment]:
    """Segments that are missing near the end of a timeline although there is WAL after them. Pure."""
    by_timeline: dict[int, dict[int, Segment]] = {}
    for segment in there:
        by_timeline.setdefault(segment.timeline, {})[segment.start] = segment
    missing = []
    for found in by_timeline.values():
        last = found[max(found)]
        first = max(min(found), last.start - IN_FLIGHT * last.size)
        missing += [
            Segment(last.timeline, start, last.size)
            for start in range(first, last.start, last.size)
            if start not in found
        ]
    return missing


def _on_their_way(
    store: ObjectStore, system_identifier: str, waiting: Sequence[Segment]
) -> Iterator[tuple[Segment, int]]:
    """Those of these segments that arrived during the listing, with their stored size in bytes.

    A listing is not a snapshot: it can pass a segment's key before the segment is put, and then find the next one.
    Besides, segments are uploaded in parallel, so a later one may arrive first.
    """
    for look_number in range(_LOOKS):
        still = []
        for segment in waiting:
            head = look(store, file_key(system_identifier, segment.name))
            if head is None:
                still.append(segment)
            else:
                yield segment, head.size
        if not still or not _grows(store, system_identifier):
            return
        waiting = still
        time.sleep(_LOOK_AGAIN_S * (look_number + 1))


def _grows(store: ObjectStore, system_identifier: str) -> bool:
    """Whether a receiver is running, by the age of its lease."""
    head = look(store, lease_key(system_identifier))
    return head is not None and head.age_s < _AT_WORK_S


def _records(
    store: ObjectStore, system_identifier: str, etags: Mapping[str, str]
) -> tuple[ArchiveRecords, tuple[str, ...]]:
    """The records and the problems in them. No request if the folder's listing shows no records."""
    key = records_key(system_identifier)
    if key not in etags:
        return ArchiveRecords(), ()
    return remembered(store, key, etags[key], lambda: known_records(store, system_identifier))


def _partial(
    store: ObjectStore, system_identifier: str, segment: Segment, listed: Sequence[ListedObject]
) -> ArchivedPartial | None:
    """The partial; None if it was removed since it was listed."""
    found = find_open(store, system_identifier, segment, listed)
    if found is None:
        return None
    return ArchivedPartial(segment, found.size, found.end_lsn, file_key(system_identifier, found.last))
