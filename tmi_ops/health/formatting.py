"""Formats readings for people, and queries without their literals."""

from __future__ import annotations

import re

_SHOWN_OF_A_QUERY = 100

# Strings (also with backslash escapes and in dollar quotes), comments and numbers: anything that may hold a secret. A
# literal without an end was cut off by track_activity_query_size, so it reaches to the end.
_LITERALS = re.compile(
    r"""
      (?<!\w)[eE]'(?:[^'\\]|\\.|'')*(?:'|\\?\Z)
    | '(?:[^']|'')*(?:'|\Z)
    | \$(?P<tag>(?:[A-Za-z_]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z)
    | --[^\n]*
    | /\*.*?(?:\*/|\Z)
    | (?<![\w$"])\d[\w.]*
    """,
    re.VERBOSE | re.DOTALL,
)


def format_count(count: float, noun: str, plural: str | None = None) -> str:
    """2, 'index', 'indexes' -> '2 indexes'."""
    return f"{count:,.0f} {noun if count == 1 else plural or noun + 's'}"


def format_list(names: list[str] | tuple[str, ...], shown: int = 3) -> str:
    """The first few names, and the number of others."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def query_shape(query: str | None) -> str:
    """A query on one line without its literals, safe to show, store and send."""
    shape = " ".join(_LITERALS.sub("?", query or "").split())
    return shape if len(shape) <= _SHOWN_OF_A_QUERY else shape[: _SHOWN_OF_A_QUERY - 1] + "…"


def literal(text: str) -> str:
    """Text as an SQL string."""
    return "'" + text.replace("'", "''") + "'"
