"""Clashes on unique indexes and exclusion constraints of the live server. SQL.

A staged row is compared with the live rows. If it clashes with a row that this rescue does not change, its value is
taken; if with one that it does change, the two exchange values, and one must step aside first (`exchange.py`).
"""

from __future__ import annotations

from collections.abc import Collection

from psycopg import sql

from tmi_ops.rescue.pairs import Pair, equal
from tmi_ops.rescue.shape import UniqueIndex
from tmi_ops.rescue.staging import place_of, staged

_CLASH = sql.SQL(
    "SELECT {chosen} FROM ({would}) s JOIN (SELECT {living_key} {living} FROM ONLY {table} n {where}) l ON {same} "
    "WHERE {other_row}"
)


def taken(pair: Pair, index: UniqueIndex) -> sql.Composed:
    """Staged rows whose value belongs to a live row that this rescue does not change, as rows of `conflicts`."""
    words = sql.SQL("concat_ws(', ', {})").format(_columns("l", pair.places)) if pair.key else sql.SQL("'?'")
    chosen = sql.SQL("DISTINCT {}, s.row_id, 'taken', {} || {}").format(
        sql.Literal(pair.number),
        sql.Literal(f"its value in {index.name} now belongs to another row: "),
        words if pair.key else sql.Literal("one without a key"),
    )
    own = sql.SQL("NOT ({})").format(equal("s", pair.places, "l", pair.places)) if pair.key else sql.SQL("true")
    return _clash(pair, index, chosen, sql.SQL("{}{}").format(own, _updated(pair, by_us=False)))


def twins(pair: Pair, index: UniqueIndex) -> sql.Composed:
    """Staged rows that share a value, which no index forbade in the past, as rows of `conflicts`."""
    return sql.SQL(
        "SELECT DISTINCT {number}, s.row_id, 'taken', {detail} FROM ({would}) s JOIN ({would}) o ON {same} "
        "WHERE s.row_id <> o.row_id"
    ).format(
        number=sql.Literal(pair.number),
        detail=sql.Literal(f"another restored row has the same value in {index.name}, which is newer"),
        would=_would(pair, index),
        same=_same(index, "s", "o"),
    )


def exchanging(pair: Pair, index: UniqueIndex, *, with_inserted: bool) -> sql.Composed:
    """Numbered keys of live rows that this rescue changes and whose value another row gets."""
    chosen = sql.SQL("DISTINCT {}").format(_columns("l", pair.places))
    gets_it = sql.SQL("true") if with_inserted else sql.SQL("s.action = 'update'")
    other = sql.SQL("NOT ({}) AND {}{}").format(
        equal("s", pair.places, "l", pair.places), gets_it, _updated(pair, by_us=True)
    )
    return sql.SQL("SELECT row_number() OVER () AS nth, x.* FROM ({}) x").format(_clash(pair, index, chosen, other))


def would_be(pair: Pair, needed: Collection[str]) -> tuple[sql.Composed, sql.Composed]:
    """Staged rows as they would be in the table: a FROM item `g`, and the columns by name for a SELECT.

    Columns that are not staged have the live row's values.
    """
    known = {column.name for column in pair.columns}
    living = [name for name in needed if name not in known]
    join: sql.Composable = sql.SQL("")
    if living and pair.key:
        join = sql.SQL(" LEFT JOIN ONLY {} h ON {}").format(
            pair.table, equal("h", pair.key, "g", [place_of(pair, name) for name in pair.key])
        )
    columns = [
        *(
            sql.SQL("g.{} AS {}").format(sql.Identifier(place_of(pair, name)), sql.Identifier(name))
            for name in needed
            if name in known
        ),
        *(
            sql.SQL("{} AS {}").format(sql.Identifier("h", name) if pair.key else sql.SQL("NULL"), sql.Identifier(name))
            for name in living
        ),
    ]
    return sql.SQL("{} g{}").format(staged(pair), join), sql.SQL(", ").join(columns)


def _clash(pair: Pair, index: UniqueIndex, chosen: sql.Composed, other_row: sql.Composable) -> sql.Composed:
    return _CLASH.format(
        chosen=chosen,
        would=_would(pair, index),
        living_key=sql.SQL("{},").format(pair.keys_as_places("n")) if pair.key else sql.SQL(""),
        living=_expressions(index),
        table=pair.table,
        where=_where(index),
        same=_same(index, "s", "l"),
        other_row=other_row,
    )


def _would(pair: Pair, index: UniqueIndex) -> sql.Composed:
    """`row_id`, `action`, key and index expressions of each staged row."""
    source, columns = would_be(pair, index.columns)
    keys = sql.SQL("").join(
        sql.SQL("g.{} AS {}, ").format(sql.Identifier(place_of(pair, name)), sql.Identifier(place))
        for name, place in zip(pair.key, pair.places, strict=True)
    )
    return sql.SQL(
        "SELECT g.row_id, g.action, {keys} x.* FROM {source} CROSS JOIN LATERAL "
        "(SELECT {values} FROM (SELECT {columns}) r {where}) x"
    ).format(keys=keys, source=source, values=_expressions(index), columns=columns, where=_where(index))


def _updated(pair: Pair, *, by_us: bool) -> sql.Composable:
    if not pair.key:
        return sql.SQL("")
    places = [place_of(pair, name) for name in pair.key]
    return sql.SQL(" AND {}EXISTS (SELECT FROM {} u WHERE u.action = 'update' AND {})").format(
        sql.SQL("" if by_us else "NOT "), staged(pair), equal("u", places, "l", pair.places)
    )


def _expressions(index: UniqueIndex) -> sql.Composed:
    return sql.SQL(", ").join(
        sql.SQL("({}) AS {}").format(sql.SQL(expression), sql.Identifier(f"e{number}"))
        for number, expression in enumerate(index.expressions, 1)
    )


def _same(index: UniqueIndex, one: str, other: str) -> sql.Composed:
    equals = "IS NOT DISTINCT FROM" if index.nulls_equal else "="
    operators = index.operators or (equals,) * len(index.expressions)
    return sql.SQL(" AND ").join(
        sql.SQL("{} {} {}").format(
            sql.Identifier(one, f"e{number}"), sql.SQL(operator), sql.Identifier(other, f"e{number}")
        )
        for number, operator in enumerate(operators, 1)
    )


def _where(index: UniqueIndex) -> sql.Composable:
    return sql.SQL("WHERE {}").format(sql.SQL(index.predicate)) if index.predicate else sql.SQL("")


def _columns(alias: str, names: Collection[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(alias, name) for name in names)
