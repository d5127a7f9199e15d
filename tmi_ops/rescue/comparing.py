"""Compares past and live rows by joins on the past's server; the live server only sends keys and digests.

The compared columns of each row become a digest, computed where the row is. For a whole table, key and digest of every
row are sent; for few rows, only their keys go to the live server and only their digests come back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.backup.snapshot import pin_text_output
from tmi_ops.rescue.casting import cast_values, unfit_columns
from tmi_ops.rescue.copying import copy_across
from tmi_ops.rescue.pairs import Pair, equal, listed

# Up to this many rows, looking each up by its key is cheaper than reading the table.
FEW_ROWS = 20_000

_KEYED_THEN = sql.SQL(
    "CREATE TEMP TABLE {rows} AS SELECT t.ctid AS row_id, {reason} AS reason, {digest} AS digest, NULL::bigint AS nth, "
    "{keys} FROM {source}"
)
# Rows without a key are identified by their content, and equal ones are numbered.
_KEYLESS_THEN = sql.SQL(
    "CREATE TEMP TABLE {rows} AS SELECT t.ctid AS row_id, {reason} AS reason, t.digest, t.nth FROM (SELECT r.ctid, "
    "r.digest, row_number() OVER (PARTITION BY r.digest) AS nth FROM (SELECT t.ctid, {digest} AS digest "
    "FROM ONLY {table} t) r) t {join}"
)
_STATE = sql.SQL(
    "CREATE TEMP TABLE {state} AS SELECT t.row_id, t.reason, t.digest, n.digest AS now_digest, CASE WHEN t.row_id IS "
    "NULL THEN 'inserted' WHEN n.digest IS NULL THEN 'deleted' ELSE 'changed' END AS state, {action} AS action, "
    "{keys} FROM {rows} t {how} JOIN {now} n ON {same} WHERE t.digest IS DISTINCT FROM n.digest"
)


@contextmanager
def as_of_one_moment(now: psycopg.Connection[Any]) -> Iterator[None]:
    """Read the live database in one snapshot; temporary tables created meanwhile are dropped afterwards."""
    with now.transaction(force_rollback=True):
        now.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield


def prepare(connection: psycopg.Connection[Any]) -> None:
    """Prepare a connection for comparing: pinned text output, UTF-8, no timeouts."""
    pin_text_output(connection)
    for name, value in (
        ("client_encoding", "UTF8"),
        ("statement_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        # The database may be frozen for the application; our temporary tables and confirmed writes must still work.
        ("default_transaction_read_only", "off"),
    ):
        connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))


# For our own server, which no other session uses.
_OURS_ALONE = {
    "work_mem": "64MB",
    "temp_buffers": "64MB",
    "max_parallel_workers_per_gather": "2",
    "min_parallel_table_scan_size": "1MB",
    "parallel_setup_cost": "10",
    "parallel_tuple_cost": "0.001",
}


def prepare_past(connection: psycopg.Connection[Any]) -> None:
    """As `prepare`, with more memory and workers for the digests of whole tables."""
    prepare(connection)
    for name, value in _OURS_ALONE.items():
        connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))


def compare_picked(
    past: psycopg.Connection[Any], now: psycopg.Connection[Any], pair: Pair, *, whole: bool = False
) -> None:
    """Create `state` for a table's picked rows: those that are deleted or changed now.

    Deleted rows, and rows that are only referenced, get their action here; `conflicts.decide` sets it for the others.

    Args:
        whole: all rows of the table were chosen.
    """
    cast_values(past, now, pair, picked=True)
    rows = _rows_then(past, pair, picked=not whole)
    if pair.key and pair.now is not None and rows <= FEW_ROWS:
        _ask_by_key(past, now, pair)
    else:
        _read_whole(past, now, pair)
    _make_state(past, pair, with_inserted=False)


def compare_whole(past: psycopg.Connection[Any], now: psycopg.Connection[Any], pair: Pair) -> None:
    """Create `state` for a whole table: its deleted, inserted and changed rows."""
    cast_values(past, now, pair, picked=False)
    _rows_then(past, pair, picked=False)
    _read_whole(past, now, pair)
    _make_state(past, pair, with_inserted=True)


def _rows_then(past: psycopg.Connection[Any], pair: Pair, *, picked: bool) -> int:
    reason = sql.SQL("p.reason") if picked else sql.SQL("'chosen'::text")
    join = sql.SQL("JOIN {} p ON p.row_id = t.ctid").format(pair.temporary("picked")) if picked else sql.SQL("")
    if pair.key:
        statement = _KEYED_THEN.format(
            rows=pair.temporary("rows"),
            reason=reason,
            digest=_digest_then(pair),
            keys=pair.keys_as_places("t"),
            source=sql.SQL("ONLY {} t {}").format(pair.source, join),
        )
    else:
        statement = _KEYLESS_THEN.format(
            rows=pair.temporary("rows"), reason=reason, digest=_digest_then(pair), table=pair.source, join=join
        )
    rows = past.execute(statement).rowcount
    _analyze(past, pair, "rows")
    return rows


def _digest_then(pair: Pair) -> sql.Composed:
    """A row with a value that cannot be cast equals no live row."""
    unfit = [is_unfit for _, is_unfit in unfit_columns(pair, "t")]
    if not unfit:
        return pair.digest("t")
    return sql.SQL("CASE WHEN {} THEN ''::bytea ELSE {} END").format(sql.SQL(" OR ").join(unfit), pair.digest("t"))


def _read_whole(past: psycopg.Connection[Any], now: psycopg.Connection[Any], pair: Pair) -> None:
    keys = sql.SQL(", {}").format(pair.declared_places(living=False)) if pair.key else sql.SQL("")
    past.execute(sql.SQL("CREATE TEMP TABLE {} (digest bytea{})").format(pair.temporary("now"), keys))
    if pair.now is not None:
        columns = sql.SQL(", {}").format(listed("n", pair.key)) if pair.key else sql.SQL("")
        query = sql.SQL("SELECT {}{} FROM ONLY {} n").format(pair.digest("n"), columns, pair.table)
        copy_across(now, query, past, pair.temporary("now"))
    _analyze(past, pair, "now")


def _ask_by_key(past: psycopg.Connection[Any], now: psycopg.Connection[Any], pair: Pair) -> None:
    past.execute(
        sql.SQL("CREATE TEMP TABLE {} (digest bytea, {})").format(
            pair.temporary("now"), pair.declared_places(living=False)
        )
    )
    asked = pair.temporary("asked")
    now.execute(sql.SQL("CREATE TEMP TABLE {} ({})").format(asked, pair.declared_places()))
    keys = sql.SQL("SELECT {} FROM {} t").format(listed("t", pair.places), pair.temporary("rows"))
    copy_across(past, keys, now, asked)
    now.execute(sql.SQL("ANALYZE {}").format(asked))
    query = sql.SQL("SELECT {}, {} FROM {} a JOIN ONLY {} n ON {}").format(
        pair.digest("n"), listed("n", pair.key), asked, pair.table, pair.same_key("n", "a")
    )
    copy_across(now, query, past, pair.temporary("now"))


def _analyze(past: psycopg.Connection[Any], pair: Pair, purpose: str) -> None:
    """Analyze only the columns used in joins; more would read every value."""
    columns = sql.SQL(", ").join(map(sql.Identifier, pair.places or ("digest",)))
    past.execute(sql.SQL("ANALYZE {} ({})").format(pair.temporary(purpose), columns))


def _make_state(past: psycopg.Connection[Any], pair: Pair, *, with_inserted: bool) -> None:
    if pair.key:
        now: sql.Composable = pair.temporary("now")
        same: sql.Composable = equal("t", pair.places, "n", pair.places)
        keys: sql.Composable = sql.SQL(", ").join(
            sql.SQL("coalesce(t.{0}, n.{0}) AS {0}").format(sql.Identifier(name)) for name in pair.places
        )
    else:
        now = sql.SQL("(SELECT digest, row_number() OVER (PARTITION BY digest) AS nth FROM {})").format(
            pair.temporary("now")
        )
        same, keys = sql.SQL("t.digest = n.digest AND t.nth = n.nth"), sql.SQL("coalesce(t.nth, n.nth) AS nth")
    past.execute(
        _STATE.format(
            state=pair.temporary("state"),
            keys=keys,
            rows=pair.temporary("rows"),
            how=sql.SQL("FULL" if with_inserted else "LEFT"),
            action=sql.SQL("NULL::text") if with_inserted else _first_action(pair),
            now=now,
            same=same,
        )
    )
    past.execute(sql.SQL("CREATE INDEX ON {} (row_id)").format(pair.temporary("state")))
    for purpose in ("rows", "now"):
        past.execute(sql.SQL("DROP TABLE {}").format(pair.temporary(purpose)))


def _first_action(pair: Pair) -> sql.Composed:
    """If only values are restored, missing rows are not inserted."""
    return sql.SQL("CASE WHEN n.digest IS NULL THEN {} WHEN t.reason = 'parent' THEN 'needed' END").format(
        sql.Literal("gone" if pair.values_only else "insert")
    )
