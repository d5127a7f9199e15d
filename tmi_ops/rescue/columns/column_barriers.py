"""What would prevent dropped columns from being restored, found while planning, each with its remedy.

Queries the table as it would be: live rows with their past values, the others with the default or NULL. The unique
indexes, checks and foreign keys to be restored must hold for it, and its triggers must allow updates. Exclusion
constraints are left to the execution, because past values did not conflict.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from tmi_ops.errors import first_line
from tmi_ops.rescue.barriers import Barrier, rehearse_update
from tmi_ops.rescue.columns.definition import WasColumn
from tmi_ops.rescue.columns.values import STAGED, filled, places
from tmi_ops.rescue.pairs import Pair, listed
from tmi_ops.rescue.session import Sides
from tmi_ops.rescue.shape import Check, ForeignKey, UniqueIndex

_OTHER_ROWS = "select the rows that get values with --where, or change the rows that conflict"
# Triggers with a column list cannot name a dropped column, so they do not fire.
_ON_ANY_UPDATE = """
SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal AND tgenabled IN ('O', 'A')
   AND tgtype & 16 <> 0 AND tgattr = ''
"""
_NAMED_BY_TRIGGERS = """
SELECT a.attname FROM pg_trigger t JOIN pg_attribute a ON a.attrelid = t.tgrelid AND a.attnum = ANY (t.tgattr)
WHERE t.tgrelid = %s::regclass AND NOT t.tgisinternal
"""
_NOT_VALIDATED = """
SELECT conname FROM pg_constraint WHERE %(table)s::regclass IN (conrelid, confrelid) AND NOT convalidated
"""


@dataclass(frozen=True)
class _WouldBe:
    """The table's columns after the execution, and its rows as a FROM item."""

    columns: frozenset[str]
    rows: sql.Composed


def find_column_barriers(sides: Sides, pair: Pair, columns: Sequence[WasColumn]) -> tuple[Barrier, ...]:
    """What prevents these columns from being restored; their values must be staged."""
    wanted = frozenset(column.name for column in columns)
    would = _would_be(pair, columns)
    asked = {"table": pair.table.as_string(sides.past)}
    unchecked = {name for (name,) in sides.past.execute(_NOT_VALIDATED, asked).fetchall()}
    keys = [key for key in sides.then.foreign_keys if key.name not in unchecked]
    checks = [check for check in _checks(pair, wanted, would) if check.name not in unchecked]
    return (
        *_refused(sides, pair, columns),
        *(barrier for index in _returning(pair, wanted, would) for barrier in _shared(sides, index, would)),
        *(barrier for check in checks for barrier in _forbidden(sides, check, would)),
        *(barrier for key in keys for barrier in _dangling(sides, pair, key, wanted, would)),
    )


def _would_be(pair: Pair, columns: Sequence[WasColumn]) -> _WouldBe:
    chosen = filled(columns)
    living = [column.name for column in pair.now.columns] if pair.now else []
    values = [
        sql.SQL("CASE WHEN s.{first} IS NOT NULL THEN s.{value} ELSE {default} END AS {name}").format(
            first=sql.Identifier(pair.places[0]),
            value=sql.Identifier(place),
            default=_default(column),
            name=sql.Identifier(column.name),
        )
        for column, place in zip(chosen, places(chosen), strict=True)
    ]
    rows = sql.SQL("(SELECT {} FROM ONLY {} l LEFT JOIN {} s ON {})").format(
        sql.SQL(", ").join([*(sql.Identifier("l", name) for name in living), *values]),
        pair.table,
        STAGED,
        pair.same_key("l", "s"),
    )
    return _WouldBe(frozenset([*living, *(column.name for column in chosen)]), rows)


def _default(column: WasColumn) -> sql.Composable:
    """What a row without a past value gets. A number from a sequence does not clash."""
    if not column.filled_by_default or column.default is None or "nextval(" in column.default:
        return sql.SQL("NULL")
    return sql.SQL("({})").format(sql.SQL(column.default))


