"""Counts the rows of each table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

from tmi_ops.schema.catalog import LiveTable
from tmi_ops.schema.dialect import quote

# Counting scans the table: above this heap size (some seconds of reading), PostgreSQL's estimate is used.
EXACT_UP_TO_BYTES = 2 * 1024**3
_TABLES_PER_QUERY = 50


@dataclass(frozen=True)
class RowCounts:
    """Rows by table. `estimated` names the tables too large to count. Unreadable tables are left out."""

    rows: Mapping[str, int]
    estimated: tuple[str, ...]


def count_rows(
    connection: Connection, tables: Iterable[LiveTable], *, exact_up_to: int = EXACT_UP_TO_BYTES
) -> RowCounts:
    """Count exactly if a table's heap has at most `exact_up_to` bytes, or PostgreSQL has no estimate."""
    readable = sorted((table for table in tables if table.readable), key=lambda table: table.name)
    estimates = {
        table.name: table.estimated_rows
        for table in readable
        if table.size > exact_up_to and table.estimated_rows is not None
    }
    exact = [table.name for table in readable if table.name not in estimates]
    counts: dict[str, int] = dict(estimates)
    for start in range(0, len(exact), _TABLES_PER_QUERY):
        names = exact[start : start + _TABLES_PER_QUERY]
        # By position, not by name: a table's name may hold any character.
        query = " UNION ALL ".join(
            f"SELECT {position}, count(*) FROM {quote(name)}"  # noqa: S608
            for position, name in enumerate(names)
        )
        counts |= {names[position]: count for position, count in connection.execute(text(query.replace(":", "\\:")))}
    return RowCounts(dict(sorted(counts.items())), tuple(estimates))
