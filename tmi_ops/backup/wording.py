"""PostgreSQL's two wordings of one expression, made one.

`varchar_column IN ('a', 'b')` is kept as `(ARRAY['a'::character varying, ...])::text[]`. When a dump's words are read
back, the cast goes to each element: `ARRAY[('a'::character varying)::text, ...]`. Both mean the same, and the second
is said the same way ever after.
Source: https://www.postgresql.org/docs/current/sql-expressions.html#SQL-SYNTAX-ARRAY-CONSTRUCTORS
"""

from __future__ import annotations

import itertools
import re

_ARRAY = "(ARRAY["
_CAST = re.compile(r"\]\)::([A-Za-z_][\w .\"]*(?:\([\d,]+\))?)\[\]")


def canonical(definition: str) -> str:
    """The definition as it is said after a dump and a restore; any other is returned as it is."""
    position = definition.find(_ARRAY)
    while position >= 0:
        first = position + len(_ARRAY)
        end, commas = _end_of_array(definition, first)
        cast = _CAST.match(definition, end) if end >= 0 else None
        if cast:
            bounds = [first - 1, *commas, end]
            elements = [definition[a + 1 : b].strip() for a, b in itertools.pairwise(bounds)]
            pushed_down = ", ".join(f"({element})::{cast[1]}" for element in elements)
            definition = f"{definition[:position]}ARRAY[{pushed_down}]{definition[cast.end() :]}"
        position = definition.find(_ARRAY, position + 1)
    return definition


def _end_of_array(text: str, start: int) -> tuple[int, list[int]]:
    """Where the array's closing bracket is, and the commas between its elements; (-1, []) where it never closes."""
    depth, quoted = 0, ""
    commas: list[int] = []
    for position in range(start, len(text)):
        character = text[position]
        if quoted:
            quoted = "" if character == quoted else quoted
        elif character in "'\"":
            quoted = character
        elif character in "[(":
            depth += 1
        elif character in "])":
            if depth == 0:
                return (position, commas) if character == "]" else (-1, [])
            depth -= 1
        elif character == "," and depth == 0:
            commas.append(position)
    return -1, []
