"""The content of a row as one text, different for different rows, from which its digest is made. SQL, pure.

1. The length of each text column; nothing for NULL.
2. Numbers, times, JSON and the like, each with a terminator that none of them contains; again nothing for NULL.
3. Columns of all other types as a row, in which PostgreSQL quotes what is ambiguous.
4. The texts themselves, unquoted: their lengths are known, and quoting would take most of the time.
Only PostgreSQL's output functions are used, never casts, which may be a table owner's own functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from psycopg import sql

# Never empty as text, and without the control character that ends them.
_PLAIN = frozenset(
    {
        "bigint",
        "boolean",
        "bytea",
        "date",
        "double precision",
        "integer",
        "interval",
        "json",
        "jsonb",
        "numeric",
        "oid",
        "real",
        "smallint",
        "time with time zone",
        "time without time zone",
        "timestamp with time zone",
        "timestamp without time zone",
        "uuid",
    }
)
_TEXTS = frozenset({"text", "character varying"})
_END = sql.Literal("\x01")
# A function takes 100 arguments (source: PostgreSQL, Limits).
_ARGUMENTS = 100


def written_out(alias: str, types: Mapping[str, str], *, measurable: bool) -> sql.Composed:
    """The text of the row `alias`.

    Args:
        types: the columns' types on the live side, as `format_type` writes them; a domain's base type.
        measurable: a text has the same number of bytes on both sides, because they have the same encoding.
    """
    kinds = {name: re.sub(r"\([\d, ]+\)", "", kind) for name, kind in types.items()}
    texts = [sql.Identifier(alias, name) for name, kind in kinds.items() if measurable and kind in _TEXTS]
    plain = [sql.Identifier(alias, name) for name, kind in kinds.items() if kind in _PLAIN]
    others = [
        sql.Identifier(alias, name)
        for name, kind in kinds.items()
        if kind not in _PLAIN and not (measurable and kind in _TEXTS)
    ]
    parts: list[sql.Composable] = [
        *_each_with(sql.Literal(","), [sql.SQL("octet_length({})").format(text) for text in texts]),
        sql.Literal("|"),
        *_each_with(_END, plain),
        *([sql.SQL("ROW({})::text").format(sql.SQL(", ").join(others))] if others else []),
        *texts,
    ]
    return _concatenated(parts)


def _each_with(end: sql.Composable, parts: Sequence[sql.Composable]) -> Iterator[sql.Composable]:
    for part in parts:
        yield part
        yield end


def _concatenated(parts: Sequence[sql.Composable]) -> sql.Composed:
    while len(parts) > _ARGUMENTS:
        parts = [_concatenated(parts[begin : begin + _ARGUMENTS]) for begin in range(0, len(parts), _ARGUMENTS)]
    return sql.SQL("concat({})").format(sql.SQL(", ").join(parts))
