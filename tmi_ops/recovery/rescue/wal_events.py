"""When a table lost rows, read out of WAL: which commit dropped, emptied, deleted or changed, and when. Pure.

A table is followed by its files: DROP, TRUNCATE and rewrites name the old file in their commit record, and deleted and
updated rows name the file they are in.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

Kind = Literal["dropped", "emptied or rewritten", "deleted rows", "changed rows"]

_RECORD = re.compile(r"rmgr: (\w+) .*?tx: +(\d+), lsn: ([0-9A-F]+/[0-9A-F]+), .*?desc: (.*)")
_COMMIT = re.compile(r"COMMIT(?:_PREPARED \d+:)? (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?) UTC")
_CREATED = re.compile(r"CREATE (?:base|pg_tblspc/\d+/[^/]+)/(\d+)/(\d+)")
_FILES = re.compile(r"(?:base|pg_tblspc/\d+/[^/]+)/(\d+)/(\d+)")
_HEAP = re.compile(r"(DELETE|UPDATE|HOT_UPDATE)\b.*?blkref #0: rel \d+/(\d+)/(\d+)")
_RELCACHE = re.compile(r"relcache (\d+)")


@dataclass(frozen=True)
class File:
    """A relation's main file: database oid and file number."""

    database: int
    number: int


@dataclass(frozen=True)
class Commit:
    """`lsn` is where its record begins: recovery that stops before it does not have it. `gone` are files it removed,
    `made` files it created, `touched` tables whose definition it changed, by oid."""

    xid: int
    lsn: int
    at: datetime
    gone: frozenset[File] = frozenset()
    made: frozenset[File] = frozenset()
    touched: frozenset[int] = frozenset()
    deleted: Mapping[File, int] = field(default_factory=dict)
    changed: Mapping[File, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """What a commit did to the table; `rows` is 0 where WAL does not tell."""

    kind: Kind
    commit: Commit
    rows: int


class Commits:
    """Gathers records into commits, in the order of the WAL; transactions that abort are forgotten."""

    def __init__(self) -> None:
        self._deleted: defaultdict[int, Counter[File]] = defaultdict(Counter)
        self._changed: defaultdict[int, Counter[File]] = defaultdict(Counter)
        self._made: defaultdict[int, set[File]] = defaultdict(set)

    def read(self, records: Iterable[tuple[int, int, str, str]]) -> Iterator[Commit]:
        """Take (lsn, xid, resource manager, description), as `parse_record` gives them."""
        for lsn, xid, manager, description in records:
            if manager == "Heap" and (match := _HEAP.match(description)):
                counters = self._deleted if match[1] == "DELETE" else self._changed
                counters[xid][File(int(match[2]), int(match[3]))] += 1
            elif manager == "Storage" and (match := _CREATED.match(description)):
                self._made[xid].add(File(int(match[1]), int(match[2])))
            elif manager == "Transaction" and (match := _COMMIT.match(description)):
                yield self._commit(xid, lsn, datetime.fromisoformat(match[1]).replace(tzinfo=UTC), description)

    def _commit(self, xid: int, lsn: int, at: datetime, description: str) -> Commit:
        parts = {name: rest for name, _, rest in (part.partition(":") for part in description.split("; "))}
        xids = [xid, *map(int, parts.get("subxacts", "").split())]
        deleted: Counter[File] = Counter()
        changed: Counter[File] = Counter()
        made: set[File] = set()
        for one in xids:
            deleted += self._deleted.pop(one, Counter())
            changed += self._changed.pop(one, Counter())
            made |= self._made.pop(one, set())
        gone = frozenset(File(int(db), int(number)) for db, number in _FILES.findall(parts.get("rels", "")))
        touched = frozenset(map(int, _RELCACHE.findall(parts.get("inval msgs", ""))))
        return Commit(xid, lsn, at, gone, frozenset(made), touched, deleted, changed)


def parse_record(line: str) -> tuple[int, int, str, str] | None:
    """A line of pg_waldump as (lsn, xid, resource manager, description); None: it is not a record's."""
    match = _RECORD.match(line)
    if match is None:
        return None
    high, _, low = match[3].partition("/")
    return int(high, 16) << 32 | int(low, 16), int(match[2]), match[1], match[4]


def events_backwards(commits: Iterable[Commit], oid: int, file: File) -> list[Event]:
    """What happened to a table that is still there, `file` being its file now; in the order of time.

    Where it was emptied, its file before is the first that this commit removed: a table's file is older, so of a lower
    number, than those of its indexes. Among several tables emptied at once this may be another's; `touched` tells that
    it was this table that was emptied, whatever the file.
    """
    backwards: list[list[Event]] = []
    for commit in reversed(list(commits)):
        if commit.gone and oid in commit.touched and file in commit.made:
            before = min((one for one in commit.gone if one.database == file.database), key=_number, default=file)
            backwards.append([*_rows_of(commit, {before, file}), Event("emptied or rewritten", commit, 0)])
            file = before
        else:
            backwards.append(_rows_of(commit, {file}))
    return [event for events in reversed(backwards) for event in events]


def events_forwards(commits: Iterable[Commit], oid: int, file: File) -> list[Event]:
    """What happened to a table since a catalogue knew its `file`, up to the commit that dropped it."""
    events: list[Event] = []
    for commit in commits:
        events += _rows_of(commit, {file})
        if file in commit.gone:
            made = [one for one in commit.made if one.database == file.database]
            if not made or oid not in commit.touched:
                events.append(Event("dropped", commit, 0))
                break
            events.append(Event("emptied or rewritten", commit, 0))
            file = min(made, key=_number)
    return events


def _rows_of(commit: Commit, files: set[File]) -> list[Event]:
    deleted = sum(commit.deleted.get(file, 0) for file in files)
    changed = sum(commit.changed.get(file, 0) for file in files)
    events = [Event("deleted rows", commit, deleted)] if deleted else []
    return [*events, Event("changed rows", commit, changed)] if changed else events


def _number(file: File) -> int:
    return file.number
