"""Which commits dropped, emptied, altered or changed a table, or deleted its rows. Pure.

A table is followed by its files: DROP, TRUNCATE and rewrites name the old file in their commit record, and deletes and
updates name the file of their row. Dropping or altering a column updates its row in pg_attribute.

TRUNCATE, CLUSTER, VACUUM FULL and rewriting ALTER TABLE give a table, its indexes and its TOAST table new files. A
commit record lists the removed files in the order of their removal, but not which relation each belonged to. Two
patterns show it:

1. TRUNCATE (and REINDEX) replaces each old file with a new one, so both are in the same order.
2. A rewrite fills the file of a transient relation, whose oid is its number, and drops that with the old file in it.

Files of relations that the same commit created or dropped are recognized by their oids and ignored. If the numbers do
not add up, the answer is None: unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal

from tmi_ops.rescue.wal_events import Commit, File

# A TOAST table is two relations: itself and its index, created one after the other.
_TOAST_RELATIONS = 2


def file_before(commit: Commit, oid: int, file: File) -> File | None:
    """The table's file before this commit, which created `file`."""
    exchange = _Exchange.of(commit, file.database)
    if file in exchange.first and file.number != oid:
        return exchange.rewritten() if exchange.passing() == file.number else None
    before: File | None = file
    while before is not None and before in exchange.renewed:  # one transaction may have replaced it several times
        before = exchange.replaced(before, oid)
    return before


def file_after(commit: Commit, oid: int, file: File) -> File | None:
    """The table's file after this commit, which removed `file` but not the table."""
    exchange = _Exchange.of(commit, file.database)
    passing = exchange.passing()
    if passing is not None and exchange.rewritten() == file:
        return File(file.database, passing)
    after: File | None = file
    while after is not None and after in exchange.gone:
        after = exchange.replacing(after, oid)
    return after


@dataclass(frozen=True)
class _Exchange:
    """A commit's files of one database.

    first: files that a relation was created with; renewed: files that replaced another, in order.
    """

    commit: Commit
    gone: Sequence[File]
    first: Sequence[File]
    renewed: Sequence[File]
    dropped: Sequence[int]

    @classmethod
    def of(cls, commit: Commit, database: int) -> _Exchange:
        made = [file for file in commit.made if file.database == database]
        gone = [file for file in commit.gone if file.database == database]
        first = [file for file in made if file.number in commit.touched]
        renewed = [file for file in made if file not in first]
        dropped = {one for one in commit.dropped if one in commit.touched}
        if not commit.dropped and len(gone) == len(renewed) + len(first):
            dropped = {file.number for file in first}  # as in a rewrite, if the version does not record drops
        # In the order of their drops: a relation is touched for the last time when it is dropped.
        return cls(commit, gone, first, renewed, sorted(dropped, key=commit.last_touch))

    @property
    def _adds_up(self) -> bool:
        return len(self.gone) == len(self.renewed) + len(self.dropped)

    def replaced(self, file: File, oid: int) -> File | None:
        """The file that this one replaced."""
        drops, place = self._drops_before(oid), self.renewed.index(file)
        found = None if drops is None else self.gone[place + drops]
        return None if found in self.renewed[place:] else found

    def replacing(self, file: File, oid: int) -> File | None:
        """The file that replaced this one."""
        drops, place = self._drops_before(oid), self.gone.index(file)
        found = self.renewed[place - drops] if drops is not None and 0 <= place - drops < len(self.renewed) else None
        return None if found in self.gone[: place + 1] else found

    def _drops_before(self, oid: int) -> int | None:
        """How many relations were dropped before this one got its new file."""
        if not self._adds_up:
            return None
        first, last = self.commit.touched.index(oid), self.commit.last_touch(oid)
        before = [one for one in self.dropped if self.commit.last_touch(one) < first]
        after = [one for one in self.dropped if self.commit.touched.index(one) > last]
        return len(before) if len(before) + len(after) == len(self.dropped) else None

    def passing(self) -> int | None:
        """The oid of the one transient relation that a table was rewritten into."""
        passing = [file.number for file in self.first if file.number in self.dropped]
        others = len(self.dropped) - len(passing)
        is_alone = len(passing) == 1 and others in (0, _TOAST_RELATIONS)
        is_with_toast = len(passing) == 1 + _TOAST_RELATIONS and others == 0 and passing[2] == passing[1] + 1
        return passing[0] if is_alone or is_with_toast else None

    def rewritten(self) -> File | None:
        """The file that was dropped with the transient relation, after all indexes had received new files."""
        passing = self.passing()
        if passing is None or not self._adds_up:
            return None
        went = self.gone[len(self.renewed) + self.dropped.index(passing)]
        # A table is older than its indexes; if this one is not, another table was emptied in the same transaction.
        return went if went == min(self.gone, key=lambda file: file.number) else None


Kind = Literal[
    "dropped",
    "emptied or rewritten",
    "definition altered",
    "partition dropped or detached",
    "deleted rows",
    "changed rows",
]


@dataclass(frozen=True)
class Event:
    """What a commit did to the table or to these of its partitions; `rows` is 0 if the WAL does not show it."""

    kind: Kind
    commit: Commit
    rows: int
    partitions: tuple[str, ...] = ()


