"""Finding the moment: the archived WAL of a stretch of time is searched for what happened to a table.

A table that is still there is followed backwards from the file it has now. One that is gone is looked up just before
the commits that dropped any, the newest first, in the catalogue of a cluster recovered to there; so is one whose file
before some commit cannot be told.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from pathlib import Path

from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs, server_programs
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.progress import Report
from tmi_ops.recovery.point_in_time.facts import RecoveryFacts, read_facts
from tmi_ops.recovery.point_in_time.planning import bases_on, choose_line
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.recovery.point_in_time.waldump import record_lines
from tmi_ops.rescue.past import Moment, past_database
from tmi_ops.rescue.table_events import Event, History, drops, events_backwards, events_forwards
from tmi_ops.rescue.wal_events import Commit, Commits, File, parse_record
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.objects import ObjectStore
from tmi_ops.wal.archive import fetch_wal_file
from tmi_ops.wal.coverage import WalFile, coverage

# Segments read by one pg_waldump: records that go on in the next segment are read whole, as it is there.
AT_A_TIME = 8
# Files before a stretch that are read along: what a transaction did there is told by its commit in the stretch.
LEAD_IN = 8
# Each commit that dropped a table costs a restore, to learn the names of then.
LOOKED_UP = 8
FETCHES_AT_ONCE = 4
_FILE_OF = """
SELECT c.oid::bigint, (SELECT oid::bigint FROM pg_database WHERE datname = current_database()),
       pg_relation_filenode(c.oid)::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND (c.relname = %(table)s AND pg_table_is_visible(c.oid)
                           OR n.nspname || '.' || c.relname = %(table)s)
"""


@dataclass(frozen=True)
class Found:
    """What happened to a table between two moments, in the order of time.

    Args:
        since: None: all that is archived, the newest first, until something was found.
        blind: the commits of which it cannot be told whether they changed its rows.
        exists: whether the table is there now.
        segments: how many WAL files were searched; `reached`: the last commit in them, None: there was none.
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
    """Search the archived WAL between two moments; without a beginning all of it, the newest first, until something
    is found.

    Raises:
        RecoveryError: neither side knows such a table, or the archive has no WAL of then.
        ProgramError: no programs of the server's version are here.
        StoreError: the store failed.
    """
    facts = read_facts(store)
    programs = server_programs(facts.server_major, settings.pg_bindir)
    now = _look_up(settings.postgres, table)
    search = _Search(settings, store, facts, programs, table, report)
    file = now[1] if now else None
    history, segments, reached = History(()), 0, None
    for stretch in _stretches(facts, since):
        commits = [
            commit
            for commit in search.commits(stretch, until)
            if commit.lsn >= stretch.begin and (since is None or since <= commit.at) and commit.at <= until
        ]
        segments, reached = segments + len(stretch.files), reached or (commits[-1].at if commits else None)
        history = search.followed(commits, now[0], file) if now and file else search.of_gone(commits)
        if history.events or history.blind or (now is not None and history.file is None):
            break
        file = history.file
    if now is None and not history.events:
        raise RecoveryError(
            f"There is no table {table} now, and none of that name was dropped in the WAL that was searched.",
            next_step="name it as schema.table; `tmi-ops recover diff` lists what a moment had that is gone now",
        )
    return Found(table, since, until, history.events, now is not None, segments, reached, history.blind)


@dataclass(frozen=True)
class _Stretch:
    """WAL to be searched: commits from `begin` on; files before it hold what their transactions did earlier."""

    files: Sequence[WalFile]
    begin: int


