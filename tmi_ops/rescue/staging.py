"""Past rows in temporary tables of the live server: checked while planning, written by the execution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.rescue.copying import copy_across
from tmi_ops.rescue.links import Link
from tmi_ops.rescue.pairs import Pair

# A table has 1,600 columns at most (source: PostgreSQL, Limits), and `stage` has some of its own.
COLUMNS_OF_ONE = 1500
_OWN = sql.SQL("row_id tid, action text, digest bytea, now_digest bytea, nth bigint")


def looked_at_columns(pair: Pair, links: Iterable[Link]) -> frozenset[str]:
    """The columns that unique indexes, constraints and these foreign keys use."""
    names = set(pair.key)
    if pair.now is not None:
        names.update(*(index.columns for index in pair.now.uniques), *(check.columns for check in pair.now.checks))
    names |= {column.name for column in pair.columns if never_null_now(pair, column.name)}
    for link in links:
        names |= set(link.columns) if link.child == pair.name else set()
        names |= set(link.referenced) if pair.name in link.parents else set()
    return frozenset(names)


def never_null_now(pair: Pair, name: str) -> bool:
    """Whether a column is NOT NULL now and was not in the past."""
    now, was = pair.now.column(name) if pair.now else None, pair.then.column(name)
    return now is not None and now.not_null and not (was and was.not_null)


def stage(
    past: psycopg.Connection[Any],
    now: psycopg.Connection[Any],
    pair: Pair,
    *,
    joined: Set[str],
    needed: Set[str] | None = None,
) -> int:
    """Copy the rows that `state` marks for insert or update into `stage`, which ends with the transaction.

    Args:
        joined: columns used in joins.
        needed: other columns are left NULL, because they may have most of a row's bytes; None: all are needed.

    Returns:
        The number of rows.
    """
    names = [column.name for column in pair.columns]
    needed = set(names) if needed is None else needed
    first, rest = names[:COLUMNS_OF_ONE], names[COLUMNS_OF_ONE:]
    rows = _copied(past, now, pair, pair.temporary("stage"), _OWN, _own_values(pair), first, needed)
    # Statistics of other columns are not needed, and would read every value.
    analyzed = [
        "action",
        *([] if pair.key else ["digest"]),
        *(place_of(pair, name) for name in first if name in joined),
    ]
    now.execute(
        sql.SQL("ANALYZE {} ({})").format(
            pair.temporary("stage"), sql.SQL(", ").join(sql.Identifier(name) for name in analyzed)
        )
    )
    if rest:
        more = pair.temporary("stage_more")
        _copied(past, now, pair, more, sql.SQL("row_id tid"), sql.SQL("s.row_id"), rest, needed)
        now.execute(sql.SQL("ANALYZE {} (row_id)").format(more))
    return rows


def unstage(now: psycopg.Connection[Any], pair: Pair) -> None:
    """Drop the staged rows of a table."""
    for purpose in ("stage", "stage_more"):
        now.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(pair.temporary(purpose)))


def staged(pair: Pair) -> sql.Composable:
    """`stage` as a FROM item; for a very wide table, its two halves joined."""
    if len(pair.columns) <= COLUMNS_OF_ONE:
        return pair.temporary("stage")
    return sql.SQL("(SELECT * FROM {} JOIN {} USING (row_id))").format(
        pair.temporary("stage"), pair.temporary("stage_more")
    )


def _copied(
    past: psycopg.Connection[Any],
    now: psycopg.Connection[Any],
    pair: Pair,
    into: sql.Identifier,
    own: sql.SQL,
    own_values: sql.Composable,
    names: Sequence[str],
    needed: Set[str],
) -> int:
    declared = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(place_of(pair, name)), sql.SQL(pair.type_now(name))) for name in names
    )
    now.execute(sql.SQL("CREATE TEMP TABLE {} ({}, {}) ON COMMIT DROP").format(into, own, declared))
    values = sql.SQL(", ").join(sql.Identifier("t", name) if name in needed else sql.SQL("NULL") for name in names)
    query = sql.SQL(
        "SELECT {}, {} FROM {} s JOIN ONLY {} t ON t.ctid = s.row_id WHERE s.action IN ('insert', 'update')"
    ).format(own_values, values, pair.temporary("state"), pair.source)
    return copy_across(past, query, now, into)


def _own_values(pair: Pair) -> sql.Composed:
    nth = sql.SQL("NULL::bigint" if pair.key else "s.nth")
    return sql.SQL("s.row_id, s.action, s.digest, s.now_digest, {}").format(nth)


def places(pair: Pair) -> tuple[str, ...]:
    """Names of the table's columns in `stage`: c1, c2. The table's own names could clash with ours."""
    return tuple(f"c{number}" for number in range(1, len(pair.columns) + 1))


def place_of(pair: Pair, column: str) -> str:
    """The name in `stage` of a column of the table."""
    return f"c{[one.name for one in pair.columns].index(column) + 1}"
