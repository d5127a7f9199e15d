"""Sequences moved on, so that the next row does not get the number of one that came back."""

from __future__ import annotations

from collections.abc import Sequence as Many

from psycopg import sql

from tmi_ops.backup.snapshot import TableName
from tmi_ops.rescue.pairs import Pair
from tmi_ops.rescue.session import Sides
from tmi_ops.rescue.shape import Sequence
from tmi_ops.rescue.staging import place_of


def move_sequences(sides: Sides, pairs: Many[Pair]) -> dict[str, int]:
    """Move each sequence of these tables to the furthest number among the staged rows, never back.

    Returns:
        The new value of each that was moved.
    """
    moved = {}
    for pair in pairs:
        for sequence in (pair.now or pair.then).sequences:
            if any(column.name == sequence.column for column in pair.columns):
                furthest = _furthest(sides, pair, sequence)
                if furthest is not None and _is_behind(sides, sequence, furthest):
                    sides.now.execute("SELECT setval(%s, %s)", [_name(sides, sequence.name), furthest])
                    moved[str(sequence.name)] = furthest
    return moved


def _furthest(sides: Sides, pair: Pair, sequence: Sequence) -> int | None:
    row = sides.now.execute(
        sql.SQL("SELECT {}({})::bigint FROM {}").format(
            sql.SQL("max" if sequence.ascending else "min"),
            sql.Identifier(place_of(pair, sequence.column)),
            pair.temporary("stage"),
        )
    ).fetchone()
    numbers = [row[0]] if row and row[0] is not None else []
    if pair.now is None:
        # It was created again, and goes on where it was, not where it began.
        was = sides.past.execute(
            sql.SQL("SELECT last_value FROM {} WHERE is_called").format(sequence.name.identifier)
        ).fetchone()
        numbers += [was[0]] if was else []
    if not numbers:
        return None
    return int(max(numbers) if sequence.ascending else min(numbers))


def _is_behind(sides: Sides, sequence: Sequence, furthest: int) -> bool:
    row = sides.now.execute(sql.SQL("SELECT last_value, is_called FROM {}").format(sequence.name.identifier)).fetchone()
    if row is None:
        return False
    last, called = row
    if last == furthest:
        return not called
    return bool(last < furthest) if sequence.ascending else bool(last > furthest)


def _name(sides: Sides, name: TableName) -> str:
    return name.identifier.as_string(sides.now)
