"""The index of an archive, one small object that says which segments exist: `wal/<system identifier>/index.zst`.

For each timeline it has the runs of whole segments without a gap, and nothing of their content. Segments after the last
run of a timeline are listed, so a receiver that dies before it writes the index causes a longer listing, never a wrong
one. A process that removes segments first takes them out of the index and marks them as `leaving`, so that a process
that has just listed them does not add them again. A process that fills a hole reopens the timeline from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from tmi_ops.errors import ObjectExistsError, StoreError
from tmi_ops.postgres.wal_files import Segment
from tmi_ops.store.objects import ListedObject, ObjectStore
from tmi_ops.store.packed import Limits, pack, read_packed, write_packed
from tmi_ops.store.small_objects import look
from tmi_ops.wal.layout import cluster_folder, file_key, index_key
from tmi_ops.wal.runs import Run, merged

FORMAT_VERSION = 1
LIMITS = Limits(stored=16 << 20, plain=128 << 20)
# A page of a listing has 1,000 objects. A tail of this many segments is added to the index.
LONG_TAIL = 400
# The newest segments of a timeline stay out of the index, because several are uploaded at once.
KEPT_OUT = 32
DAYS_KEPT = 8
# 256 TiB of WAL with segments of 16 MiB. An index with more was not written by tmi_ops.
_MOST_SEGMENTS = 1 << 24
# Removing segments takes less time than this.
LEAVING_FOR = timedelta(days=2)
_ATTEMPTS = 8


@dataclass(frozen=True)
class ListedSegment:
    """A whole segment from a listing. `size` is in stored bytes."""

    segment: Segment
    size: int
    stored_at: datetime


class IndexedRun(BaseModel):
    """`count` segments of a timeline from LSN `start` on. `size` is their stored bytes in total."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    timeline: int = Field(ge=1, le=0xFFFFFFFF)
    start: int = Field(ge=0)
    count: int = Field(ge=1, le=_MOST_SEGMENTS)
    size: int = Field(ge=0)


