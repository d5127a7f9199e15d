"""Writes past rows to the live tables, one group of tables at a time.

If all rows of a table are inserted, they are copied straight from the past, and only columns for comparing and joining
are staged. If some are updated, or tables reference one another in a circle, whole rows are staged and written from
there; a circle by one statement, at whose end PostgreSQL checks foreign keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.backup.snapshot import TableName
from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError
from tmi_ops.rescue.copying import copy_across
from tmi_ops.rescue.exchange import step_aside
from tmi_ops.rescue.links import Link
from tmi_ops.rescue.pairs import Pair, equal, listed
from tmi_ops.rescue.planning import RescuePlan
from tmi_ops.rescue.session import Sides
from tmi_ops.rescue.staging import looked_at_columns, place_of, places, stage, staged, unstage
from tmi_ops.rescue.trigger_rows import become_updates

PLAN_AGAIN = "run the same command again to make a new plan"


@dataclass
class Writing:
    """Stages and writes the tables of a plan.

    Args:
        made: number of rows by table that triggers inserted in this transaction and that were updated to the past.
    """

    sides: Sides
    plan: RescuePlan
    required: Sequence[Link]
    made: dict[str, int] = field(default_factory=dict)

    def stage(self, pair: Pair) -> int:
        """Stage the needed columns of the rows, and return the number of rows."""
        joined = looked_at_columns(pair, self.required)
        numbered = {sequence.column for sequence in (pair.now or pair.then).sequences}
        needed = joined | numbered if self._goes_straight(pair) else None
        return stage(self.sides.past, self.sides.now, pair, joined=joined, needed=needed)

    def stage_whole(self, pair: Pair) -> None:
        """Stage whole rows, if they are not yet."""
        if self._goes_straight(pair):
            unstage(self.sides.now, pair)
            stage(self.sides.past, self.sides.now, pair, joined=looked_at_columns(pair, self.required))

    def write(self, group: Sequence[Pair]) -> dict[str, tuple[int, int]]:
        """Write one table, or tables that reference one another in a circle.

        Returns:
            (inserted, updated) by table, as planned: rows that triggers inserted count as inserted, and a row that has
            only a key is not updated.
        """
        made = {pair.name: self._have_become(pair) for pair in group}
        counts = {}
        for name, (inserted, updated) in self._write(group, made).items():
            counts[str(name)] = inserted + made[name], max(0, updated - made[name])
        return counts

    def _have_become(self, pair: Pair) -> int:
        rows = become_updates(self.sides.now, pair)
        if rows:
            self.made[str(pair.name)] = rows
            self.stage_whole(pair)
            become_updates(self.sides.now, pair)
        return rows

    def _write(self, group: Sequence[Pair], made: dict[TableName, int]) -> dict[TableName, tuple[int, int]]:
        now, circular = self.sides.now, self._is_circle(group[0])
        # Triggers and defaults must see the application's search path.
        now.execute("SET LOCAL search_path TO DEFAULT")
        if self._goes_straight(group[0]) and not made[group[0].name]:
            counts = {group[0].name: (self._copy_straight(group[0]), 0)}
        else:
            for pair in group:
                step_aside(now, pair, self.sides.links, circular=circular)
            counts = _from_stage(now, group, at_once=circular)
        now.execute("SET LOCAL search_path TO pg_catalog")
        return counts

    def _goes_straight(self, pair: Pair) -> bool:
        """Whether all rows are inserted, into this table alone, and no rule rewrites that."""
        planned = next(table for table in self.plan.tables if table.table == str(pair.name))
        rules = (trigger for trigger in (pair.now.triggers if pair.now else ()) if trigger.is_rule)
        return not planned.update and self._group_of(pair) == {pair.name} and not any(rule.on_insert for rule in rules)

    def _is_circle(self, pair: Pair) -> bool:
        names = self._group_of(pair)
        return any(link.child in names and names & set(link.parents) for link in self.required)

    def _group_of(self, pair: Pair) -> set[TableName]:
        return {name for group in self.plan.order if pair.name in group for name in group}

    def _copy_straight(self, pair: Pair) -> int:
        names = [column.name for column in pair.columns]
        rows = sql.SQL("SELECT {} FROM {} s JOIN ONLY {} t ON t.ctid = s.row_id WHERE s.action = 'insert'").format(
            listed("t", names), pair.temporary("state"), pair.source
        )
        into = sql.SQL("{} ({})").format(pair.table, sql.SQL(", ").join(map(sql.Identifier, names)))
        return copy_across(self.sides.past, rows, self.sides.now, into)


def lock_changing(now: psycopg.Connection[Any], pair: Pair) -> None:
    """Lock the rows that will be updated, and require that they are as planned."""
    if not pair.key or pair.now is None:
        return
    key = [place_of(pair, name) for name in pair.key]
    row = now.execute(
        sql.SQL(
            "SELECT (SELECT count(*) FROM {own} WHERE action = 'update'), count(*) FILTER (WHERE seen = planned) "
            "FROM (SELECT {digest} AS seen, s.now_digest AS planned FROM {stage} s JOIN ONLY {table} l ON {same} "
            "WHERE s.action = 'update' FOR UPDATE OF l) locked"
        ).format(
            own=pair.temporary("stage"),
            stage=staged(pair),
            digest=pair.digest("l"),
            table=pair.table,
            same=equal("l", pair.key, "s", key),
        )
    ).fetchone()
    if row is None or row[0] != row[1]:
        raise RecoveryError(
            f"Rows of {pair.name} that were to be updated have changed since the plan.",
            hint=PLAN_AGAIN,
            code=Code.ROWS_CHANGED,
        )


def _from_stage(
    now: psycopg.Connection[Any], group: Sequence[Pair], *, at_once: bool
) -> dict[TableName, tuple[int, int]]:
    statements = [(pair, kind, _statement(pair, kind)) for kind in ("update", "insert") for pair in group]
    statements = [one for one in statements if one[2] is not None]
    if at_once:
        counts = _in_one_statement(now, [statement for _, _, statement in statements])
    else:
        counts = [count for _, _, statement in statements for count in _in_one_statement(now, [statement])]
    found = {(pair.name, kind): count for (pair, kind, _), count in zip(statements, counts, strict=True)}
    return {pair.name: (found.get((pair.name, "insert"), 0), found.get((pair.name, "update"), 0)) for pair in group}


def _in_one_statement(now: psycopg.Connection[Any], statements: Sequence[sql.Composable | None]) -> list[int]:
    names = [sql.Identifier(f"w{number}") for number in range(len(statements))]
    parts = sql.SQL(", ").join(
        sql.SQL("{} AS ({})").format(name, statement) for name, statement in zip(names, statements, strict=True)
    )
    counts = sql.SQL(", ").join(sql.SQL("(SELECT count(*) FROM {})").format(name) for name in names)
    row = now.execute(sql.SQL("WITH {} SELECT {}").format(parts, counts)).fetchone()
    return [int(count) for count in row or ()]


def _statement(pair: Pair, kind: str) -> sql.Composable | None:
    """The statement that inserts or updates the staged rows; None if there is nothing to set."""
    if kind == "insert":
        return sql.SQL(
            "INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {stage} g "
            "WHERE action = 'insert' RETURNING 1"
        ).format(
            table=pair.table,
            columns=sql.SQL(", ").join(sql.Identifier(column.name) for column in pair.columns),
            values=sql.SQL(", ").join(map(sql.Identifier, places(pair))),
            stage=staged(pair),
        )
    settable = [column.name for column in pair.columns if column.name not in pair.key and column.identity != "a"]
    if not pair.key or not settable:
        return None
    return sql.SQL(
        "UPDATE ONLY {table} AS l SET {values} FROM {stage} s WHERE s.action = 'update' AND {same} RETURNING 1"
    ).format(
        table=pair.table,
        values=sql.SQL(", ").join(
            sql.SQL("{} = s.{}").format(sql.Identifier(name), sql.Identifier(place_of(pair, name))) for name in settable
        ),
        stage=staged(pair),
        same=equal("l", pair.key, "s", [place_of(pair, name) for name in pair.key]),
    )