def _stretches(facts: RecoveryFacts, since: datetime | None) -> Iterator[_Stretch]:
    """What is archived from a moment on; without one, from each base backup to the next, the newest first."""
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
    """For one table."""

    settings: Settings
    store: ObjectStore
    facts: RecoveryFacts
    programs: Programs
    table: str
    report: Report

    def commits(self, stretch: _Stretch, until: datetime) -> Iterator[Commit]:
        return _commits(self.settings, self.store, self.facts, self.programs, stretch.files, until, self.report)

    def followed(self, commits: Sequence[Commit], oid: int, file: File) -> History:
        """What happened to a table that is there."""
        history = events_backwards(commits, oid, file, _columns_file(self.settings.postgres))
        if not history.blind:
            return history
        # What could not be followed backwards is followed from the other end.
        with suppress(RecoveryError):
            then = self._before(history.blind[0])
            if then is not None:
                before = events_forwards(history.blind, *then)
                return History((*before.events, *history.events), before.blind, then[1])
        return history

    def of_gone(self, commits: Sequence[Commit]) -> History:
        """What happened to a table that is gone: its name is looked up just before the commits that dropped any."""
        with connect(self.settings.postgres) as connection:
            row = connection.execute(
                "SELECT oid::bigint FROM pg_database WHERE datname = current_database()"
            ).fetchone()
        candidates = drops(commits, int(row[0])) if row else []
        for commit in candidates[:LOOKED_UP]:
            self.report.note(f"looking for {self.table} just before a commit of {commit.at:%Y-%m-%d %H:%M:%S %Z}")
            found = self._before(commit)
            if found is None:
                continue
            earlier = events_backwards([one for one in commits if one.lsn < commit.lsn], *found)
            dropped = events_forwards([one for one in commits if one.lsn >= commit.lsn], *found)
            if any(event.kind == "dropped" for event in dropped.events):
                return History((*earlier.events, *dropped.events), earlier.blind)
        return History(())

    def _before(self, commit: Commit) -> tuple[int, File] | None:
        """The table as it was just before a commit; None: it was not there."""
        moment = Moment(Target(lsn=commit.lsn, inclusive=False))
        with past_database(self.settings, self.store, moment, self.report) as past:
            return _look_up(past.address, self.table)


def _look_up(address: PostgresSettings, table: str) -> tuple[int, File] | None:
    with connect(address) as connection:
        row = connection.execute(_FILE_OF, {"table": table}).fetchone()
    return None if row is None else (int(row[0]), File(int(row[1]), int(row[2])))


def _columns_file(address: PostgresSettings) -> File:
    """Where the database keeps its columns' definitions."""
    found = _look_up(address, "pg_catalog.pg_attribute")
    if found is None:  # no database is without it
        raise AssertionError
    return found[1]


def _files_since(facts: RecoveryFacts, since: datetime) -> list[WalFile]:
    """From the newest base backup before that moment on, as a segment does not tell its time."""
    line = choose_line(facts, None)
    before = [base for base in bases_on(facts, line) if base.consistent_at <= since]
    start = max((parse_lsn(base.start_lsn) for base in before), default=0)
    files = [file for file in coverage(facts.archive, line).files if file.segment.end > start]
    if not files:
        raise RecoveryError(
            "The archive holds no WAL of then.",
            next_step="see what it holds: `tmi-ops wal status`; `tmi-ops wal stream --catch-up` brings it level",
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
    """Commits in their order, until one is later than `until`."""
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
    """Neighbours of one timeline; each batch begins with the last file of the one before, whose last record it ends."""
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
                    f"The WAL file {file.stored} is gone from the archive.",
                    next_step="run `tmi-ops wal gaps` to see what is whole, and begin the search after it: --from",
                )


@dataclass
class _Reader:
    """Reads batches; what a batch shares with the one before is passed over."""

    programs: Programs
    directory: Path
    _reached: dict[str, int] = field(default_factory=dict)

    def records(self, batch: Sequence[WalFile]) -> Iterator[tuple[int, int, str, str]]:
        """Rows and files first, commits last: by then all that a transaction did is known."""
        cut = batch[-1].cut
        for manager in ("Heap", "Storage", "Transaction"):
            for line in record_lines(self.programs, self.directory, batch[0].name, batch[-1].name, manager):
                record = parse_record(line)
                if record is None or record[0] <= self._reached.get(manager, -1):
                    continue
                if cut is None or record[0] < cut:
                    self._reached[manager] = record[0]
                    yield record
