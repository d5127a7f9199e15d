"""A value as text by the output function of its type, because `value::text` may run a user-defined cast.

The owner of a type may define a cast from it to text (CREATE CAST ... WITH FUNCTION), and a table's row type belongs to
the table's owner. Output functions are PostgreSQL's or a superuser's; `concat` and `record_out` call them.
"""

from __future__ import annotations

from psycopg import sql


def text_of(value: str) -> str:
    """The SQL expression for a value's text, NULL for NULL; `value` is a column in SQL."""
    return f"CASE WHEN pg_catalog.num_nulls({value}) = 0 THEN pg_catalog.concat({value}) END"


def composed_text_of(value: sql.Composable) -> sql.Composed:
    """The same for a composed expression."""
    return sql.SQL("CASE WHEN pg_catalog.num_nulls({0}) = 0 THEN pg_catalog.concat({0}) END").format(value)


def is_own_type(exact: str) -> bool:
    """Whether a type, named as by `format_type`, is PostgreSQL's own: all others have their schema in the name."""
    return "." not in exact


def cast_to_text(value: sql.Composable, exact: str) -> sql.Composed:
    """`value::text` for PostgreSQL's own types; for others, whose cast may be user-defined, their output function."""
    return sql.SQL("{}::text").format(value) if is_own_type(exact) else composed_text_of(value)
