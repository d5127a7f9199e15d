"""Which segments an archive holds, as one small object: `wal/<system identifier>/index.zst`.

It says of each timeline where whole segments lie without a gap, and nothing of what they hold. Whatever lies behind the
last run of a timeline is listed, so a receiver that dies before it writes the index costs a longer listing, no truth.
Who removes segments takes them out of the index first, and says so in it (`leaving`), so that nobody who has just seen
them writes them in again. Who fills a hole opens the timeline again from there on.
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
from tmi_ops.store.single_put import look
from tmi_ops.wal.layout import cluster_folder, file_key, index_key
from tmi_ops.wal.runs import Run, merged

FORMAT_VERSION = 1
LIMITS = Limits(stored=16 << 20, plain=128 << 20)
# A listing's page has a thousand objects: a tail that has grown to this is put into the index.
LONG_TAIL = 400
# The newest segments stay out: several are on their way at once.
KEPT_OUT = 32
DAYS_KEPT = 8
# A quarter of a petabyte of WAL: what names more was not written by us.
_MOST_SEGMENTS = 1 << 24
# Whoever removes segments is done with it by then.
LEAVING_FOR = timedelta(days=2)
_ATTEMPTS = 8


@dataclass(frozen=True)
class ListedSegment:
    """A whole segment as a listing has it; `size` in stored bytes."""

    segment: Segment
    size: int
    stored_at: datetime


class IndexedRun(BaseModel):
    """`count` segments of a timeline from LSN `start` on, `size` stored bytes in all."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    timeline: int = Field(ge=1, le=0xFFFFFFFF)
    start: int = Field(ge=0)
    count: int = Field(ge=1, le=_MOST_SEGMENTS)
    size: int = Field(ge=0)


class Leaving(BaseModel):
    """From LSN `start` to `end` segments of a timeline are being removed since `since`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    timeline: int
    start: int
    end: int
    since: AwareDatetime


class WalIndex(BaseModel):
    """The runs by timeline and LSN. `days`: by day, how many segments and bytes of them were stored then."""

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
        """The runs of a timeline, in the order of the WAL."""
        return tuple(
            Run(Segment(timeline, run.start, self.segment_size), run.count, run.size)
            for run in self.runs
            if run.timeline == timeline
        )


def extended(index: WalIndex, listed: Iterable[ListedSegment], now: datetime) -> WalIndex:
    """With what was listed behind its runs, but for the newest of each timeline and what is leaving. Pure.

    Args:
        listed: in the order of the WAL within each timeline.
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
    """With these segments taken out, and said to be leaving. Pure; the sizes left are shares of the run's."""
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
    """With nothing said of the segment's timeline from there on: it is listed again. Pure."""
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
    """With what it says of older timelines, and of the segment's own up to there: the rest is listed. Pure."""
    opened = opened_at(index, segment)
    runs = tuple(run for run in opened.runs if run.timeline <= segment.timeline)
    return opened.model_copy(update={"runs": runs, "leaving": index.leaving})


def without(index: WalIndex, believed: WalIndex) -> WalIndex:
    """What it says beside what is believed of it: that was listed again. Pure."""
    runs: list[IndexedRun] = []
    for run in index.runs:
        ends = [one.start + one.count * index.segment_size for one in believed.runs if one.timeline == run.timeline]
        start = max([run.start, *ends])
        count = run.count - (start - run.start) // index.segment_size
        if count > 0:
            runs.append(run.model_copy(update={"start": start, "count": count}))
    return index.model_copy(update={"runs": tuple(runs)})


def uncounted(index: WalIndex, named: WalIndex, listed: Iterable[ListedSegment]) -> WalIndex:
    """With its days less what `named` had counted in them and was listed again. Pure."""
    days = dict(index.days)
    for item in listed:
        day, start = item.stored_at.date().isoformat(), item.segment.start
        if day in days and any(run.start <= start < run.end for run in named.of(item.segment.timeline)):
            count, size = days[day]
            days[day] = (max(0, count - 1), max(0, size - item.size))
    return index.model_copy(update={"days": days})


