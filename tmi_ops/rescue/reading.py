"""Streams the differing rows, with their past and current content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, LiteralString

from psycopg import sql

from tmi_ops.postgres.own_text import composed_text_of
from tmi_ops.rescue.pairs import Pair
from tmi_ops.rescue.session import Sides

State = Literal["deleted", "inserted", "changed"]
# Few, because rows may be large and both versions are in memory.
BATCH = 200
_CONDITIONS: Mapping[str | None, LiteralString] = {
    None: "",
    "planned": "WHERE s.action IN ('insert', 'update')",
    "changed": "WHERE s.state = 'changed'",
}


@dataclass(frozen=True)
class Row:
    """A row that differs: its columns as PostgreSQL's text, None for NULL.

    Args:
        key: the values of its key; empty if the table has none.
        state: what happened to it since.
        action: what a plan does with it; None if it was only compared.
        reason: chosen, child or parent.
        then, now: its past and current content; None: it did not exist.
    """

    table: str
    key: tuple[str, ...]
    state: State
    action: str | None
    reason: str | None
    then: Mapping[str, str | None] | None
    now: Mapping[str, str | None] | None

    @property
    def changed(self) -> tuple[str, ...]:
        """The columns that differ, for a row that exists on both sides."""
        if self.then is None or self.now is None:
            return ()
        return tuple(column for column, value in self.then.items() if value != self.now.get(column))


def differing_rows(
    sides: Sides, pair: Pair, *, only: Literal["planned", "changed"] | None = None, limit: int | None = None
) -> Iterator[Row]:
    """The rows in `state`, ordered by key.

    Args:
        only: those that a plan writes, or those that exist on both sides with different content.
        limit: maximum number of rows.
    """
    order = sql.SQL(", ").join(sql.Identifier("s", place) for place in pair.places or ("nth",))
    query = sql.SQL(
        "SELECT s.state, s.action, s.reason, {keys}, {then} FROM {state} s LEFT JOIN ONLY {table} t "
        "ON t.ctid = s.row_id {condition} ORDER BY {order} {limit}"
    ).format(
        keys=_texts("s", pair.places),
        then=_texts("t", [column.name for column in pair.columns]),
        state=pair.temporary("state"),
        table=pair.source,
        condition=sql.SQL(_CONDITIONS[only]),
        order=order,
        limit=sql.SQL("LIMIT {}").format(sql.Literal(limit)) if limit is not None else sql.SQL(""),
    )
    with sides.past.transaction(), sides.past.cursor("rescue_rows") as cursor:
        cursor.execute(query)
        while found := cursor.fetchmany(BATCH):
            yield from _with_now(sides, pair, found)


def _with_now(sides: Sides, pair: Pair, found: Sequence[tuple[Any, ...]]) -> Iterator[Row]:
    names = [column.name for column in pair.columns]
    living = _now(sides, pair, [tuple(row[3]) for row in found if row[0] != "deleted"])
    for state, action, reason, key, then in found:
        now = living.get(tuple(key))
        yield Row(
            table=str(pair.name),
            key=tuple(key),
            state=state,
            action=action,
            reason=reason,
            then=None if state == "inserted" else dict(zip(names, then, strict=True)),
            now=None if now is None else dict(zip(names, now, strict=True)),
        )


def _now(sides: Sides, pair: Pair, keys: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], Sequence[str | None]]:
    if not keys or not pair.key:
        return {}
    types = {column.name: pair.type_now(column.name) for column in pair.columns}
    same = sql.SQL(" AND ").join(
        sql.SQL("n.{} = a.{}::{}").format(sql.Identifier(name), sql.Identifier(place), sql.SQL(types[name]))
        for name, place in zip(pair.key, pair.places, strict=True)
    )
    query = sql.SQL("SELECT {keys}, {now} FROM unnest({arrays}) a({places}) JOIN ONLY {table} n ON {same}").format(
        keys=_texts("n", pair.key),
        now=_texts("n", list(types)),
        arrays=sql.SQL(", ").join(sql.SQL("%s::text[]") for _ in pair.key),
        places=sql.SQL(", ").join(map(sql.Identifier, pair.places)),
        table=pair.table,
        same=same,
    )
    columns = [list(values) for values in zip(*keys, strict=True)]
    return {tuple(key): now for key, now in sides.now.execute(query, columns).fetchall()}


def _texts(alias: str, columns: Sequence[str]) -> sql.Composed:
    if not columns:
        return sql.SQL("ARRAY[]::text[]").format()
    return sql.SQL("ARRAY[{}]").format(
        sql.SQL(", ").join(composed_text_of(sql.Identifier(alias, column)) for column in columns)
    )