@dataclass(frozen=True)
class History:
    """What happened to a table, oldest first.

    `blind`: commits at the beginning or end of the searched ones about which nothing is known, because the table's file
    at that time is not. `file`: the table's file before all of them; None if there was no table or it is not known.
    """

    events: tuple[Event, ...]
    blind: tuple[Commit, ...] = ()
    file: File | None = None


def events_backwards(commits: Sequence[Commit], oid: int, file: File, columns: File | None = None) -> History:
    """What happened to an existing table; `file` is its current file.

    Args:
        columns: the file of pg_attribute; None: do not look for altered definitions.
    """
    backwards: list[list[Event]] = []
    for place in reversed(range(len(commits))):
        commit = commits[place]
        if file not in commit.made or oid not in commit.touched:
            backwards.append([*_definition_of(commit, oid, columns), *_rows_of(commit, {file})])
            continue
        before = None if file.number == oid else file_before(commit, oid, file)
        gone = [Event("emptied or rewritten", commit, 0)] if file.number != oid else []
        backwards.append([*_rows_of(commit, {before or file, file}), *gone])
        if before is None:
            # A file whose number is the table's oid is its first one; before it, the table did not exist.
            return History(_flat(backwards), () if file.number == oid else tuple(commits[:place]))
        file = before
    return History(_flat(backwards), file=file)


def together(histories: Mapping[str, History]) -> History:
    """The history of a partitioned table from those of its partitions, by name."""
    found: dict[tuple[int, Kind], Event] = {}
    blind: dict[int, Commit] = {}
    for name, history in histories.items():
        blind |= {commit.lsn: commit for commit in history.blind}
        for event in history.events:
            before = found.get((event.commit.lsn, event.kind))
            found[event.commit.lsn, event.kind] = replace(
                event,
                rows=event.rows + (before.rows if before else 0),
                partitions=tuple(sorted({*(before.partitions if before else ()), *event.partitions, name})),
            )
    in_order = sorted(found.values(), key=lambda event: event.commit.lsn)
    return History(tuple(in_order), tuple(blind[lsn] for lsn in sorted(blind)))


def partitions_gone(commits: Iterable[Commit], wholes: Set[int], inheritance: File) -> Iterator[Event]:
    """Commits that dropped or detached a partition of a partitioned table; the WAL does not show which of the two.

    Args:
        wholes: the table's oid, and those of its partitions that are partitioned themselves.
        inheritance: the file of pg_inherits.
    """
    for commit in commits:
        if commit.deleted.get(inheritance, 0) and wholes & set(commit.touched):
            yield Event("partition dropped or detached", commit, 0)


def with_partitions_gone(history: History, gone: Iterable[Event]) -> History:
    """Add commits that removed partitions, except those known to have dropped some."""
    dropped = {event.commit.lsn for event in history.events if event.kind == "dropped"}
    more = [event for event in gone if event.commit.lsn not in dropped]
    return replace(history, events=tuple(sorted((*history.events, *more), key=lambda event: event.commit.lsn)))


def drops(commits: Sequence[Commit], database: int) -> list[Commit]:
    """The commits that may have dropped a table of a database, newest first."""
    return [
        commit
        for commit in reversed(commits)
        if sum(file.database == database for file in commit.gone)
        > sum(file.database == database and file.number not in commit.touched for file in commit.made)
    ]


def events_forwards(commits: Sequence[Commit], oid: int, file: File) -> History:
    """What happened to a table from a time when its `file` is known, up to the commit that dropped it."""
    events: list[Event] = []
    for place, commit in enumerate(commits):
        events += _rows_of(commit, {file})
        if file not in commit.gone:
            continue
        if oid in commit.dropped or oid not in commit.touched or not _was_renewed(commit, file):
            return History((*events, Event("dropped", commit, 0)))
        events.append(Event("emptied or rewritten", commit, 0))
        after = file_after(commit, oid, file)
        if after is None:
            return History(tuple(events), tuple(commits[place + 1 :]))
        file = after
    return History(tuple(events))


def _was_renewed(commit: Commit, file: File) -> bool:
    """Whether this commit created a file that could be the table's next one; for versions that do not record drops."""
    return any(made.database == file.database for made in commit.made)


def _flat(backwards: Iterable[list[Event]]) -> tuple[Event, ...]:
    return tuple(event for events in reversed([*backwards]) for event in events)


def _definition_of(commit: Commit, oid: int, columns: File | None) -> list[Event]:
    """Detect an altered definition.

    A dropped column is an update of pg_attribute by a commit that touches the table. So are some other changes, such as
    a foreign key that is dropped with the table it references; an index or ANALYZE is not.
    """
    altered = columns is not None and oid in commit.touched and commit.changed.get(columns, 0) > 0
    return [Event("definition altered", commit, 0)] if altered else []


def _rows_of(commit: Commit, files: set[File]) -> list[Event]:
    deleted = sum(commit.deleted.get(file, 0) for file in files)
    changed = sum(commit.changed.get(file, 0) for file in files)
    events = [Event("deleted rows", commit, deleted)] if deleted else []
    return [*events, Event("changed rows", commit, changed)] if changed else events