def read_index(store: ObjectStore, system_identifier: str, etag: str) -> tuple[WalIndex, str] | None:
    """The index and its ETag; None where there is none that is to be believed.

    Args:
        etag: as a listing says; empty: not known.

    Raises:
        StoreError: the store failed.
    """
    return read_packed(store, index_key(system_identifier), etag, LIMITS, _understood)


def write_index(store: ObjectStore, system_identifier: str, index: WalIndex, etag: str | None) -> None:
    """Replace the index that had this ETag; None: there was none.

    Raises:
        ObjectExistsError: somebody else wrote it meanwhile.
        UntrustedError: keys are pinned, and this host has none that may sign it.
        StoreError: the store failed, or our key may not write it.
    """
    write_packed(store, index_key(system_identifier), pack(index.model_dump_json().encode()), etag)


def withdraw(store: ObjectStore, system_identifier: str, gone: Sequence[Segment]) -> None:
    """Take segments that are about to be removed out of the index. Who does not believe it while others may, may not
    sign another, or has a full disk, removes it as a whole.

    Raises:
        StoreError: it could not be done, so nothing of them may be removed.
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
    """Have the timeline listed again from a segment on that was just stored, where the index has passed it already, or
    says that it is leaving.

    Raises:
        StoreError: it could not be done: the index does not know of the segment then.
    """
    _change(
        store,
        system_identifier,
        lambda index: opened_at(index, segment) if _has_passed(index, segment) else index,
    )


def read_claims(store: ObjectStore, system_identifier: str) -> WalIndex | None:
    """What the index says, before everything is listed; None: nothing.

    Raises:
        StoreError: the store failed.
    """
    head = look(store, index_key(system_identifier))
    found = None if head is None else read_index(store, system_identifier, head.etag)
    return None if found is None else found[0]


def lost_of(claims: WalIndex, there: Collection[Segment]) -> Iterator[Segment]:
    """The segments that the index names and a listing of everything, made afterwards, does not. Pure."""
    for run in claims.runs:
        for number in range(run.count):
            one = Segment(run.timeline, run.start + number * claims.segment_size, claims.segment_size)
            if one not in there:
                yield one


def correct(store: ObjectStore, system_identifier: str, claims: WalIndex | None, there: Collection[Segment]) -> int:
    """Take out of the index what is not there: somebody removed it by hand, or a lifecycle rule did.

    Args:
        claims: as `read_claims` told before `there` was listed.

    Returns:
        How many segments that were.

    Raises:
        StoreError: it could not be done, and who believes the index goes on believing that they are there.
    """
    lost = [] if claims is None else list(lost_of(claims, there))
    if lost:
        withdraw(store, system_identifier, lost)
    return len(lost)


def listed_behind(
    store: ObjectStore, system_identifier: str, folders: Collection[str], index: WalIndex
) -> list[ListedObject] | None:
    """The objects in these folders of a cluster behind what the index names of a timeline. None: it names what is not
    there: the newest one of a timeline.

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
    """Whether the oldest segments that the index names are there, one of each timeline: a lifecycle rule removes these
    first.

    Raises:
        StoreError: the store failed.
    """
    oldest = {run.timeline: run for run in reversed(index.runs)}
    firsts = (Segment(run.timeline, run.start, index.segment_size) for run in oldest.values())
    return all(look(store, file_key(system_identifier, first.name)) is not None for first in firsts)


def stored_per_day(index: WalIndex, since: datetime) -> int:
    """Bytes of its segments that were stored since then, by full days of UTC."""
    first = since.astimezone(UTC).date().isoformat()
    return sum(size for day, (_, size) in index.days.items() if day > first)


def _has_passed(index: WalIndex, segment: Segment) -> bool:
    runs = index.of(segment.timeline)
    return (bool(runs) and segment.start < runs[-1].end) or any(_meets(one, segment) for one in index.leaving)


def _change(store: ObjectStore, system_identifier: str, change: Callable[[WalIndex], WalIndex]) -> bool:
    """False: there is one that is not to be believed; it was left as it is."""
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
    """Timeline, first and last LSN of segments that follow each other."""
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
