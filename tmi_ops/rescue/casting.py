"""Columns whose type has changed: casts their past values to the current type, on the live server.

1. The values go there as text. 2. A temporary function per column casts each value, or reports that it cannot. It casts
only between PostgreSQL's own types: a cast of another type may be its owner's function, and would run with our rights.
3. The results come back as text into a temporary copy of the rows, which then replaces the table on the past's side. A
value that cannot be cast is NULL there, and its row is in conflict.
"""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.postgres.own_text import cast_to_text, is_own_type
from tmi_ops.rescue.copying import copy_across
from tmi_ops.rescue.pairs import Pair

_FUNCTION = sql.SQL(
    "CREATE FUNCTION {name}(given text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog AS {body}"
)
# A cast to a type with a length truncates or rounds, which would change the value.
_WITH_LENGTH = (
    "DECLARE whole {plain} := given; BEGIN IF (whole::{exact})::{plain} = whole THEN RETURN (whole::{exact})::text; "
    "END IF; RETURN NULL; EXCEPTION WHEN OTHERS THEN RETURN NULL; END"
)
_WITHOUT = "BEGIN RETURN (given::{exact})::text; EXCEPTION WHEN OTHERS THEN RETURN NULL; END"
# Uses only the type's input and output functions.
_BY_INPUT = (
    "DECLARE result text; BEGIN IF given IS NOT NULL THEN EXECUTE format('SELECT concat(%L::%s)', given, {exact}) "
    "INTO result; END IF; RETURN result; EXCEPTION WHEN OTHERS THEN RETURN NULL; END"
)
# Next to the table's own columns, so the names must be ones that no table has.
_WAS_AT = sql.Identifier("tmi_ops was at")
# Without a length these mean a length of one.
_PLAIN = {"character": "pg_catalog.bpchar", "bit": "bit varying"}


def cast_values(past: psycopg.Connection[Any], now: psycopg.Connection[Any], pair: Pair, *, picked: bool) -> None:
    """Make the temporary copy of the rows, if any column must be cast.

    Args:
        picked: only the rows that `picked` names, which refers to the copy afterwards; else all rows.
    """
    if not pair.casts or pair.now is None:
        return
    given, known = pair.temporary("given"), pair.temporary("known")
    numbers = range(1, len(pair.casts) + 1)
    values = sql.SQL(", ").join(sql.Identifier(f"v{number}") for number in numbers)
    declared = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(f"v{number}")) for number in numbers)
    chosen = sql.SQL("JOIN {} p ON p.row_id = t.ctid").format(pair.temporary("picked")) if picked else sql.SQL("")
    now.execute(sql.SQL("CREATE TEMP TABLE {} (row_id text, {})").format(given, declared))
    types = {column.name: column.type for column in pair.then.columns}
    texts = sql.SQL(", ").join(cast_to_text(sql.Identifier("t", name), types[name]) for name in pair.casts)
    copy_across(
        past, sql.SQL("SELECT t.ctid::text, {} FROM ONLY {} t {}").format(texts, pair.table, chosen), now, given
    )
    past.execute(sql.SQL("CREATE TEMP TABLE {} (row_id tid, {})").format(known, declared))
    cast = [_cast(now, pair, number) for number in numbers]
    copy_across(now, sql.SQL("SELECT row_id, {} FROM {}").format(sql.SQL(", ").join(cast), given), past, known)
    now.execute(sql.SQL("DROP TABLE {}").format(given))
    _take_the_tables_place(past, pair, values, picked=picked)


def unfit_columns(pair: Pair, source: str) -> list[tuple[str, sql.Composed]]:
    """For each cast column, SQL over `source` that is true if a row's past value cannot be cast."""
    return [
        (name, sql.SQL("{}").format(sql.Identifier(source, _unfit(number))))
        for number, name in enumerate(pair.casts, 1)
    ]


def _unfit(number: int) -> str:
    return f"tmi_ops unfit {number}"


def _cast(now: psycopg.Connection[Any], pair: Pair, number: int) -> sql.Composed:
    name = sql.Identifier("pg_temp", f"rescue_cast_{pair.number}_{number}")
    column = pair.now.column(pair.casts[number - 1]) if pair.now else None
    if column is None:  # a cast column exists on both sides
        raise AssertionError
    now.execute(_FUNCTION.format(name=name, body=sql.Literal(_body(column.type))))
    return sql.SQL("{}({})").format(name, sql.Identifier(f"v{number}"))


def _body(exact: str) -> str:
    if not is_own_type(exact):
        escaped = exact.replace("'", "''")
        return _BY_INPUT.format(exact=f"'{escaped}'")
    plain = re.sub(r"\([\d, ]+\)", "", exact)
    if plain == exact:
        return _WITHOUT.format(exact=exact)
    return _WITH_LENGTH.format(exact=exact, plain=_PLAIN.get(plain, plain))


def _take_the_tables_place(past: psycopg.Connection[Any], pair: Pair, values: sql.Composable, *, picked: bool) -> None:
    known, places = pair.temporary("known"), dict(zip(pair.casts, range(1, len(pair.casts) + 1), strict=True))
    columns = sql.SQL(", ").join(
        sql.SQL("k.{} AS {}").format(sql.Identifier(f"v{places[column.name]}"), sql.Identifier(column.name))
        if column.name in places
        else sql.Identifier("t", column.name)
        for column in pair.then.columns
    )
    unfit = sql.SQL(", ").join(
        sql.SQL("t.{} IS NOT NULL AND k.{} IS NULL AS {}").format(
            sql.Identifier(name), sql.Identifier(f"v{number}"), sql.Identifier(_unfit(number))
        )
        for name, number in places.items()
    )
    past.execute(
        sql.SQL(
            "CREATE TEMP TABLE {copy} AS SELECT t.ctid AS {was_at}, {unfit}, {columns} FROM ONLY {table} t "
            "JOIN {known} k ON k.row_id = t.ctid"
        ).format(copy=pair.source, was_at=_WAS_AT, unfit=unfit, columns=columns, table=pair.table, known=known)
    )
    past.execute(sql.SQL("ANALYZE {}").format(pair.source))
    if picked:
        chosen, moved = pair.temporary("picked"), sql.Identifier(f"rescue_moved_{pair.number}")
        past.execute(
            sql.SQL(
                "CREATE TEMP TABLE {} AS SELECT c.ctid AS row_id, p.reason FROM {} p JOIN {} c ON c.{} = p.row_id"
            ).format(moved, chosen, pair.source, _WAS_AT)
        )
        past.execute(sql.SQL("DROP TABLE {}").format(chosen))
        past.execute(
            sql.SQL("ALTER TABLE pg_temp.{} RENAME TO {}").format(moved, sql.Identifier(f"rescue_picked_{pair.number}"))
        )
    past.execute(sql.SQL("DROP TABLE {}").format(known))
