"""Which file a table had before a commit that gave it a new one, and which after. Pure.

TRUNCATE, CLUSTER, VACUUM FULL and rewriting ALTER TABLE give a table, its indexes and its TOAST table new files. A
commit record lists the removed files in the order of their removal, but not whose they were. Two patterns tell:

1. TRUNCATE (and REINDEX) replaces each old file with a new one, so both are in the same order.
2. A rewrite fills the file of a transient relation, whose oid is its number, and drops that with the old file in it.

Files of relations that the same commit created or dropped are recognised by their oids and ignored. If the numbers do
not add up, the answer is None: unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
        """The file that was dropped with the transient relation, after all indexes had got theirs."""
        passing = self.passing()
        if passing is None or not self._adds_up:
            return None
        went = self.gone[len(self.renewed) + self.dropped.index(passing)]
        # A table is older than its indexes; if this one is not, another table was emptied in the same transaction.
        return went if went == min(self.gone, key=lambda file: file.number) else None
