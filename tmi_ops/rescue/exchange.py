"""Rows that exchange unique values: one steps aside before the other gets its value.

PostgreSQL checks a unique index row by row, so one UPDATE cannot swap back two names. A row whose value another row
gets is first given a value that no row has, and then its own past value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.rescue.clashes import exchanging
from tmi_ops.rescue.links import Link
from tmi_ops.rescue.pairs import Pair, equal
from tmi_ops.rescue.shape import Column, UniqueIndex

# Values that no row has, by type: `c` is the column, `nth` numbers the rows from 1. Empty ranges overlap nothing.
_NOBODYS = {
    "smallint": "(SELECT least(min({c}), 0) FROM ONLY {t}) - a.nth",
    "integer": "(SELECT least(min({c}), 0) FROM ONLY {t}) - a.nth",
    "bigint": "(SELECT least(min({c}), 0) FROM ONLY {t}) - a.nth",
    "numeric": "(SELECT least(min({c}), 0) FROM ONLY {t}) - a.nth",
    "text": "md5(random()::text || a.nth)",
    "uuid": "gen_random_uuid()",
    "date": "'4700-01-01 BC'::date + a.nth::integer",
    "timestamp without time zone": "'4700-01-01 BC'::timestamp + a.nth * interval '1 s'",
    "timestamp with time zone": "'4700-01-01 BC+00'::timestamptz + a.nth * interval '1 s'",
}


@dataclass(frozen=True)
class Exchange:
    """Rows of a table that step aside, in a column of an index."""

    index: UniqueIndex
    column: str
    rows: int


def step_aside(
    now: psycopg.Connection[Any], pair: Pair, links: Iterable[Link], *, circular: bool = False
) -> list[Exchange]:
    """Give the rows that must step aside a value that no row has. The rows must be staged.

    Args:
        circular: one statement both updates the table and inserts into it.

    Raises:
        psycopg.Error: the table does not accept such a value.
        CannotStepAsideError: no such value is known.
    """
    referring = {name for link in links if link.child == pair.name for name in link.columns}
    made = []
    for number, index in enumerate(_looked_at_row_by_row(pair)):
        aside = sql.Identifier("pg_temp", f"rescue_aside_{pair.number}_{number}")
        query = exchanging(pair, index, with_inserted=circular)
        rows = now.execute(sql.SQL("CREATE TEMP TABLE {} ON COMMIT DROP AS {}").format(aside, query)).rowcount
        if rows:
            column, value = _nobodys(now, pair, index, referring)
            now.execute(
                sql.SQL("UPDATE ONLY {} l SET {} = {} FROM {} a WHERE {}").format(
                    pair.table, sql.Identifier(column), value, aside, equal("l", pair.key, "a", pair.places)
                )
            )
            made.append(Exchange(index, column, rows))
    return made


class CannotStepAsideError(Exception):
    """No column of the index can be given a value that no row has."""


def _looked_at_row_by_row(pair: Pair) -> Iterator[UniqueIndex]:
    settable = set(_settable(pair))
    for index in pair.now.uniques if pair.now and pair.key else ():
        if not index.waits and settable & set(index.columns):
            yield index


def _settable(pair: Pair) -> list[str]:
    return [column.name for column in pair.columns if column.name not in pair.key and column.identity != "a"]


def _nobodys(
    now: psycopg.Connection[Any], pair: Pair, index: UniqueIndex, referring: set[str]
) -> tuple[str, sql.Composable]:
    columns = [pair.now.column(name) for name in index.columns if name in _settable(pair)] if pair.now else []
    known = [column for column in columns if column is not None]
    for column in known:
        if not column.not_null and not index.nulls_equal:
            return column.name, sql.SQL("NULL")
    for column in known:
        value = _value(now, pair, column) if column.name not in referring else None
        if value is not None:
            return column.name, value
    raise CannotStepAsideError(f"no unused value of {', '.join(index.columns)} is known")


def _value(now: psycopg.Connection[Any], pair: Pair, column: Column) -> sql.Composable | None:
    kind, _, length = (column.storage or column.type).partition("(")
    if kind == "character varying" or kind == "character":
        return sql.SQL("left(md5(random()::text || a.nth), {})").format(sql.SQL(length.rstrip(")") or "32"))
    if kind in _NOBODYS:
        words = _NOBODYS[kind].format(c=sql.Identifier(column.name).as_string(now), t=pair.table.as_string(now))
        return sql.SQL(words)
    return sql.SQL("'empty'") if kind.endswith("range") else None
