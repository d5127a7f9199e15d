"""The plan for restoring dropped columns. Planning writes nothing to the live database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from psycopg import sql

from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError, RecoveryError
from tmi_ops.progress import Report
from tmi_ops.rescue.barriers import Barrier
from tmi_ops.rescue.closure import pick
from tmi_ops.rescue.columns.column_barriers import find_column_barriers
from tmi_ops.rescue.columns.definition import (
    WasColumn,
    add_statements,
    comment_statements,
    default_statements,
    grant_statements,
    never_null_statements,
    read_columns,
)
from tmi_ops.rescue.columns.dependents import Dependents, find_dependents
from tmi_ops.rescue.columns.values import (
    Counts,
    Valued,
    count_rows,
    filled,
    stage_values,
    staged_rows,
    values_digest,
)
from tmi_ops.rescue.comparing import as_of_one_moment
from tmi_ops.rescue.pairs import Pair, find_name, find_table
from tmi_ops.rescue.selection import Selection
from tmi_ops.rescue.session import Sides


@dataclass(frozen=True)
class NeverNull:
    """Statements that need a value in every row; if a row has none, they are skipped, and that is reported."""

    column: str
    statements: tuple[str, ...]


@dataclass(frozen=True)
class ColumnsPlan:
    """What will be done.

    Args:
        rows: live rows that get their past values.
        others: live rows that do not.
        gone: chosen past rows that do not exist now; they are not restored with a column.
        add: statements that add the columns, before they are filled.
        complete: statements to run once they are filled.
        never_null: see `NeverNull`.
        dependents: what is restored with them.
        fires: triggers that filling them fires.
        digest: of the statements and every past value; a different plan has another digest.
        barriers: what prevents the plan from being executed.
    """

    past: str
    database: str
    selection: Selection
    table: str
    columns: tuple[WasColumn, ...]
    rows: int
    others: int
    gone: int
    add: tuple[str, ...]
    complete: tuple[str, ...]
    never_null: tuple[NeverNull, ...]
    dependents: Dependents
    fires: tuple[str, ...]
    notes: tuple[str, ...]
    digest: str
    barriers: tuple[Barrier, ...] = ()

    @property
    def names(self) -> str:
        return " and ".join(column.name for column in self.columns)

    @property
    def returning(self) -> tuple[str, ...]:
        """Descriptions of what is restored besides the values."""
        return (*(f"{column.name}: {column.describe()}" for column in self.columns), *self.dependents.texts)

    def others_get(self) -> str:
        """What the columns hold in the other rows: `NULL`, `severity the default 'low', score NULL`."""
        gets = [
            (column.name, f"the default {column.default}" if column.filled_by_default else "NULL")
            for column in filled(self.columns)
        ]
        if len({what for _, what in gets}) == 1:
            return gets[0][1]
        return ", ".join(f"{name} {what}" for name, what in gets)


def plan_columns(sides: Sides, selection: Selection, past: str, report: Report) -> ColumnsPlan:
    """Read the columns' definitions, what was dropped with them, and which rows can get their values.

    Args:
        past: a description of the past.

    Raises:
        RecoveryError: the table was dropped or has no key, a column never existed or still does, or no row matches.
        DatabaseError: the role is not allowed to alter the table.
    """
    pair = _table(sides, selection)
    _require_owner(sides, pair)
    columns = read_columns(sides, pair, [one.column for one in selection.columns])
    table = pair.table.as_string(sides.now)
    with report.phase("find dependent objects", total=1, unit="steps") as phase:
        dependents = find_dependents(sides, pair, columns)
        phase.advance(1)
    if selection.rows:
        _pick(sides, pair, selection)
    roles = frozenset(name for (name,) in sides.now.execute("SELECT rolname FROM pg_roles").fetchall())
    granted = [grant_statements(table, column, roles) for column in columns]
    dependents = replace(dependents, lost=(*dependents.lost, *(words for _, lost in granted for words in lost)))
    add = [statement for column in columns for statement in add_statements(table, column)]
    complete = [
        *dependents.owned,
        *(statement for column in columns for statement in default_statements(table, column)),
        *dependents.statements,
        *(statement for column in columns for statement in comment_statements(table, column)),
        *(statement for statements, _ in granted for statement in statements),
    ]
    never_null = [
        NeverNull(column.name, tuple(statements))
        for column in columns
        if (statements := never_null_statements(sides, pair, column))
    ]
    with report.phase("compare with now", total=1, unit="tables") as phase:
        with _staged(sides, pair, columns, selection):
            counts = count_rows(sides, pair)
            barriers = find_column_barriers(sides, pair, columns)
        phase.advance(1)
    return ColumnsPlan(
        past=past,
        database=sides.now.info.dbname,
        selection=selection,
        table=str(pair.name),
        columns=columns,
        rows=counts.rows,
        others=counts.living - counts.rows,
        gone=counts.then - counts.rows,
        add=tuple(add),
        complete=tuple(complete),
        never_null=tuple(never_null),
        dependents=dependents,
        fires=tuple(trigger.name for trigger in pair.now.triggers if trigger.on_update) if pair.now else (),
        notes=tuple(_notes(pair, columns, counts, dependents)),
        digest=_digest(sides, pair, columns, selection, [*add, *complete, dependents.before, dependents.after]),
        barriers=barriers,
    )


def planned_values(sides: Sides, plan: ColumnsPlan, limit: int | None) -> Iterator[Valued]:
    """The live rows that will get values, with these values; at most `limit`."""
    pair = find_table(sides.pairs, sides.then, plan.table)
    with _staged(sides, pair, plan.columns, plan.selection):
        yield from staged_rows(sides, pair, plan.columns, limit)


@contextmanager
def _staged(sides: Sides, pair: Pair, columns: Sequence[WasColumn], selection: Selection) -> Iterator[None]:
    with as_of_one_moment(sides.now):
        stage_values(sides, pair, columns, picked=bool(selection.rows))
        yield


def _table(sides: Sides, selection: Selection) -> Pair:
    _require_whole(sides, selection.columns[0].table)
    pair = find_table(sides.pairs, sides.then, selection.columns[0].table)
    for wanted in selection.columns:
        if wanted.column not in {column.name for column in pair.lost_columns}:
            raise _cannot(pair, wanted.column)
    if not pair.key or set(pair.key) & set(pair.casts):
        raise RecoveryError(
            f"{pair.name} has no key that exists both now and then, so values cannot be matched to rows.",
            hint=f"compare the rows and correct them by hand: `tmi-ops recover diff --table {pair.name}`",
            code=Code.CANNOT_RESTORE_ROWS,
        )
    return pair


def _require_whole(sides: Sides, table: str) -> None:
    """Partitions have the columns of their table, and PostgreSQL does not allow adding one to a partition."""
    name = find_name(sides.then, table)
    wholes = [whole for whole, parts in sides.then.partitions.items() if name == whole or name in parts]
    if wholes:
        whole = max(wholes, key=lambda one: len(sides.then.partitions[one]))
        raise RecoveryError(
            f"{whole} is partitioned; --column cannot restore columns of partitioned tables.",
            hint=f"add the column by hand (ALTER TABLE {whole} ADD COLUMN ...), then restore its values: "
            f"`tmi-ops recover rows --table {whole} --set-column NAME --dry-run`",
            code=Code.CANNOT_RESTORE_ROWS,
        )


def _cannot(pair: Pair, column: str) -> RecoveryError:
    if pair.now is None:
        return RecoveryError(
            f"The whole table {pair.name} was dropped, not only its column {column}.",
            hint=f"restore the table: `tmi-ops recover rows --table {pair.name}`",
            code=Code.CANNOT_RESTORE_ROWS,
        )
    if column not in pair.then.column_names:
        lost = ", ".join(one.name for one in pair.lost_columns)
        return RecoveryError(
            f"{pair.name} had no column {column} at that moment.",
            hint=f"name one of the columns dropped since: {lost}"
            if lost
            else "find an earlier moment with `tmi-ops recover find`",
            code=Code.NOT_IN_PAST,
        )
    return RecoveryError(
        f"{pair.name} has a column {column}: it was not dropped, or is already restored.",
        hint=f"restore its values: `tmi-ops recover rows --table {pair.name} --set-column {column}`",
        code=Code.CANNOT_RESTORE_ROWS,
    )


def _require_owner(sides: Sides, pair: Pair) -> None:
    row = sides.now.execute(
        "SELECT pg_has_role(relowner, 'USAGE'), current_user, relowner::regrole::text FROM pg_class "
        "WHERE oid = %s::regclass",
        [pair.table.as_string(sides.now)],
    ).fetchone()
    if row is not None and not row[0]:
        raise DatabaseError(
            f"The role {row[1]} is not allowed to alter {pair.name}, which belongs to {row[2]}.",
            hint=f"run this as {row[2]}",
        )


def _pick(sides: Sides, pair: Pair, selection: Selection) -> None:
    """Pick the selected rows, if they are of this table; else the rows that depend on them."""
    own = any(find_table(sides.pairs, sides.then, rows.table) == pair for rows in selection.rows)
    chosen = replace(selection, with_children=selection.with_children and not own)
    picked = pick(sides, chosen)
    if pair not in picked.tables or not _is_chosen(sides, pair):
        raise RecoveryError(
            f"No rows of {pair.name} belonged to {'; '.join(rows.describe() for rows in selection.rows)}.",
            hint="select other rows, or none, so that all rows get their values",
            code=Code.NOT_IN_PAST,
        )


def _is_chosen(sides: Sides, pair: Pair) -> bool:
    """Whether any of the picked rows was chosen, not only referenced."""
    chosen = sql.SQL("SELECT FROM {} WHERE reason <> 'parent' LIMIT 1").format(pair.temporary("picked"))
    return sides.past.execute(chosen).fetchone() is not None


def _notes(pair: Pair, columns: Sequence[WasColumn], counts: Counts, dependents: Dependents) -> Iterator[str]:
    for lost in dependents.lost:
        yield f"Not restored: {lost}."
    without = counts.living - counts.rows
    nullable = [column.name for column in columns if column.not_null and not column.filled_by_default]
    if without and nullable:
        yield f"{' and '.join(nullable)} will no longer be NOT NULL, because {without:,} rows have no value."
    if counts.then > counts.rows:
        yield (
            f"{counts.then - counts.rows:,} of the past rows were deleted since; restore them afterwards, with their "
            f"values: `tmi-ops recover rows --table {pair.name}`."
        )
    yield f"The order of the columns of {pair.name} changes: restored columns are the last ones."


def _digest(
    sides: Sides, pair: Pair, columns: Sequence[WasColumn], selection: Selection, statements: Sequence[str]
) -> str:
    whole = hashlib.sha256("\n".join(statements).encode())
    whole.update(values_digest(sides, pair, columns, picked=bool(selection.rows)).encode())
    return whole.hexdigest()
