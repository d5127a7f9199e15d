"""Which commits dropped, emptied, altered or changed a table, or deleted its rows. Pure.

A table is followed by its files: DROP, TRUNCATE and rewrites name the old file in their commit record, and deletes and
updates name the file of their row. Dropping or altering a column updates its row in pg_attribute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal

from tmi_ops.rescue.table_files import file_after, file_before
from tmi_ops.rescue.wal_events import Commit, File

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
    """What a commit did to the table or to these of its partitions; `rows` is 0 if WAL does not tell."""

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
    """Commits that dropped or detached a partition of a partitioned table; WAL does not tell which of the two.

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
    """A dropped column is an update of pg_attribute by a commit that touches the table. So are some other changes, such
    as a foreign key that is dropped with the table it references; an index or ANALYZE is not."""
    altered = columns is not None and oid in commit.touched and commit.changed.get(columns, 0) > 0
    return [Event("definition altered", commit, 0)] if altered else []


def _rows_of(commit: Commit, files: set[File]) -> list[Event]:
    deleted = sum(commit.deleted.get(file, 0) for file in files)
    changed = sum(commit.changed.get(file, 0) for file in files)
    events = [Event("deleted rows", commit, deleted)] if deleted else []
    return [*events, Event("changed rows", commit, changed)] if changed else events
