"""From the chosen rows to all that must come with them, followed along the links of the past.

1. The chosen rows are picked. 2. Down: what hung on them, and on that, until nothing is new. 3. Up: what these rows
refer to, and that in turn; of those only the ones that are missing now will be brought back. A dropped table comes back
whole, a partitioned one with all its partitions.
"""

from __future__ import annotations

from collections.abc import Iterable

import psycopg
from psycopg import sql

from tmi_ops.backup.snapshot import TableName
from tmi_ops.errors import RecoveryError, first_line
from tmi_ops.rescue.links import Link
from tmi_ops.rescue.pairs import Pair, equal, find_name
from tmi_ops.rescue.selection import Selection, TableRows
from tmi_ops.rescue.session import Sides

# Without an index: rows come in few large strokes, each of which joins whole tables anyway.
_CREATE = sql.SQL("CREATE TEMP TABLE {} (row_id tid, reason text)")
_ADD = sql.SQL(
    "INSERT INTO {picked} SELECT DISTINCT n.row_id, {reason} FROM ({rows}) n "
    "WHERE NOT EXISTS (SELECT FROM {picked} q WHERE q.row_id = n.row_id)"
)
# Named as in the table, so that a person's WHERE means what it says.
_CHOSEN = sql.SQL("SELECT ctid AS row_id FROM ONLY {} AS {} WHERE {}")
_ALL = sql.SQL("SELECT ctid AS row_id FROM ONLY {}")
_DOWN = sql.SQL(
    "SELECT c.ctid AS row_id FROM {parent_picked} k JOIN ONLY {parent} p ON p.ctid = k.row_id "
    "JOIN ONLY {child} c ON {same}"
)
_UP = sql.SQL(
    "SELECT p.ctid AS row_id FROM {child_picked} k JOIN ONLY {child} c ON c.ctid = k.row_id "
    "JOIN ONLY {parent} p ON {same}"
)


