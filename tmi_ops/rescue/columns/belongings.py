"""Objects that are restored with columns, and those that are not, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from tmi_ops.backup.snapshot import TableName
from tmi_ops.rescue.columns.definition import WasColumn, literal, quoted
from tmi_ops.rescue.columns.dependents import Dependent, dropped_dependents
from tmi_ops.rescue.definitions import dumped
from tmi_ops.rescue.dropped import is_there, lost_views
from tmi_ops.rescue.pairs import Pair
from tmi_ops.rescue.session import Sides


@dataclass(frozen=True)
class Belongings:
    """What is restored with columns.

    Args:
        before: pg_dump's script for the sequences of their defaults, with owner and grants.
        owned: statements that set these sequences' owning columns and their values.
        statements: to run once the columns are filled.
        after: pg_dump's script for views.
        words: what is restored: `the index public.one`.
        lost: what is not, and why.
    """

    before: str = ""
    owned: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    after: str = ""
    words: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def find_belongings(sides: Sides, pair: Pair, columns: Sequence[WasColumn]) -> Belongings:
    """Everything that was dropped with these columns and does not exist now.

    Raises:
        ProgramError: there is no pg_dump for the past's version, or it failed.
    """
    wanted = frozenset(column.name for column in columns)
    gone = frozenset(column.name for column in pair.lost_columns) - wanted
    dropped = dropped_dependents(sides, pair, wanted)
    coming = [one for one in dropped if one.statement and not _why_not_restored(sides, one, gone)]
    sequences = _lost_sequences(sides, pair, wanted)
    views = _returning_views(sides, [one for one in dropped if one.kind == "view"], gone)
    return Belongings(
        before=dumped(sides, "pre-data", list(sequences)) if sequences else "",
        owned=tuple(
            statement for name, column in sequences.items() for statement in _going_on(sides, pair, name, column)
        ),
        statements=tuple(statement for one in coming for statement in one.statements()),
        after="\n".join(dumped(sides, section, views) for section in ("pre-data", "post-data")) if views else "",
        words=(
            *(f"the sequence {name}" for name in sequences),
            *(one.words() for one in coming),
            *(f"the view {name}" for name in views),
        ),
        lost=tuple(f"{one.words()}: {why}" for one in dropped if (why := _why_not_restored(sides, one, gone))),
    )


def _why_not_restored(sides: Sides, dependent: Dependent, gone: frozenset[str]) -> str:
    """Why it is not restored; empty if it is."""
    if dependent.kind == "computed column":
        return f"it is computed from this column; add --column {dependent.name}"
    if dependent.kind == "other":
        return "tmi_ops cannot recreate objects of this kind"
    if missing := sorted(dependent.needs & gone):
        return f"it also needs {', '.join(missing)}, dropped too; add --column {missing[0]}"
    if dependent.kind != "view" and dependent.table is not None and not is_there(sides, dependent.table):
        return f"{dependent.table} does not exist"
    return ""


def _returning_views(sides: Sides, seeds: Sequence[Dependent], gone: frozenset[str]) -> list[TableName]:
    """Views that read the columns, and views over these; not those over a view that cannot be restored."""

    def lost(chosen: Sequence[Dependent]) -> list[TableName]:
        names = [TableName(str(one.table), one.name) for one in chosen]
        there = [name for name in names if not is_there(sides, name.identifier.as_string(sides.now))]
        return [*there, *lost_views(sides, there)] if there else []

    without = lost([one for one in seeds if one.needs & gone])
    return [view for view in dict.fromkeys(lost(seeds)) if view not in without]


def _lost_sequences(sides: Sides, pair: Pair, wanted: frozenset[str]) -> dict[TableName, str]:
    """Sequences of the columns' defaults that were dropped with them, and the column of each."""
    identities = {column.name for column in pair.then.columns if column.identity}
    return {
        sequence.name: sequence.column
        for sequence in pair.then.sequences
        if sequence.column in wanted - identities and not is_there(sides, sequence.name.identifier.as_string(sides.now))
    }


def _going_on(sides: Sides, pair: Pair, name: TableName, column: str) -> list[str]:
    sequence = name.identifier.as_string(sides.now)
    row = sides.past.execute(sql.SQL("SELECT last_value, is_called FROM {}").format(name.identifier)).fetchone()
    if row is None:
        raise AssertionError(sequence)
    owned = any(one.name == name and one.owned for one in pair.then.sequences)
    table = pair.table.as_string(sides.now)
    return [
        *([f"ALTER SEQUENCE {sequence} OWNED BY {table}.{quoted(column)}"] if owned else []),
        f"SELECT setval({literal(sequence)}, {row[0]}, {str(row[1]).lower()})",
    ]
