"""Reads times and restore points from a few archived segments, to detect unreachable targets before the replay.

Without this, hours of replay could end with the message that the WAL does not go that far.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path

from tmi_ops.errors import IntegrityError
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.progress import Report
from tmi_ops.recovery.point_in_time import refusals
from tmi_ops.recovery.point_in_time.facts import Edge, Fork, NamedPlace, RecoveryFacts, WalClock
from tmi_ops.recovery.point_in_time.planning import bases_on, choose_line
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.recovery.point_in_time.wal_range import continued_at, wal_after
from tmi_ops.recovery.point_in_time.waldump import TransactionEnd, restore_points, transaction_ends
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.restore_points import RestorePoint, list_restore_points, read_restore_point
from tmi_ops.wal.coverage import WalFile, WalRange, coverage, files_of
from tmi_ops.wal.fetching import fetch_wal_file
from tmi_ops.wal.lineage import Lineage, Stretch

# An active database commits within this many segments; if it did not, only the replay can tell.
SEGMENTS_LOOKED_AT = 8
READERS = 3


def with_times(
    store: ObjectStore,
    facts: RecoveryFacts,
    target: Target,
    programs: Programs,
    scratch: Path,
    report: Report,
    *,
    timeline: int | None = None,
) -> RecoveryFacts:
    """Add what is needed to judge the target: commit times for a time, the LSN for a restore point.

    Args:
        scratch: a directory for segments while they are read; created if absent.

    Raises:
        RecoveryError: there is no such timeline.
        StoreError: the store failed.
    """
    if target.kind not in ("time", "name"):
        return facts
    line = choose_line(facts, timeline)
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="wal-", dir=scratch) as directory:
        reader = _SegmentReader(store, facts.system_identifier, programs, Path(directory))
        if target.name is not None:
            return replace(facts, restore_point=_find_restore_point(reader, facts, line, target.name, report))
        if target.time is None:
            raise AssertionError
        return replace(facts, clock=_read_clock(reader, facts, line, target.time))


def _read_clock(reader: _SegmentReader, facts: RecoveryFacts, line: Lineage, time: datetime) -> WalClock:
    """The newest commit is not read if a later base backup already shows that the WAL goes beyond `time`."""
    bases = bases_on(facts, line)
    goes_beyond = bool(bases) and bases[0].consistent_at > time
    newest = None if goes_beyond else _last(reader, reversed(coverage(facts.archive, line).files))
    before = [base for base in bases if base.consistent_at <= time]
    after = max((parse_lsn(base.stop_lsn) for base in before), default=0)
    covered = coverage(facts.archive, line)
    cut_off = [base for base in before if covered.goes_on_behind(continued_at(base, line))]
    ranges = {(wal := wal_after(base, line, facts.archive)).end: wal for base in cut_off}
    forks = [
        _fork(reader, facts, line, stretch, following)
        for stretch, following in zip(line.stretches, line.stretches[1:], strict=False)
        if stretch.end is not None and stretch.end >= after
    ]
    return WalClock(newest, tuple(forks), tuple(_edge(reader, facts, line, wal) for wal in ranges.values()))


def _edge(reader: _SegmentReader, facts: RecoveryFacts, line: Lineage, wal: WalRange) -> Edge:
    behind = coverage(facts.archive, line).range_from(wal.end, wal.end) if wal.broken is not None else None
    return Edge(
        lsn=wal.end,
        last_before=_last(reader, reversed(wal.files), until=wal.end),
        first_after=_first(reader, behind.files, wal.end) if behind is not None else None,
    )


def _fork(reader: _SegmentReader, facts: RecoveryFacts, line: Lineage, stretch: Stretch, following: Stretch) -> Fork:
    left = stretch.end or 0
    abandoned = files_of(facts.archive, Stretch(stretch.timeline, left, None))
    before = [file for file in coverage(facts.archive, line).files if file.segment.start < left]
    return Fork(
        timeline=stretch.timeline,
        lsn=left,
        last_before=_last(reader, reversed(before), until=left),
        first_after=_first(reader, files_of(facts.archive, following), left),
        first_abandoned=_first(reader, abandoned, left),
    )


def _last(reader: _SegmentReader, files: Iterable[WalFile], until: int | None = None) -> datetime | None:
    """The newest commit, searching backwards."""
    for ends in reader.transaction_ends(files):
        before = [end.at for end in ends if until is None or end.lsn < until]
        if before:
            return max(before)
    return None


def _first(reader: _SegmentReader, files: Iterable[WalFile], since: int) -> datetime | None:
    """The first commit, searching forwards."""
    for ends in reader.transaction_ends(files):
        after = [end for end in ends if end.lsn >= since]
        if after:
            return after[0].at
    return None


def _find_restore_point(
    reader: _SegmentReader, facts: RecoveryFacts, line: Lineage, name: str, report: Report
) -> NamedPlace | None:
    """Find it by its record in the store, else the newest of that name by searching the WAL backwards.

    Raises:
        RecoveryError: there is no record of this name, but one of a similar name.
    """
    record = read_restore_point(reader.store, name)
    if record is not None and _is_on(line, facts, record):
        return NamedPlace(parse_lsn(record.lsn), record.created_at)
    similar = get_close_matches(name, list_restore_points(reader.store), n=3, cutoff=0.8)
    if record is None and similar:
        raise refusals.misspelt_restore_point(name, similar)
    files = list(reversed(coverage(facts.archive, line).files))
    with report.phase(f"search for {name}", total=len(files), unit="objects") as phase:
        for file, path in reader.fetched(files):
            phase.advance(1)
            points = [point for point in restore_points(reader.programs, path) if point.name == name]
            on_line = [point for point in points if file.cut is None or point.lsn < file.cut]
            if on_line:
                return NamedPlace(on_line[-1].lsn, on_line[-1].at)
    return None


def _is_on(line: Lineage, facts: RecoveryFacts, record: RestorePoint) -> bool:
    if record.system_identifier != facts.system_identifier or record.timeline is None:
        return False
    lsn = parse_lsn(record.lsn)
    return line.stretches[0].start < lsn and line.timeline_at(lsn - 1) == record.timeline


@dataclass(frozen=True)
class _SegmentReader:
    store: ObjectStore
    system_identifier: str
    programs: Programs
    directory: Path

    def transaction_ends(self, files: Iterable[WalFile]) -> Iterator[list[TransactionEnd]]:
        """Transaction ends of the first few files; stops at a segment that cannot be read."""
        for file, _ in zip(files, range(SEGMENTS_LOOKED_AT), strict=False):
            with self._fetched(file) as path:
                if path is None:
                    return
                ends = transaction_ends(self.programs, path)
            yield [end for end in ends if file.cut is None or end.lsn < file.cut]

    def fetched(self, files: Sequence[WalFile]) -> Iterator[tuple[WalFile, Path]]:
        """Yield each file, on local disk until the next is requested; a few are prefetched."""
        waiting = iter(files)
        with ThreadPoolExecutor(READERS, thread_name_prefix="wal-search") as pool:
            ahead: deque[tuple[WalFile, Future[Path | None]]] = deque()
            try:
                while True:
                    while len(ahead) < READERS and (file := next(waiting, None)) is not None:
                        ahead.append((file, pool.submit(self._fetch, file)))
                    if not ahead:
                        return
                    file, fetching = ahead.popleft()
                    path = fetching.result()
                    if path is not None:
                        yield file, path
                        path.unlink()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    @contextmanager
    def _fetched(self, file: WalFile) -> Iterator[Path | None]:
        path = self._fetch(file)
        try:
            yield path
        finally:
            if path is not None:
                path.unlink()

    def _fetch(self, file: WalFile) -> Path | None:
        """None if the segment is missing or damaged; the replay reports that if it gets there."""
        path = self.directory / file.name
        try:
            there = fetch_wal_file(self.store, self.system_identifier, file.stored, path)
        except IntegrityError:
            return None
        return path if there else None
