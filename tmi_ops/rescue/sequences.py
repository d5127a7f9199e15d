"""Advances sequences, so that the next row does not get the number of a restored one.

Numbers that a sequence did not generate do not count: a sentinel such as 2147483647 would exhaust it. So it advances to
the last number that it had generated in the past, and past restored numbers that directly follow its current one.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.backup.snapshot import TableName
from tmi_ops.rescue.pairs import Pair
from tmi_ops.rescue.session import Sides
from tmi_ops.rescue.shape import Sequence
from tmi_ops.rescue.staging import place_of, staged


def move_sequences(sides: Sides, pairs: Many[Pair]) -> dict[str, int]:
    """Advance each sequence of these tables past its own numbers in the staged rows, never back.

    Returns:
        The new value of each sequence that was advanced.
    """
    moved = {}
    for pair in pairs:
        for sequence in (pair.now or pair.then).sequences:
            if any(column.name == sequence.column for column in pair.columns):
                reached = _reached(sides, pair, sequence)
                if reached is not None:
                    sides.now.execute("SELECT setval(%s, %s)", [_name(sides, sequence.name), reached])
                    moved[str(sequence.name)] = reached
    return moved


def _reached(sides: Sides, pair: Pair, sequence: Sequence) -> int | None:
    """The sequence's new value; None if it need not change."""
    given, stands = _given_then(sides, sequence), _stands(sides.now, sequence)
    if stands is None:
        return None
    furthest = stands.next - stands.step
    if given is not None and pair.now is None:
        furthest = _further(stands, furthest, given)  # recreated, so it continues where it was
    if given is not None and sequence.counts:
        furthest = _further(stands, furthest, _furthest_staged(sides, pair, sequence, given))
    elif given is not None and _inserts(sides, pair):
        furthest = _further(stands, furthest, given)
    if sequence.counts:
        furthest = _past_what_lies_next(sides, pair, sequence, stands, furthest)
    return furthest if furthest != stands.next - stands.step else None


@dataclass(frozen=True)
class _Stands:
    """The sequence's next number, its step, and its last possible number."""

    next: int
    step: int
    last: int


def _stands(now: psycopg.Connection[Any], sequence: Sequence) -> _Stands | None:
    row = now.execute(
        sql.SQL(
            "SELECT CASE WHEN s.is_called THEN s.last_value + q.seqincrement ELSE s.last_value END, q.seqincrement, "
            "CASE WHEN q.seqincrement > 0 THEN q.seqmax ELSE q.seqmin END FROM {} s, pg_sequence q "
            "WHERE q.seqrelid = %s::regclass"
        ).format(sequence.name.identifier),
        [sequence.name.identifier.as_string(now)],
    ).fetchone()
    return _Stands(*map(int, row)) if row else None


def _given_then(sides: Sides, sequence: Sequence) -> int | None:
    """The last number that it had generated; None if there was none, or it did not exist."""
    found = sides.past.execute("SELECT to_regclass(%s)", [sequence.name.identifier.as_string(sides.past)]).fetchone()
    if found is None or found[0] is None:
        return None
    row = sides.past.execute(
        sql.SQL("SELECT last_value FROM {} WHERE is_called").format(sequence.name.identifier)
    ).fetchone()
    return int(row[0]) if row else None


def _further(stands: _Stands, one: int, other: int | None) -> int:
    """The further of two numbers, if the sequence can generate it."""
    if other is None or (other > stands.last if stands.step > 0 else other < stands.last):
        return one
    return max(one, other) if stands.step > 0 else min(one, other)


def _furthest_staged(sides: Sides, pair: Pair, sequence: Sequence, given: int) -> int | None:
    """The furthest number in the staged rows that the sequence had generated."""
    row = sides.now.execute(
        sql.SQL("SELECT trunc({furthest}({number}))::bigint FROM {staged} g WHERE {number} {up_to} {given}").format(
            furthest=sql.SQL("max" if sequence.ascending else "min"),
            number=sql.Identifier(place_of(pair, sequence.column)),
            staged=staged(pair),
            up_to=sql.SQL("<=" if sequence.ascending else ">="),
            given=sql.Literal(given),
        )
    ).fetchone()
    return int(row[0]) if row and row[0] is not None else None


def _past_what_lies_next(sides: Sides, pair: Pair, sequence: Sequence, stands: _Stands, furthest: int) -> int:
    """The sequence's new value, past staged numbers that it would generate next without a gap."""
    row = sides.now.execute(
        sql.SQL(
            "SELECT count(*) FROM (SELECT g.number, row_number() OVER (ORDER BY g.number * {sign}) AS nth FROM "
            "(SELECT DISTINCT {number}::numeric AS number FROM {staged} g WHERE {number} {beyond} {from_}) g) n "
            "WHERE n.number = {from_} + n.nth * {step}"
        ).format(
            number=sql.Identifier(place_of(pair, sequence.column)),
            staged=staged(pair),
            beyond=sql.SQL(">" if stands.step > 0 else "<"),
            from_=sql.Literal(furthest),
            sign=sql.Literal(1 if stands.step > 0 else -1),
            step=sql.Literal(stands.step),
        )
    ).fetchone()
    reached = furthest + stands.step * int(row[0] if row else 0)
    return reached if _further(stands, furthest, reached) == reached else furthest


def _inserts(sides: Sides, pair: Pair) -> bool:
    query = sql.SQL("SELECT FROM {} WHERE action = 'insert' LIMIT 1").format(pair.temporary("stage"))
    return sides.now.execute(query).fetchone() is not None


def _name(sides: Sides, name: TableName) -> str:
    return name.identifier.as_string(sides.now)
