"""Finds the moment: searches the archived WAL for commits that changed a table.

A table that still exists is followed backwards from its current file. A dropped one is looked up just before commits
that dropped tables, newest first, in the catalogue of a cluster recovered to that point; so is one whose file before
some commit cannot be determined.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from pathlib import Path

from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.programs import Programs, server_programs
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.progress import Report
from tmi_ops.recovery.point_in_time.facts import RecoveryFacts, read_facts
from tmi_ops.recovery.point_in_time.planning import bases_on, choose_line
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.recovery.point_in_time.waldump import record_lines
from tmi_ops.rescue.past import Moment, past_database
from tmi_ops.rescue.relations import Relation, Relations, read_relations
from tmi_ops.rescue.table_events import (
    Event,
    History,
    drops,
    events_backwards,
    events_forwards,
    partitions_gone,
    together,
    with_partitions_gone,
)
from tmi_ops.rescue.wal_events import Commit, Commits, File, parse_record
from tmi_ops.settings import Settings
from tmi_ops.store.objects import ObjectStore
from tmi_ops.wal.coverage import WalFile, coverage
from tmi_ops.wal.fetching import fetch_wal_file

# Segments read by one pg_waldump, so that records which cross into the next segment are read completely.
AT_A_TIME = 8
# Files read before a stretch: they contain earlier changes of transactions that commit within it.
LEAD_IN = 8
# Looking up the names just before a commit costs a restore.
LOOKED_UP = 8
FETCHES_AT_ONCE = 4


@dataclass(frozen=True)
class Found:
    """What happened to a table between two moments, oldest first.

    Args:
        since: None for the whole archive, newest first, until something was found.
        blind: commits that may or may not have changed its rows.
        exists: whether the table exists now.
        segments: how many WAL files were searched; `reached`: their last commit, None if there was none.
    """

    table: str
    since: datetime | None
    until: datetime
    events: tuple[Event, ...]
    exists: bool
    segments: int
    reached: datetime | None
    blind: tuple[Commit, ...] = ()


def find_events(
    settings: Settings, store: ObjectStore, table: str, since: datetime | None, until: datetime, report: Report
) -> Found:
    """Search the archived WAL between two moments; without `since` all of it, newest first, until something is found.

    Raises:
        RecoveryError: there is no such table, or the archive has no WAL of that time.
        ProgramError: PostgreSQL programs of the server's version are not installed.
        StoreError: the store failed.
    """
    facts = read_facts(store)
    programs = server_programs(facts.server_major, settings.pg_bindir)
    now = read_relations(settings.postgres)
    found = now.find(table)
    search = _Search(settings, store, facts, programs, table, now, report)
    members = {one.oid: one for one in (now.family(found) if found else ())}
    history, segments, reached = History(()), 0, None
    for stretch in _stretches(facts, since):
        commits = [
            commit
            for commit in search.commits(stretch, until)
            if commit.lsn >= stretch.begin and (since is None or since <= commit.at) and commit.at <= until
        ]
        segments, reached = segments + len(stretch.files), reached or (commits[-1].at if commits else None)
        if found is None:
            history = search.of_gone(commits)
        else:
            history, members = search.followed(commits, found, members)
        if history.events or history.blind or (found is not None and not members):
            break
    if found is None and not history.events:
        raise RecoveryError(
            f"The table {table} does not exist, and the searched WAL does not drop a table of that name.",
            hint="name it as schema.table; `tmi-ops recover diff` lists tables that were dropped since a moment",
            code=Code.NOT_IN_PAST,
        )
    return Found(table, since, until, history.events, found is not None, segments, reached, history.blind)


@dataclass(frozen=True)
class _Stretch:
    """WAL to search: commits from `begin` on; earlier files contain earlier changes of their transactions."""

    files: Sequence[WalFile]
    begin: int


def _stretches(facts: RecoveryFacts, since: datetime | None) -> Iterator[_Stretch]:
    """Archived WAL from a moment on; without one, from each base backup to the next, newest first."""
    if since is not None:
        yield _Stretch(_files_since(facts, since), 0)
        return
    line = choose_line(facts, None)
    files = coverage(facts.archive, line).files
    begins = sorted({parse_lsn(base.start_lsn) for base in bases_on(facts, line)})
    ends = [*begins[1:], None]
    if begins and files and files[0].segment.start < begins[0]:
        begins, ends = [0, *begins], [begins[0], *ends]
    for begin, end in zip(reversed(begins or [0]), reversed(ends), strict=True):
        own = [place for place, file in enumerate(files) if file.segment.end > begin and _begins_before(file, end)]
        if own:
            yield _Stretch(files[max(0, own[0] - LEAD_IN) : own[-1] + 1], begin)


def _begins_before(file: WalFile, end: int | None) -> bool:
    return end is None or file.segment.start <= end


@dataclass(frozen=True)
class _Search:
    """The search for one table."""

    settings: Settings
    store: ObjectStore
    facts: RecoveryFacts
    programs: Programs
    table: str
    now: Relations
    report: Report
    _looked_up: dict[int, Relations] = field(default_factory=dict)

    def commits(self, stretch: _Stretch, until: datetime) -> Iterator[Commit]:
        return _commits(self.settings, self.store, self.facts, self.programs, stretch.files, until, self.report)

    def followed(
        self, commits: Sequence[Commit], found: Relation, members: Mapping[int, Relation]
    ) -> tuple[History, dict[int, Relation]]:
        """What happened to an existing table or its partitions, and these as they were before."""
        histories = {oid: self._followed(commits, one) for oid, one in members.items() if one.file}
        gone: list[Event] = []
        if found.file is None:
            gone, lost = self._partitions_gone(commits, found, members)
            members = {**members, **{one.oid: one for one, _ in lost}}
            histories |= {one.oid: _around(commits, commit, one.oid, one.file) for one, commit in lost if one.file}
        before = {
            oid: replace(one, file=histories[oid].file) if oid in histories else one
            for oid, one in members.items()
            if oid not in histories or histories[oid].file
        }
        if found.file is not None:
            return histories[found.oid], before
        by_name = {str(members[oid].name): history for oid, history in histories.items()}
        return with_partitions_gone(together(by_name), gone), before

    def _partitions_gone(
        self, commits: Sequence[Commit], found: Relation, members: Mapping[int, Relation]
    ) -> tuple[list[Event], list[tuple[Relation, Commit]]]:
        """Commits by which a table lost partitions, and these partitions as they were just before the newest ones."""
        wholes = {oid for oid, one in members.items() if one.file is None}
        events: list[Event] = []
        lost: dict[int, tuple[Relation, Commit]] = {}
        gone = list(partitions_gone(commits, wholes, self._file_of("pg_catalog.pg_inherits")))
        for number, event in enumerate(reversed(gone)):
            then = self._lost(event.commit, found, members) if number < LOOKED_UP else []
            went = [one for one in then if one.oid not in lost]
            lost |= {one.oid: (one, event.commit) for one in went}
            events.append(replace(event, partitions=tuple(str(one.name) for one in went)))
        return events, list(lost.values())

    def _lost(self, commit: Commit, found: Relation, members: Mapping[int, Relation]) -> list[Relation]:
        """The partitions that a table had just before a commit and lost; empty if that cannot be determined."""
        self.report.note(f"Restoring to just before {commit.at:%Y-%m-%d %H:%M:%S %Z} to look up partitions.")
        with suppress(RecoveryError):
            then = self._before(commit)
            whole = then.by_oid.get(found.oid)
            if whole is not None:
                return [one for one in then.family(whole) if one.oid not in members and one.file]
        return []

    def _followed(self, commits: Sequence[Commit], table: Relation) -> History:
        if table.file is None:  # only tables with rows of their own are followed
            raise AssertionError
        history = events_backwards(commits, table.oid, table.file, self._file_of("pg_catalog.pg_attribute"))
        if not history.blind:
            return history
        # Follow the rest forwards, from the other end.
        with suppress(RecoveryError):
            then = self._before(history.blind[0]).by_oid.get(table.oid)
            if then is not None and then.file is not None:
                before = events_forwards(history.blind, then.oid, then.file)
                return History((*before.events, *history.events), before.blind, then.file)
        return history

    def of_gone(self, commits: Sequence[Commit]) -> History:
        """What happened to a dropped table: look up its name just before commits that dropped tables."""
        for commit in drops(commits, self._file_of("pg_catalog.pg_class").database)[:LOOKED_UP]:
            self.report.note(f"Restoring to just before {commit.at:%Y-%m-%d %H:%M:%S %Z} to look up {self.table}.")
            then = self._before(commit)
            found = then.find(self.table)
            if found is None:
                continue
            members = [one for one in then.family(found) if one.file]
            histories = {str(one.name): _around(commits, commit, one.oid, one.file) for one in members if one.file}
            history = histories[str(found.name)] if found.file else together(histories)
            if any(event.kind == "dropped" for event in history.events):
                return history
        return History(())

    def _before(self, commit: Commit) -> Relations:
        """The tables as they were just before a commit."""
        if commit.lsn not in self._looked_up:
            moment = Moment(Target(lsn=commit.lsn, inclusive=False))
            with past_database(self.settings, self.store, moment, self.report) as past:
                self._looked_up[commit.lsn] = read_relations(past.address)
        return self._looked_up[commit.lsn]

    def _file_of(self, catalogue: str) -> File:
        """The file of a system catalogue."""
        found = self.now.find(catalogue)
        if found is None or found.file is None:
            raise AssertionError
        return found.file


def _around(commits: Sequence[Commit], moment: Commit, oid: int, file: File) -> History:
    """What happened to a table before and since a commit; `file` is its file just before the commit."""
    earlier = events_backwards([one for one in commits if one.lsn < moment.lsn], oid, file)
    since = events_forwards([one for one in commits if one.lsn >= moment.lsn], oid, file)
    return History((*earlier.events, *since.events), earlier.blind, earlier.file)


def _files_since(facts: RecoveryFacts, since: datetime) -> list[WalFile]:
    """Files from the newest base backup before that moment on, because a segment does not show its time."""
    line = choose_line(facts, None)
    before = [base for base in bases_on(facts, line) if base.consistent_at <= since]
    start = max((parse_lsn(base.start_lsn) for base in before), default=0)
    files = [file for file in coverage(facts.archive, line).files if file.segment.end > start]
    if not files:
        raise RecoveryError(
            "The archive has no WAL of that time.",
            hint="see what it has: `tmi-ops wal status`; archive the latest WAL: `tmi-ops wal stream --catch-up`",
        )
    return files


def _commits(
    settings: Settings,
    store: ObjectStore,
    facts: RecoveryFacts,
    programs: Programs,
    files: Sequence[WalFile],
    until: datetime,
    report: Report,
) -> Iterator[Commit]:
    """Commits in order, up to the first one later than `until`."""
    scratch = settings.home / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    gathered = Commits()
    with (
        tempfile.TemporaryDirectory(prefix="find-", dir=scratch) as name,
        report.phase("search the WAL", total=len(files), unit="objects") as phase,
    ):
        reader = _Reader(programs, Path(name))
        for batch in _batches(files):
            _fetch(store, facts, batch, Path(name))
            for commit in gathered.read(reader.records(batch)):
                yield commit
                if commit.at > until:
                    return
            for file in batch[:-1]:
                (Path(name) / file.name).unlink(missing_ok=True)
            phase.advance(len(batch) - 1)


def _batches(files: Sequence[WalFile]) -> Iterator[list[WalFile]]:
    """Adjacent files of one timeline; each batch repeats the last file of the one before, to end its last record."""
    for _, group in groupby(files, key=lambda file: file.segment.timeline):
        same = list(group)
        for start in range(0, len(same), AT_A_TIME):
            yield same[max(0, start - 1) : start + AT_A_TIME]


def _fetch(store: ObjectStore, facts: RecoveryFacts, batch: Sequence[WalFile], directory: Path) -> None:
    wanted = [file for file in batch if not (directory / file.name).exists()]

    def fetch(file: WalFile) -> bool:
        return fetch_wal_file(store, facts.system_identifier, file.stored, directory / file.name)

    with ThreadPoolExecutor(FETCHES_AT_ONCE, thread_name_prefix="find") as pool:
        for file, there in zip(wanted, pool.map(fetch, wanted), strict=True):
            if not there:
                raise RecoveryError(
                    f"The WAL file {file.stored} is missing from the archive.",
                    hint="see the gaps with `tmi-ops wal gaps`, and start the search after the gap with --from",
                )


@dataclass
class _Reader:
    """Reads batches, skipping what a batch shares with the one before."""

    programs: Programs
    directory: Path
    _reached: dict[str, int] = field(default_factory=dict)

    def records(self, batch: Sequence[WalFile]) -> Iterator[tuple[int, int, str, str]]:
        """Rows and files first, commits last, when everything that a transaction did is known."""
        cut = batch[-1].cut
        for manager in ("Heap", "Storage", "Transaction"):
            for line in record_lines(self.programs, self.directory, batch[0].name, batch[-1].name, manager):
                record = parse_record(line)
                if record is None or record[0] <= self._reached.get(manager, -1):
                    continue
                if cut is None or record[0] < cut:
                    self._reached[manager] = record[0]
                    yield record
