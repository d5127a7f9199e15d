"""Which rows reference which: foreign keys, and the profile's ties. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from tmi_ops.backup.snapshot import TableName
from tmi_ops.profile import Tie
from tmi_ops.rescue.shape import ForeignKey, Shape


@dataclass(frozen=True)
class Link:
    """Rows of `child` reference the row of `parent` whose `referenced` columns equal their `columns`.

    partitions: the past's tables that may hold that row, if `parent` is partitioned.
    enforced: a foreign key, so the child needs its parent; else it is only restored with its parent.
    """

    child: TableName
    columns: tuple[str, ...]
    parent: TableName
    referenced: tuple[str, ...]
    enforced: bool = True
    partitions: tuple[TableName, ...] = ()

    @property
    def parents(self) -> tuple[TableName, ...]:
        """The tables that may hold the row."""
        return self.partitions or (self.parent,)


def links_between(then: Shape, now: Shape, ties: Iterable[Tie]) -> tuple[Link, ...]:
    """All links between tables of the past: its foreign keys, those added since, and the profile's ties."""
    declared = [
        link_of(key, then)
        for key in (*then.foreign_keys, *now.foreign_keys)
        if _has(then, key.child, key.columns) and _has(then, key.parent, key.referenced)
    ]
    own = [
        Link(_named(tie.child), (tie.column,), _named(tie.parent), (tie.referenced,), enforced=False) for tie in ties
    ]
    known = [link for link in own if _are_alike(then, link)]
    return tuple(dict.fromkeys([*declared, *known]))


def _named(table: str) -> TableName:
    schema, _, name = table.rpartition(".")
    return TableName(schema or "public", name)


def link_of(key: ForeignKey, then: Shape) -> Link:
    return Link(key.child, key.columns, key.parent, key.referenced, partitions=then.partitions.get(key.parent, ()))


def insertion_order(tables: Iterable[TableName], links: Iterable[Link]) -> tuple[tuple[TableName, ...], ...]:
    """Tables in groups, parents before children; tables that reference one another in a circle share a group.

    Tarjan's algorithm: it returns each component after those that it references.
    """
    wanted = sorted(set(tables), key=str)
    parents: dict[TableName, set[TableName]] = {table: set() for table in wanted}
    for link in links:
        if link.enforced and link.child in parents:
            parents[link.child] |= (set(link.parents) & parents.keys()) - {link.child}
    return _Components(parents).found()


class _Components:
    def __init__(self, edges: Mapping[TableName, Set[TableName]]) -> None:
        self._edges = edges
        self._number: dict[TableName, int] = {}
        self._low: dict[TableName, int] = {}
        self._stack: list[TableName] = []
        self._groups: list[tuple[TableName, ...]] = []

    def found(self) -> tuple[tuple[TableName, ...], ...]:
        for table in self._edges:
            if table not in self._number:
                self._visit(table)
        return tuple(self._groups)

    def _visit(self, table: TableName) -> None:
        self._number[table] = self._low[table] = len(self._number)
        self._stack.append(table)
        for other in sorted(self._edges[table], key=str):
            if other not in self._number:
                self._visit(other)
                self._low[table] = min(self._low[table], self._low[other])
            elif other in self._stack:
                self._low[table] = min(self._low[table], self._number[other])
        if self._low[table] == self._number[table]:
            place = self._stack.index(table)
            self._groups.append(tuple(sorted(self._stack[place:], key=str)))
            del self._stack[place:]


def _are_alike(shape: Shape, link: Link) -> bool:
    """Whether both ends exist and have one type, so that they can be compared through an index."""
    if not (_has(shape, link.child, link.columns) and _has(shape, link.parent, link.referenced)):
        return False
    child, parent = shape.tables[link.child], shape.tables[link.parent]
    ends = zip(link.columns, link.referenced, strict=True)
    return all(child.type_of(own) == parent.type_of(other) for own, other in ends)


def _has(shape: Shape, name: TableName, columns: Iterable[str]) -> bool:
    parts = shape.parts_of(name)
    return bool(parts) and all(shape.tables[part].column_names >= set(columns) for part in parts)