class Leaving(BaseModel):
    """Segments of a timeline from LSN `start` to `end` that are being removed; this began at `since`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    timeline: int
    start: int
    end: int
    since: AwareDatetime


class WalIndex(BaseModel):
    """The runs by timeline and LSN. `days`: by day, the number of indexed segments stored on it and their bytes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: int = FORMAT_VERSION
    segment_size: int = Field(ge=1 << 20, le=1 << 30)
    runs: tuple[IndexedRun, ...] = ()
    leaving: tuple[Leaving, ...] = ()
    days: dict[str, tuple[int, int]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _runs_follow_each_other(self) -> Self:
        ends: dict[int, int] = {}
        for run in self.runs:
            if run.start % self.segment_size or run.start < ends.get(run.timeline, 0):
                raise ValueError("runs overlap, or begin within a segment")
            ends[run.timeline] = run.start + run.count * self.segment_size
        return self

    def of(self, timeline: int) -> tuple[Run, ...]:
        """The runs of a timeline, in WAL order."""
        return tuple(
            Run(Segment(timeline, run.start, self.segment_size), run.count, run.size)
            for run in self.runs
            if run.timeline == timeline
        )


def extended(index: WalIndex, listed: Iterable[ListedSegment], now: datetime) -> WalIndex:
    """The index with the listed segments after its runs, except the newest of each timeline and those leaving. Pure.

    Args:
        listed: in WAL order within each timeline.
    """
    by_timeline: dict[int, list[ListedSegment]] = {}
    for item in listed:
        by_timeline.setdefault(item.segment.timeline, []).append(item)
    runs: list[IndexedRun] = []
    days = dict(index.days)
    for timeline in sorted({*by_timeline, *(run.timeline for run in index.runs)}):
        known = index.of(timeline)
        end = known[-1].end if known else 0
        new = [item for item in by_timeline.get(timeline, ())[:-KEPT_OUT] if item.segment.start >= end]
        new = [item for item in new if not any(_meets(one, item.segment) for one in index.leaving)]
        for item in new:
            day = item.stored_at.date().isoformat()
            count, size = days.get(day, (0, 0))
            days[day] = (count + 1, size + item.size)
        runs += _as_indexed(timeline, merged([*known, *(Run(item.segment, 1, item.size) for item in new)]))
    oldest = (now.astimezone(UTC) - timedelta(days=DAYS_KEPT)).date().isoformat()
    return index.model_copy(
        update={
            "runs": tuple(runs),
            "leaving": tuple(one for one in index.leaving if now - one.since < LEAVING_FOR),
            "days": {day: told for day, told in days.items() if day >= oldest},
        }
    )


def without_segments(index: WalIndex, gone: Iterable[Segment], now: datetime) -> WalIndex:
    """The index without these segments, which are marked as leaving. Pure. The size of a run that was cut is prorated
    by its number of segments."""
    spans = _spans(gone)
    runs: list[IndexedRun] = []
    for run in index.runs:
        pieces = [(run.start, run.start + run.count * index.segment_size)]
        for timeline, start, end in spans:
            if timeline == run.timeline:
                pieces = [part for piece in pieces for part in _cut(piece, start, end)]
        for start, end in pieces:
            count = (end - start) // index.segment_size
            share = run.size * count // run.count
            runs.append(IndexedRun(timeline=run.timeline, start=start, count=count, size=share))
    leaving = [Leaving(timeline=timeline, start=start, end=end, since=now) for timeline, start, end in spans]
    kept = tuple(one for one in index.leaving if now - one.since < LEAVING_FOR)
    return index.model_copy(update={"runs": tuple(runs), "leaving": (*kept, *leaving)})


def opened_at(index: WalIndex, segment: Segment) -> WalIndex:
    """The index without the segment's timeline from this segment on, so that it is listed again. Pure."""
    runs: list[IndexedRun] = []
    for run in index.runs:
        end = run.start + run.count * index.segment_size
        if run.timeline != segment.timeline or end <= segment.start:
            runs.append(run)
        elif run.start < segment.start:
            count = (segment.start - run.start) // index.segment_size
            runs.append(run.model_copy(update={"count": count, "size": run.size * count // run.count}))
    leaving = tuple(one for one in index.leaving if not _meets(one, segment))
    return index.model_copy(update={"runs": tuple(runs), "leaving": leaving})


def before(index: WalIndex, segment: Segment) -> WalIndex:
    """The index with the older timelines and the segment's own timeline before it. The rest is to be listed. Pure."""
    opened = opened_at(index, segment)
    runs = tuple(run for run in opened.runs if run.timeline <= segment.timeline)
    return opened.model_copy(update={"runs": runs, "leaving": index.leaving})


def without(index: WalIndex, believed: WalIndex) -> WalIndex:
    """The runs of `index` after those of `believed`, which were listed again. Pure."""
    runs: list[IndexedRun] = []
    for run in index.runs:
        ends = [one.start + one.count * index.segment_size for one in believed.runs if one.timeline == run.timeline]
        start = max([run.start, *ends])
        count = run.count - (start - run.start) // index.segment_size
        if count > 0:
            runs.append(run.model_copy(update={"start": start, "count": count}))
    return index.model_copy(update={"runs": tuple(runs)})


def uncounted(index: WalIndex, named: WalIndex, listed: Iterable[ListedSegment]) -> WalIndex:
    """The index with listed segments that are in the runs of `named` subtracted from its days. Pure."""
    days = dict(index.days)
    for item in listed:
        day, start = item.stored_at.date().isoformat(), item.segment.start
        if day in days and any(run.start <= start < run.end for run in named.of(item.segment.timeline)):
            count, size = days[day]
            days[day] = (max(0, count - 1), max(0, size - item.size))
    return index.model_copy(update={"days": days})


def read_index(store: ObjectStore, system_identifier: str, etag: str) -> tuple[WalIndex, str] | None:
    """The index and its ETag. None if there is no valid, trusted index.

    Args:
        etag: from a listing. Empty: not known.

    Raises:
        StoreError: the store failed.
    """
    return read_packed(store, index_key(system_identifier), etag, LIMITS, _understood)


def write_index(store: ObjectStore, system_identifier: str, index: WalIndex, etag: str | None) -> None:
    """Replace the index that had this ETag. None: there was none.

    Raises:
        ObjectExistsError: another process wrote it in the meantime.
        UntrustedError: keys are pinned, and this host has no key that may sign it.
        StoreError: the store failed, or our key may not write it.
    """
    write_packed(store, index_key(system_identifier), pack(index.model_dump_json().encode()), etag)


def withdraw(store: ObjectStore, system_identifier: str, gone: Sequence[Segment]) -> None:
    """Take segments that are about to be removed out of the index.

    If this host does not trust the index (others may), cannot sign a new one, or cannot write it (a full disk), the
    whole index is deleted.

    Raises:
        StoreError: it failed, so the segments must not be removed.
    """
    now = datetime.now(UTC)
    try:
        told = _change(store, system_identifier, lambda index: without_segments(index, gone, now))
    except StoreError as error:
        if error.transient:
            raise
        told = False
    if not told:
        store.delete([index_key(system_identifier)])


def reopen(store: ObjectStore, system_identifier: str, segment: Segment) -> None:
    """Make the timeline be listed again from a segment on that was just stored. Changes the index only if its runs go
    beyond the start of the segment, or if it marks the segment as leaving.

    Raises:
        StoreError: it failed, so the segment is missing from the index.
    """
    _change(
        store,
        system_identifier,
        lambda index: opened_at(index, segment) if _has_passed(index, segment) else index,
    )


def read_claims(store: ObjectStore, system_identifier: str) -> WalIndex | None:
    """Read the index, before everything is listed. None if there is no valid, trusted index.

    Raises:
        StoreError: the store failed.
    """
    head = look(store, index_key(system_identifier))
    found = None if head is None else read_index(store, system_identifier, head.etag)
    return None if found is None else found[0]


def lost_of(claims: WalIndex, there: Collection[Segment]) -> Iterator[Segment]:
    """The segments that are in the index but not in a complete listing made after it was read. Pure."""
    for run in claims.runs:
        for number in range(run.count):
            one = Segment(run.timeline, run.start + number * claims.segment_size, claims.segment_size)
            if one not in there:
                yield one


def correct(store: ObjectStore, system_identifier: str, claims: WalIndex | None, there: Collection[Segment]) -> int:
    """Take segments out of the index that no longer exist, because a person or a lifecycle rule removed them.

    Args:
        claims: the result of `read_claims` before `there` was listed.

    Returns:
        The number of segments taken out.

    Raises:
        StoreError: it failed, so the index still names segments that do not exist.
    """
    lost = [] if claims is None else list(lost_of(claims, there))
    if lost:
        withdraw(store, system_identifier, lost)
    return len(lost)


def listed_behind(
    store: ObjectStore, system_identifier: str, folders: Collection[str], index: WalIndex
) -> list[ListedObject] | None:
    """List the objects in these folders of a cluster that come after the indexed segments of each timeline. None if the
    newest indexed segment of a timeline does not exist.

    Raises:
        StoreError: the store failed.
    """
    newest = {f"{run.timeline:08X}": index.of(run.timeline)[-1] for run in index.runs}
    if not newest.keys() <= set(folders):
        return None
    listed: list[ListedObject] = []
    for name in folders:
        run = newest.get(name)
        last = None if run is None else run.segment(run.count - 1)
        key = "" if last is None else file_key(system_identifier, last.name)
        ahead = file_key(system_identifier, run.segment(run.count - 2).name) if run and last and last.start else ""
        found = store.list_objects(f"{cluster_folder(system_identifier)}/{name}/", after=ahead)
        tail = [item for item in found if item.key >= key]
        if last is not None and not (tail and tail[0].key == key):
            return None
        listed += tail if last is None else tail[1:]
    return listed


def begins_as_told(store: ObjectStore, system_identifier: str, index: WalIndex) -> bool:
    """Whether the oldest indexed segment of every timeline exists. A lifecycle rule removes these first.

    Raises:
        StoreError: the store failed.
    """
    oldest = {run.timeline: run for run in reversed(index.runs)}
    firsts = (Segment(run.timeline, run.start, index.segment_size) for run in oldest.values())
    return all(look(store, file_key(system_identifier, first.name)) is not None for first in firsts)


def stored_per_day(index: WalIndex, since: datetime) -> int:
    """Bytes of indexed segments stored after the UTC day of `since`."""
    first = since.astimezone(UTC).date().isoformat()
    return sum(size for day, (_, size) in index.days.items() if day > first)


def _has_passed(index: WalIndex, segment: Segment) -> bool:
    runs = index.of(segment.timeline)
    return (bool(runs) and segment.start < runs[-1].end) or any(_meets(one, segment) for one in index.leaving)


def _change(store: ObjectStore, system_identifier: str, change: Callable[[WalIndex], WalIndex]) -> bool:
    """Change the index. False: it is not valid or not trusted, and was left as it is."""
    key = index_key(system_identifier)
    for _ in range(_ATTEMPTS):
        head = look(store, key)
        if head is None:
            return True
        found = read_index(store, system_identifier, head.etag)
        if found is None:
            return False
        index, etag = found
        after = change(index)
        if after == index:
            return True
        try:
            write_index(store, system_identifier, after, etag)
        except ObjectExistsError:
            continue
        return True
    raise StoreError(
        f"{key} was changed by another process at every attempt.", hint="run the command again", transient=True
    )


def _understood(plain: bytes) -> WalIndex | None:
    try:
        index = WalIndex.model_validate_json(plain)
    except ValidationError:
        return None
    return index if index.format_version == FORMAT_VERSION else None


def _as_indexed(timeline: int, runs: Iterable[Run]) -> list[IndexedRun]:
    return [IndexedRun(timeline=timeline, start=run.start, count=run.count, size=run.size) for run in runs]


def _meets(one: Leaving, segment: Segment) -> bool:
    return one.timeline == segment.timeline and segment.start < one.end and one.start < segment.end


def _spans(segments: Iterable[Segment]) -> list[tuple[int, int, int]]:
    """The timeline, start LSN and end LSN of each series of consecutive segments."""
    ordered = sorted(segments, key=lambda one: (one.timeline, one.start))
    found: list[tuple[int, int, int]] = []
    for one in ordered:
        if found and found[-1][0] == one.timeline and found[-1][2] >= one.start:
            found[-1] = (one.timeline, found[-1][1], one.end)
        else:
            found.append((one.timeline, one.start, one.end))
    return found


def _cut(piece: tuple[int, int], start: int, end: int) -> list[tuple[int, int]]:
    parts = [(piece[0], min(piece[1], start)), (max(piece[0], end), piece[1])]
    return [part for part in parts if part[0] < part[1]]
