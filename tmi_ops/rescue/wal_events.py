"""Commits read from WAL: the files that each removed and created, and in which it deleted or changed rows. Pure."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

_RECORD = re.compile(r"rmgr: (\w+) .*?tx: +(\d+), lsn: ([0-9A-F]+/[0-9A-F]+), .*?desc: (.*)")
_COMMIT = re.compile(r"COMMIT(?:_PREPARED \d+:)? (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?) UTC")
_CREATED = re.compile(r"CREATE (?:base|pg_tblspc/\d+/[^/]+)/(\d+)/(\d+)")
_FILES = re.compile(r"(?:base|pg_tblspc/\d+/[^/]+)/(\d+)/(\d+)")
_HEAP = re.compile(r"(DELETE|UPDATE|HOT_UPDATE)\b.*?blkref #0: rel \d+/(\d+)/(\d+)")
_RELCACHE = re.compile(r"relcache (\d+)")
# Statistics of relations are of kind 2: kind, database, oid. Versions before 15 do not record them.
_DROPPED = re.compile(r"\b2/\d+/(\d+)")


@dataclass(frozen=True)
class File:
    """A relation's main file: database oid and file number."""

    database: int
    number: int


@dataclass(frozen=True)
class Commit:
    """One transaction.

    Args:
        lsn: where its record begins; recovery that stops before it does not include it.
        gone: files it removed, in the order of their removal.
        made: files it created, in order.
        touched: oids of relations whose definition it changed, in the order of the changes.
        dropped: oids of relations it dropped; versions before 15 do not record them.
    """

    xid: int
    lsn: int
    at: datetime
    gone: tuple[File, ...] = ()
    made: tuple[File, ...] = ()
    touched: tuple[int, ...] = ()
    dropped: frozenset[int] = frozenset()
    deleted: Mapping[File, int] = field(default_factory=dict)
    changed: Mapping[File, int] = field(default_factory=dict)

    def last_touch(self, oid: int) -> int:
        """The last position in `touched`."""
        return len(self.touched) - 1 - self.touched[::-1].index(oid)


class Commits:
    """Collects records into commits, in WAL order; ignores aborted transactions."""

    def __init__(self) -> None:
        self._deleted: defaultdict[int, Counter[File]] = defaultdict(Counter)
        self._changed: defaultdict[int, Counter[File]] = defaultdict(Counter)
        self._made: defaultdict[int, list[tuple[int, File]]] = defaultdict(list)

    def read(self, records: Iterable[tuple[int, int, str, str]]) -> Iterator[Commit]:
        """Take (lsn, xid, resource manager, description), as `parse_record` gives them."""
        for lsn, xid, manager, description in records:
            if manager == "Heap" and (match := _HEAP.match(description)):
                counters = self._deleted if match[1] == "DELETE" else self._changed
                counters[xid][File(int(match[2]), int(match[3]))] += 1
            elif manager == "Storage" and (match := _CREATED.match(description)):
                self._made[xid].append((lsn, File(int(match[1]), int(match[2]))))
            elif manager == "Transaction" and (match := _COMMIT.match(description)):
                yield self._commit(xid, lsn, datetime.fromisoformat(match[1]).replace(tzinfo=UTC), description)

    def _commit(self, xid: int, lsn: int, at: datetime, description: str) -> Commit:
        parts = {name: rest for name, _, rest in (part.partition(":") for part in description.split("; "))}
        xids = [xid, *map(int, parts.get("subxacts", "").split())]
        deleted: Counter[File] = Counter()
        changed: Counter[File] = Counter()
        made: list[tuple[int, File]] = []
        for one in xids:
            deleted += self._deleted.pop(one, Counter())
            changed += self._changed.pop(one, Counter())
            made += self._made.pop(one, [])
        # The record lists them backwards; a file's other forks have the same number.
        gone = [File(int(db), int(number)) for db, number in reversed(_FILES.findall(parts.get("rels", "")))]
        touched = tuple(map(int, _RELCACHE.findall(parts.get("inval msgs", ""))))
        dropped = frozenset(map(int, _DROPPED.findall(parts.get("dropped stats", ""))))
        return Commit(xid, lsn, at, tuple(gone), _in_order(made), touched, dropped, deleted, changed)


def _in_order(made: Iterable[tuple[int, File]]) -> tuple[File, ...]:
    return tuple(dict.fromkeys(file for _, file in sorted(made, key=lambda one: one[0])))


def parse_record(line: str) -> tuple[int, int, str, str] | None:
    """A line of pg_waldump as (lsn, xid, resource manager, description); None if it is not a record."""
    match = _RECORD.match(line)
    if match is None:
        return None
    high, _, low = match[3].partition("/")
    return int(high, 16) << 32 | int(low, 16), int(match[2]), match[1], match[4]
