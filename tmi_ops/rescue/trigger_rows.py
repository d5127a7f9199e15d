"""Rows to restore that triggers of the live database insert while their parents are restored.

A trigger that inserts a first child for every new parent may insert one with the key of the child to restore. It was
inserted in this transaction, so it is updated to the past. A row that another session wrote is never used.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError
from tmi_ops.rescue.pairs import Pair, equal
from tmi_ops.rescue.staging import place_of

_THERE = sql.SQL("SELECT FROM ONLY {table} l WHERE {same}")
# The id of the transaction that wrote a row, with its epoch: close to ours, so of the same epoch or the one before.
_WRITTEN_BY_US = sql.SQL(
    "pg_xact_status(((t.own >> 32) - CASE WHEN l.xmin::text::bigint > (t.own & 4294967295) + 2147483648 THEN 1 ELSE 0 "
    "END << 32 | l.xmin::text::bigint)::text::xid8) = 'in progress'"
)


def require_missing(now: psycopg.Connection[Any], pair: Pair, hint: str) -> None:
    """Require that none of the rows to be inserted exists.

    Raises:
        RecoveryError: one does.
    """
    if not pair.key or pair.now is None:
        return
    query = sql.SQL("SELECT FROM {} s WHERE s.action = 'insert' AND EXISTS ({}) LIMIT 1").format(
        pair.temporary("stage"), _there(pair)
    )
    if now.execute(query).fetchone() is not None:
        raise RecoveryError(
            f"Rows of {pair.name} that were to be inserted exist now.", hint=hint, code=Code.ROWS_CHANGED
        )


def become_updates(now: psycopg.Connection[Any], pair: Pair) -> int:
    """Plan rows that triggers of this transaction have inserted as updates. Returns their number."""
    if not pair.key or pair.now is None:
        return 0
    return now.execute(
        sql.SQL(
            "UPDATE {stage} s SET action = 'update' FROM ONLY {table} l, "
            "(SELECT pg_current_xact_id()::text::bigint AS own) t WHERE s.action = 'insert' AND {same} AND {by_us}"
        ).format(stage=pair.temporary("stage"), table=pair.table, same=_same(pair), by_us=_WRITTEN_BY_US)
    ).rowcount


def _there(pair: Pair) -> sql.Composed:
    return _THERE.format(table=pair.table, same=_same(pair))


def _same(pair: Pair) -> sql.Composed:
    return equal("l", pair.key, "s", [place_of(pair, name) for name in pair.key])