class Picked:
    """The rows that the past's temporary tables `picked` name, each with why: chosen, child or parent."""

    def __init__(self, sides: Sides) -> None:
        self._sides, self._past, self._pairs = sides, sides.past, sides.pairs
        self._made: list[TableName] = []
        self._whole: set[TableName] = set()

    def is_whole(self, pair: Pair) -> bool:
        """Whether all rows of a table were chosen, each for its own sake."""
        return pair.name in self._whole

    @property
    def tables(self) -> list[Pair]:
        """Those of which any row is picked."""
        return [self._pairs[name] for name in self._made if self._count(name)]

    def choose(self, rows: TableRows) -> int:
        """Pick what a person named. Returns how many rows that is.

        Raises:
            RecoveryError: the WHERE is not SQL that this table can answer, or the key does not fit.
        """
        name = find_name(self._sides.then, rows.table)
        return sum(self._choose(self._pairs[part], name, rows) for part in self._sides.then.parts_of(name))

    def _choose(self, pair: Pair, name: TableName, rows: TableRows) -> int:
        self._make(pair)
        try:
            with self._past.transaction():
                # A WHERE may name other tables, as a query of the application's would.
                self._past.execute("SET LOCAL search_path TO DEFAULT")
                chosen = _CHOSEN.format(pair.table, sql.Identifier(name.name), _condition(pair, rows))
                added = self._add(pair, "chosen", chosen)
        except (psycopg.errors.ProgrammingError, psycopg.errors.DataError) as error:
            raise RecoveryError(
                f"PostgreSQL cannot choose {rows.words()}: {first_line(error)}.",
                hint="write --where as in a query of that table, with text in single quotes",
            ) from None
        if rows.where is None and rows.key is None and added == self._count(pair.name):
            self._whole.add(pair.name)
        return added

    def follow(self, links: Iterable[Link], *, with_children: bool) -> None:
        """Add what comes with the picked rows."""
        links = tuple(links)
        if with_children:
            self._spread(links, downwards=True)
        required = tuple(link for link in links if link.enforced)
        self._spread(required, downwards=False)
        while self._complete_dropped():
            self._spread(required, downwards=False)

    def _complete_dropped(self) -> bool:
        """A dropped table comes back whole: living rows still refer to its rows. Whether that added any."""
        dropped = {pair.name for pair in self.tables if pair.now is None}
        for whole, parts in self._sides.then.partitions.items():
            if whole not in self._sides.living and dropped & set(parts):
                dropped |= set(parts)
        added = [self._take_rest(self._pairs[name]) for name in sorted(dropped, key=str)]
        return any(added)

    def _take_rest(self, pair: Pair) -> int:
        self._make(pair)
        return self._add(pair, "parent", _ALL.format(pair.table))

    def _spread(self, links: tuple[Link, ...], *, downwards: bool) -> None:
        steps = [(link, parent) for link in links for parent in link.parents]
        grown = {name for name in self._made if self._count(name)}
        while grown:
            added = set()
            for link, parent in steps:
                origin, target = (parent, link.child) if downwards else (link.child, parent)
                if origin in grown and self._step(link, parent, downwards=downwards):
                    added.add(target)
            grown = added

    def _step(self, link: Link, parent_name: TableName, *, downwards: bool) -> int:
        child, parent = self._pairs[link.child], self._pairs[parent_name]
        target = child if downwards else parent
        if self.is_whole(target):
            return 0
        self._make(target)
        rows = (_DOWN if downwards else _UP).format(
            child_picked=child.temporary("picked"),
            parent_picked=parent.temporary("picked"),
            child=child.table,
            parent=parent.table,
            same=equal("c", link.columns, "p", link.referenced),
        )
        return self._add(target, "child" if downwards else "parent", rows)

    def _add(self, pair: Pair, reason: str, rows: sql.Composed) -> int:
        """Pick those of these rows that are not picked yet. Returns how many that is."""
        query = _ADD.format(picked=pair.temporary("picked"), reason=sql.Literal(reason), rows=rows)
        return self._past.execute(query).rowcount

    def _make(self, pair: Pair) -> None:
        if pair.name not in self._made:
            self._past.execute(_CREATE.format(pair.temporary("picked")))
            self._made.append(pair.name)

    def _count(self, name: TableName) -> int:
        row = self._past.execute(
            sql.SQL("SELECT count(*) FROM {}").format(self._pairs[name].temporary("picked"))
        ).fetchone()
        return int(row[0]) if row else 0


def pick(sides: Sides, selection: Selection) -> Picked:
    """All rows that a selection means.

    Raises:
        RecoveryError: it names a table, column or condition that the past does not know, or no row at all.
    """
    picked = Picked(sides)
    for rows in selection.rows:
        if picked.choose(rows) == 0 and rows.where is None and rows.key is None:
            raise RecoveryError(f"{rows.table} held no row then.", hint="choose an earlier moment, or another table")
    if selection.rows and not picked.tables:
        raise RecoveryError(
            f"The past has no such row: {'; '.join(rows.words() for rows in selection.rows)}.",
            hint="choose an earlier moment (tmi-ops recover find), or look with tmi-ops recover diff",
        )
    picked.follow(sides.links, with_children=selection.with_children and selection.values is None)
    return picked


def _condition(pair: Pair, rows: TableRows) -> sql.Composable:
    if rows.key is not None:
        if len(rows.key) != len(pair.then.key):
            columns = ", ".join(pair.then.key) or "nothing"
            raise RecoveryError(
                f"The key of {pair.name} is {columns}, and it was given as {len(rows.key)} values.",
                hint="give one value for each, in that order, or choose rows with --where",
            )
        types = {column.name: column.type for column in pair.then.columns}
        return sql.SQL(" AND ").join(
            sql.SQL("{} = {}::{}").format(sql.Identifier(name), sql.Literal(value), sql.SQL(types[name]))
            for name, value in zip(pair.then.key, rows.key, strict=True)
        )
    return sql.SQL("(") + sql.SQL(rows.where) + sql.SQL("\n)") if rows.where else sql.SQL("true")