def _refused(sides: Sides, pair: Pair, columns: Sequence[WasColumn]) -> Iterator[Barrier]:
    """A trigger that does not allow updates: updates one row to its own values, and rolls that back."""
    now, table = sides.now, pair.table.as_string(sides.now)
    triggers = [name for (name,) in now.execute(_ON_ANY_UPDATE, [table]).fetchall()]
    named = {name for (name,) in now.execute(_NAMED_BY_TRIGGERS, [table]).fetchall()}
    living = pair.now.columns if pair.now else ()
    settable = next((c.name for c in living if c.name not in named and not c.generated and c.identity != "a"), None)
    if not triggers or settable is None or not filled(columns):
        return
    try:
        rehearse_update(now, pair.table, [settable])
    except psycopg.Error as error:
        yield Barrier(
            f"The trigger {' and '.join(triggers)} of {pair.name} does not allow updates: {first_line(error)}.",
            f"let the table's owner disable it temporarily: ALTER TABLE {pair.name} DISABLE TRIGGER {triggers[0]}",
        )


def _returning(pair: Pair, wanted: Collection[str], would: _WouldBe) -> Iterator[UniqueIndex]:
    for index in pair.then.uniques:
        if set(index.columns) & set(wanted) and set(index.columns) <= would.columns and not index.operators:
            yield index


def _shared(sides: Sides, index: UniqueIndex, would: _WouldBe) -> Iterator[Barrier]:
    """Rows that would violate a unique index."""
    names = [f"e{number}" for number in range(1, len(index.expressions) + 1)]
    values = sql.SQL("SELECT {} FROM {} r {}").format(
        sql.SQL(", ").join(
            sql.SQL("({}) AS {}").format(sql.SQL(expression), sql.Identifier(name))
            for expression, name in zip(index.expressions, names, strict=True)
        ),
        would.rows,
        sql.SQL("WHERE {}").format(sql.SQL(index.predicate)) if index.predicate else sql.SQL(""),
    )
    listed_names = sql.SQL(", ").join(map(sql.Identifier, names))
    never_null = sql.SQL("({}) IS NOT NULL").format(listed_names)
    query = sql.SQL(
        "SELECT count(*) FROM (SELECT count(*) OVER (PARTITION BY {}) AS alike FROM ({}) v WHERE {}) x WHERE alike > 1"
    ).format(listed_names, values, sql.SQL("true") if index.nulls_equal else never_null)
    if rows := _count(sides, query):
        yield Barrier(f"{rows:,} rows would have duplicate values in the unique index {index.name}.", _OTHER_ROWS)


def _checks(pair: Pair, wanted: Collection[str], would: _WouldBe) -> Iterator[Check]:
    for check in pair.then.checks:
        if set(check.columns) & set(wanted) and set(check.columns) <= would.columns:
            yield check


def _forbidden(sides: Sides, check: Check, would: _WouldBe) -> Iterator[Barrier]:
    query = sql.SQL("SELECT count(*) FROM {} r WHERE NOT ({})").format(would.rows, sql.SQL(check.expression))
    if rows := _count(sides, query):
        yield Barrier(f"{rows:,} rows would violate the restored constraint {check.name}.", _OTHER_ROWS)


def _dangling(sides: Sides, pair: Pair, key: ForeignKey, wanted: Collection[str], would: _WouldBe) -> Iterator[Barrier]:
    """Rows that would violate a restored foreign key of this table, or to it."""
    own, to_us = key.child == pair.name, key.parent == pair.name
    if not ((own and set(key.columns) & set(wanted)) or (to_us and set(key.referenced) & set(wanted))):
        return
    if key.parent not in sides.living or key.child not in sides.living.tables:
        return
    if (own and not set(key.columns) <= would.columns) or (to_us and not set(key.referenced) <= would.columns):
        return
    child: sql.Composable = would.rows if own else sql.SQL("ONLY {}").format(key.child.identifier)
    parent: sql.Composable = would.rows if to_us else key.parent.identifier
    query = sql.SQL("SELECT count(*) FROM {} c WHERE {} AND NOT EXISTS (SELECT FROM {} p WHERE ({}) = ({}))").format(
        child,
        sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(sql.Identifier("c", name)) for name in key.columns),
        parent,
        listed("p", key.referenced),
        listed("c", key.columns),
    )
    if rows := _count(sides, query):
        yield Barrier(
            f"{rows:,} rows of {key.child} would violate the foreign key {key.name}: the rows of {key.parent} that "
            f"{', '.join(key.columns)} references do not exist.",
            f"restore these first: `tmi-ops recover rows --table {key.parent}`; or select the rows that get values "
            "with --where",
        )


def _count(sides: Sides, query: sql.Composed) -> int:
    row = sides.now.execute(query).fetchone()
    return int(row[0]) if row else 0
