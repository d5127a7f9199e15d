"""Differences between the past and the live database: tables by fingerprint first, then row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg import sql

from tmi_ops.backup.fingerprint import fingerprint_table
from tmi_ops.progress import Report
from tmi_ops.rescue.comparing import as_of_one_moment, compare_whole
from tmi_ops.rescue.pairs import Pair, find_table, find_tables
from tmi_ops.rescue.reading import differing_rows
from tmi_ops.rescue.session import Sides

# Changed columns are counted in at most this many rows of a table.
ROWS_COUNTED = 10_000


@dataclass(frozen=True)
class TableDifference:
    """Differences of one table.

    Args:
        columns: how many of the first ROWS_COUNTED changed rows differ in each column, most first.
        lost_columns, new_columns: dropped and added columns of the table.
        dropped: the table was dropped; its rows count as deleted.
    """

    table: str
    deleted: int
    inserted: int
    changed: int
    columns: Mapping[str, int]
    lost_columns: tuple[str, ...] = ()
    new_columns: tuple[str, ...] = ()
    dropped: bool = False

    @property
    def rows(self) -> int:
        return self.deleted + self.inserted + self.changed


@dataclass(frozen=True)
class Difference:
    """The tables that differ.

    Args:
        past: a description of the past.
        equal: how many tables have the same rows.
        new_tables: tables that exist only now.
    """

    past: str
    tables: tuple[TableDifference, ...]
    equal: int
    new_tables: tuple[str, ...]


def find_differences(sides: Sides, tables: Sequence[str], past: str, report: Report) -> Difference:
    """Compare these tables, or all. `differing_rows` gives the rows afterwards.

    Args:
        past: a description of the past.

    Raises:
        RecoveryError: the past has no such table.
    """
    named = [pair for table in tables for pair in find_tables(sides.pairs, sides.then, table)]
    wanted = named if tables else list(sides.pairs.values())
    with as_of_one_moment(sides.now), report.phase("compare tables", total=len(wanted), unit="tables") as phase:
        differing = []
        for pair in wanted:
            if not _is_same(sides, pair):
                compare_whole(sides.past, sides.now, pair)
                differing.append(pair)
            phase.advance(1)
        found = [_counted(sides, pair) for pair in differing]
    found = [one for one in found if one.rows or one.lost_columns or one.new_columns or one.dropped]
    new = sorted(str(name) for name in sides.living.tables.keys() - sides.then.tables.keys()) if not tables else []
    return Difference(past, tuple(found), len(wanted) - len(found), tuple(new))


def pair_of(sides: Sides, table: TableDifference) -> Pair:
    return find_table(sides.pairs, sides.then, table.table)


def _is_same(sides: Sides, pair: Pair) -> bool:
    """Compare fingerprints, which transfers no rows; not possible if columns were added or dropped."""
    if pair.now is None or pair.lost_columns or pair.new_columns:
        return False
    return fingerprint_table(sides.past, pair.name) == fingerprint_table(sides.now, pair.name)


def _counted(sides: Sides, pair: Pair) -> TableDifference:
    counts = dict(
        sides.past.execute(
            sql.SQL("SELECT state, count(*) FROM {} GROUP BY 1").format(pair.temporary("state"))
        ).fetchall()
    )
    return TableDifference(
        table=str(pair.name),
        deleted=counts.get("deleted", 0),
        inserted=counts.get("inserted", 0),
        changed=counts.get("changed", 0),
        columns=_changed_columns(sides, pair) if counts.get("changed") else {},
        lost_columns=tuple(column.name for column in pair.lost_columns),
        new_columns=tuple(column.name for column in pair.new_columns),
        dropped=pair.now is None,
    )


def _changed_columns(sides: Sides, pair: Pair) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for row in differing_rows(sides, pair, only="changed", limit=ROWS_COUNTED):
        counts.update(row.changed)
    return dict(counts.most_common())
