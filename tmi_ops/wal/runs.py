"""Consecutive segments, kept as runs: a million of them take no more memory than a thousand. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import overload

from tmi_ops.postgres.wal_files import Segment


@dataclass(frozen=True)
class ArchivedSegment:
    """A whole segment in the archive. `size` is its stored bytes; None: it comes from the index and was not listed.
    `seen` identifies the object; see `chapters.seen_as`."""

    segment: Segment
    size: int | None
    seen: str = field(default="", compare=False, repr=False)

    @property
    def name(self) -> str:
        return self.segment.name


@dataclass(frozen=True)
class Run:
    """`count` consecutive whole segments of a timeline. `size` is their stored bytes in total."""

    first: Segment
    count: int
    size: int

    @property
    def start(self) -> int:
        return self.first.start

    @property
    def end(self) -> int:
        return self.first.start + self.count * self.first.size

    def segment(self, number: int) -> Segment:
        return Segment(self.first.timeline, self.first.start + number * self.first.size, self.first.size)


class Segments(Sequence[ArchivedSegment]):
    """The whole segments of one timeline, in WAL order: first those of the runs, then those that were listed."""

    def __init__(self, runs: Iterable[Run], listed: Sequence[ArchivedSegment] = ()) -> None:
        self._before = tuple(runs)
        self._listed = tuple(listed)
        self.runs = merged([*self._before, *runs_of(self._listed)])
        self._ends = list(accumulate(run.count for run in self._before))

    @property
    def size(self) -> int:
        """Stored bytes."""
        return sum(run.size for run in self.runs)

    def __len__(self) -> int:
        return (self._ends[-1] if self._ends else 0) + len(self._listed)

    def __iter__(self) -> Iterator[ArchivedSegment]:
        for run in self._before:
            for number in range(run.count):
                yield ArchivedSegment(run.segment(number), None)
        yield from self._listed

    @overload
    def __getitem__(self, index: int) -> ArchivedSegment: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ArchivedSegment, ...]: ...
    def __getitem__(self, index: int | slice) -> ArchivedSegment | tuple[ArchivedSegment, ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        number = range(len(self))[index]
        of = bisect_right(self._ends, number)
        begins = self._ends[of - 1] if of else 0
        if of == len(self._before):
            return self._listed[number - begins]
        return ArchivedSegment(self._before[of].segment(number - begins), None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_same, self, other))

    def __hash__(self) -> int:
        return hash(self.runs)


def runs_of(segments: Sequence[ArchivedSegment]) -> tuple[Run, ...]:
    """The runs of segments of one timeline, which must be in WAL order."""
    if isinstance(segments, Segments):
        return segments.runs
    return merged(Run(item.segment, 1, item.size or 0) for item in segments)


def merged(runs: Iterable[Run]) -> tuple[Run, ...]:
    """Join consecutive runs. They must be in WAL order."""
    found: list[Run] = []
    first, count, size = None, 0, 0
    for run in runs:
        if first is not None and first.start + count * first.size == run.start:
            count, size = count + run.count, size + run.size
            continue
        if first is not None:
            found.append(Run(first, count, size))
        first, count, size = run.first, run.count, run.size
    return tuple(found if first is None else [*found, Run(first, count, size)])


def _same(one: ArchivedSegment, other: object) -> bool:
    return one == other
