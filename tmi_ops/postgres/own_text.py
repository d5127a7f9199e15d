"""A value as text by the output function of its type: `value::text` may run a cast that somebody else has written.

Whoever owns a type may define a cast from it to text (CREATE CAST ... WITH FUNCTION), and a table's row is a type of
its owner's. Output functions are PostgreSQL's, or a superuser's. `concat` and `record_out` call them, a cast does not.
"""

from __future__ import annotations

from psycopg import sql


def text_of(value: str) -> str:
    """The SQL expression for a value's text, NULL for NULL; `value` is a column as SQL spells it."""
    return f"CASE WHEN pg_catalog.num_nulls({value}) = 0 THEN pg_catalog.concat({value}) END"


def composed_text_of(value: sql.Composable) -> sql.Composed:
    """The same of a composed expression."""
    return sql.SQL("CASE WHEN pg_catalog.num_nulls({0}) = 0 THEN pg_catalog.concat({0}) END").format(value)


def is_own_type(exact: str) -> bool:
    """Whether a type, as `format_type` has it, is PostgreSQL's own: the names of all others come with their schema."""
    return "." not in exact


def cast_to_text(value: sql.Composable, exact: str) -> sql.Composed:
    """As `value::text`, whose cast is asked of a type of PostgreSQL's own alone: another's may be its owner's."""
    return sql.SQL("{}::text").format(value) if is_own_type(exact) else composed_text_of(value)
