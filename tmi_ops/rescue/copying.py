"""Copies rows from one server straight into a table of the other."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

# A server sends one row at a time; forwarding small rows one by one is slow.
COPIED_AT_ONCE = 1 << 16


def copy_across(
    source: psycopg.Connection[Any], query: sql.Composable, target: psycopg.Connection[Any], into: sql.Composable
) -> int:
    """Stream a query's rows into a table of the other server. Returns the number of rows."""
    out = sql.SQL("COPY ({}) TO STDOUT").format(query)
    with source.cursor() as reading, target.cursor() as writing:
        with reading.copy(out) as rows, writing.copy(sql.SQL("COPY {} FROM STDIN").format(into)) as copy:
            gathered = bytearray()
            for chunk in rows:
                gathered += chunk
                if len(gathered) >= COPIED_AT_ONCE:
                    copy.write(gathered)
                    gathered = bytearray()
            copy.write(gathered)
        return writing.rowcount
