"""From the chosen rows to all rows that must be restored with them, along the links of the past.

1. Pick the chosen rows. 2. Down: rows that reference them, and so on, until there are no more. 3. Up: rows that these
reference, and so on; of those, only the ones missing now are restored. A dropped table is restored with all its rows, a
partitioned one with all its partitions.
"""

from __future__ import annotations

from collections.abc import Iterable

import psycopg
from psycopg import sql

from tmi_ops.backup.snapshot import TableName
from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError, first_line
from tmi_ops.rescue.links import Link
from tmi_ops.rescue.pairs import Pair, equal, find_name
from tmi_ops.rescue.selection import Selection, TableRows
from tmi_ops.rescue.session import Sides

# No index: rows are added in a few large steps, each of which joins whole tables anyway.
_CREATE = sql.SQL("CREATE TEMP TABLE {} (row_id tid, reason text)")
_ADD = sql.SQL(
    "INSERT INTO {picked} SELECT DISTINCT n.row_id, {reason} FROM ({rows}) n "
    "WHERE NOT EXISTS (SELECT FROM {picked} q WHERE q.row_id = n.row_id)"
)
# Aliased with the table's name, so that the user's WHERE can refer to it.
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
    """The rows in the past's temporary tables `picked`, each with its reason: chosen, child or parent."""

    def __init__(self, sides: Sides) -> None:
        self._sides, self._past, self._pairs = sides, sides.past, sides.pairs
        self._made: list[TableName] = []
        self._whole: set[TableName] = set()

    def is_whole(self, pair: Pair) -> bool:
        """Whether all rows of a table were chosen by the user."""
        return pair.name in self._whole

    @property
    def tables(self) -> list[Pair]:
        """The tables with picked rows."""
        return [self._pairs[name] for name in self._made if self._count(name)]

    def choose(self, rows: TableRows) -> int:
        """Pick the rows that the user selected. Returns how many there are.

        Raises:
            RecoveryError: the WHERE is not valid SQL for this table, or the key does not fit.
        """
        name = find_name(self._sides.then, rows.table)
        return sum(self._choose(self._pairs[part], name, rows) for part in self._sides.then.parts_of(name))

    def _choose(self, pair: Pair, name: TableName, rows: TableRows) -> int:
        self._make(pair)
        try:
            with self._past.transaction():
                # A WHERE may name other tables, as a query of the application would.
                self._past.execute("SET LOCAL search_path TO DEFAULT")
                chosen = _CHOSEN.format(pair.table, sql.Identifier(name.name), _condition(pair, rows))
                added = self._add(pair, "chosen", chosen)
        except (psycopg.errors.ProgrammingError, psycopg.errors.DataError) as error:
            raise RecoveryError(
                f"PostgreSQL cannot select {rows.describe()}: {first_line(error)}.",
                hint="write --where as in a query of that table, with strings in single quotes",
            ) from None
        if rows.where is None and rows.key is None and added == self._count(pair.name):
            self._whole.add(pair.name)
        return added

    def follow(self, links: Iterable[Link], *, with_children: bool) -> None:
        """Add the rows that belong to the picked rows."""
        links = tuple(links)
        if with_children:
            self._spread(links, downwards=True)
        required = tuple(link for link in links if link.enforced)
        self._spread(required, downwards=False)
        while self._complete_dropped():
            self._spread(required, downwards=False)

    def _complete_dropped(self) -> bool:
        """Pick all rows of dropped tables, because live rows may reference them. Returns whether any were added."""
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
        """Pick those of these rows that are not picked yet. Returns how many there are."""
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
    """All rows of a selection.

    Raises:
        RecoveryError: a table, column or condition is not valid in the past, or no row matches.
    """
    picked = Picked(sides)
    for rows in selection.rows:
        if picked.choose(rows) == 0 and rows.where is None and rows.key is None:
            raise RecoveryError(
                f"{rows.table} had no rows at that moment.",
                hint="choose an earlier moment, or another table",
                code=Code.NOT_IN_PAST,
            )
    if selection.rows and not picked.tables:
        raise RecoveryError(
            f"No rows at that moment match: {'; '.join(rows.describe() for rows in selection.rows)}.",
            hint="find an earlier moment with `tmi-ops recover find`, or compare with `tmi-ops recover diff`",
            code=Code.NOT_IN_PAST,
        )
    picked.follow(sides.links, with_children=selection.with_children and selection.values is None)
    return picked


def _condition(pair: Pair, rows: TableRows) -> sql.Composable:
    if rows.key is not None:
        if len(rows.key) != len(pair.then.key):
            columns = f"is ({', '.join(pair.then.key)})" if pair.then.key else "does not exist"
            raise RecoveryError(
                f"{len(rows.key)} key values were given, but the key of {pair.name} {columns}.",
                hint="give one --key per key column, in that order, or select rows with --where",
            )
        types = {column.name: column.type for column in pair.then.columns}
        return sql.SQL(" AND ").join(
            sql.SQL("{} = {}::{}").format(sql.Identifier(name), sql.Literal(value), sql.SQL(types[name]))
            for name, value in zip(pair.then.key, rows.key, strict=True)
        )
    return sql.SQL("(") + sql.SQL(rows.where) + sql.SQL("\n)") if rows.where else sql.SQL("true")
