"""The columns' past values, in a temporary table of the live server that ends with the transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psycopg import sql

from tmi_ops.postgres.own_text import composed_text_of
from tmi_ops.rescue.columns.definition import WasColumn
from tmi_ops.rescue.copying import copy_across
from tmi_ops.rescue.pairs import Pair, listed
from tmi_ops.rescue.session import Sides

STAGED = sql.Identifier("pg_temp", "rescue_values")


@dataclass(frozen=True)
class Valued:
    """The key of a live row and the past values of its columns, as PostgreSQL's text; None for NULL."""

    table: str
    key: tuple[str, ...]
    then: dict[str, str | None]


@dataclass(frozen=True)
class Counts:
    """Live rows with past values, all live rows, and the past rows that were chosen."""

    rows: int
    living: int
    then: int


def filled(columns: Sequence[WasColumn]) -> list[WasColumn]:
    """The columns with values to restore; the others are computed."""
    return [column for column in columns if not column.computed]


def stage_values(sides: Sides, pair: Pair, columns: Sequence[WasColumn], *, picked: bool) -> None:
    """Copy keys and values to the live server.

    Args:
        picked: only for the rows in the past's `picked`.
    """
    chosen = filled(columns)
    declared = [
        pair.declared_places(),
        *(
            sql.SQL("{} {}").format(sql.Identifier(place), sql.SQL(column.type))
            for place, column in zip(places(chosen), chosen, strict=True)
        ),
    ]
    sides.now.execute(sql.SQL("CREATE TEMP TABLE {} ({}) ON COMMIT DROP").format(STAGED, sql.SQL(", ").join(declared)))
    copy_across(sides.past, _values_then(pair, chosen, picked=picked), sides.now, STAGED)
    sides.now.execute(sql.SQL("ANALYZE {}").format(STAGED))


def count_rows(sides: Sides, pair: Pair) -> Counts:
    """See `Counts`; the values must be staged."""
    query = sql.SQL(
        "SELECT (SELECT count(*) FROM ONLY {table} l JOIN {staged} s ON {same}), (SELECT count(*) FROM ONLY {table}), "
        "(SELECT count(*) FROM {staged})"
    ).format(table=pair.table, staged=STAGED, same=pair.same_key("l", "s"))
    return Counts(*(sides.now.execute(query).fetchone() or (0, 0, 0)))


def values_digest(sides: Sides, pair: Pair, columns: Sequence[WasColumn], *, picked: bool) -> str:
    """One digest of all past values. Current values are not part of it, because the application keeps writing."""
    query = sql.SQL(
        "SELECT count(*) || ' ' || coalesce(sum(('x' || substr(encode(sha256(convert_to(v::text, 'UTF8')), 'hex'), 1, "
        "16))::bit(64)::bigint), 0) FROM ({}) v"
    ).format(_values_then(pair, filled(columns), picked=picked))
    row = sides.past.execute(query).fetchone()
    return str(row[0]) if row else ""


def staged_rows(sides: Sides, pair: Pair, columns: Sequence[WasColumn], limit: int | None) -> Iterator[Valued]:
    """The live rows that get values, ordered by key; the values must be staged."""
    chosen = filled(columns)
    query = sql.SQL("SELECT ARRAY[{}], ARRAY[{}]::text[] FROM ONLY {} l JOIN {} s ON {} ORDER BY {} {}").format(
        sql.SQL(", ").join(composed_text_of(sql.Identifier("l", name)) for name in pair.key),
        sql.SQL(", ").join(composed_text_of(sql.Identifier("s", place)) for place in places(chosen)),
        pair.table,
        STAGED,
        pair.same_key("l", "s"),
        listed("l", pair.key),
        sql.SQL("LIMIT {}").format(sql.Literal(limit)) if limit is not None else sql.SQL(""),
    )
    with sides.now.cursor("rescue_values") as cursor:
        for key, then in cursor.execute(query):
            yield Valued(str(pair.name), tuple(key), dict(zip((column.name for column in chosen), then, strict=True)))


def places(columns: Sequence[WasColumn]) -> list[str]:
    """Names of the columns in the temporary table: v1, v2. The table's own names could clash with k1, k2."""
    return [f"v{number}" for number in range(1, len(columns) + 1)]


def _values_then(pair: Pair, chosen: Sequence[WasColumn], *, picked: bool) -> sql.Composed:
    names = [*pair.key, *(column.name for column in chosen)]
    join = sql.SQL("JOIN {} p ON p.row_id = t.ctid AND p.reason <> 'parent'").format(pair.temporary("picked"))
    return sql.SQL("SELECT {} FROM ONLY {} t {}").format(
        listed("t", names), pair.table, join if picked else sql.SQL("")
    )
