"""Values of some columns of rows that are still there: a bad UPDATE undone, all else in the rows stays. Pure.

The table is narrowed to its key and these columns; rows of other tables come back only where a value refers to them.
"""

from __future__ import annotations

from dataclasses import replace

from tmi_ops.errors import RecoveryError
from tmi_ops.rescue.links import Link
from tmi_ops.rescue.pairs import Pair, find_name
from tmi_ops.rescue.selection import SetColumns
from tmi_ops.rescue.session import Sides


def with_values_only(sides: Sides, values: SetColumns) -> Sides:
    """Both sides, seen so that a plan moves nothing but these columns of this table.

    Raises:
        RecoveryError: the table or a column is not on both sides, has no key, or is part of it.
    """
    names = sides.then.parts_of(find_name(sides.then, values.table))
    narrowed = {name: _narrowed(sides.pairs[name], values) for name in names}
    links = tuple(link for link in sides.links if link.child not in narrowed or _brings(link, values))
    return replace(sides, pairs={**sides.pairs, **narrowed}, links=links)


def _brings(link: Link, values: SetColumns) -> bool:
    return link.enforced and set(link.columns) <= set(values.columns)


def _narrowed(pair: Pair, values: SetColumns) -> Pair:
    if pair.now is None:
        raise RecoveryError(
            f"The whole table {pair.name} is gone, not only values of its columns.",
            hint=f"bring the table back: tmi-ops recover rows --table {pair.name}",
        )
    if not pair.key:
        raise RecoveryError(
            f"{pair.name} has no key that both sides share, so nobody can tell which value belongs to which row.",
            hint=f"look at the rows and decide by hand: tmi-ops recover diff --table {pair.name}",
        )
    for column in values.columns:
        _require_movable(pair, column)
    kept = {*pair.key, *values.columns}
    return replace(
        pair,
        columns=tuple(column for column in pair.columns if column.name in kept),
        casts=tuple(name for name in pair.casts if name in kept),
        values_only=True,
    )


def _require_movable(pair: Pair, column: str) -> None:
    if column in {one.name for one in pair.lost_columns}:
        raise RecoveryError(
            f"{pair.name} has no column {column} any more.",
            hint=f"bring the column back, with its values: --column {column} instead of --set-column {column}",
        )
    if column not in pair.then.column_names:
        raise RecoveryError(
            f"{pair.name} had no column {column} then.",
            hint=f"name one of {', '.join(one.name for one in pair.columns)}",
        )
    if column in pair.key:
        raise RecoveryError(
            f"{column} is part of the key of {pair.name}: it tells which row is which.",
            hint="bring the whole rows back: the same command without --set-column",
        )
    if column not in {one.name for one in pair.columns}:
        raise RecoveryError(
            f"The values of {column} of {pair.name} are computed by the server.", hint="name what it is made of"
        )
