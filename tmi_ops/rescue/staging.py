"""Rows of the past in temporary tables of the living server: looked at while planning, put in place by the deed."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.rescue.comparing import copy_across
from tmi_ops.rescue.pairs import Pair


def stage(
    past: psycopg.Connection[Any], now: psycopg.Connection[Any], pair: Pair, columns_needed: Set[str] | None = None
) -> int:
    """Copy the rows that `state` wants inserted or updated, into `stage`. Gone with the transaction's end.

    Args:
        columns_needed: the others are left NULL, as most of a row's bytes may be in them; None: all are needed.

    Returns:
        The number of rows.
    """
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(place), sql.SQL(column.type))
        for place, column in zip(places(pair), pair.columns, strict=True)
    )
    staged = pair.temporary("stage")
    now.execute(
        sql.SQL(
            "CREATE TEMP TABLE {} (row_id tid, action text, digest bytea, now_digest bytea, nth bigint, {}) "
            "ON COMMIT DROP"
        ).format(staged, columns)
    )
    query = sql.SQL(
        "SELECT s.row_id, s.action, s.digest, s.now_digest, {}, {} FROM {} s JOIN ONLY {} t ON t.ctid = s.row_id "
        "WHERE s.action IN ('insert', 'update')"
    ).format(
        sql.SQL("NULL::bigint" if pair.key else "s.nth"),
        sql.SQL(", ").join(
            sql.Identifier("t", column.name)
            if columns_needed is None or column.name in columns_needed
            else sql.SQL("NULL")
            for column in pair.columns
        ),
        pair.temporary("state"),
        pair.table,
    )
    rows = copy_across(past, query, now, staged)
    now.execute(sql.SQL("ANALYZE {}").format(staged))
    return rows


def places(pair: Pair) -> tuple[str, ...]:
    """The table's columns in `stage`: c1, c2. A table's own names could be ours."""
    return tuple(f"c{number}" for number in range(1, len(pair.columns) + 1))


def place_of(pair: Pair, column: str) -> str:
    """Where `stage` has a column of the table."""
    return places(pair)[[one.name for one in pair.columns].index(column)]
