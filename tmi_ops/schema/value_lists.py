"""Parses a CHECK of the form "this column has one of these values", in any notation.

PostgreSQL rewrites the text of a CHECK: `role IN ('a', 'b')` becomes
`CHECK (((role)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[])))`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<literal>'(?:[^']|'')*')
      | (?P<cast>::\s*(?:character\s+varying|[a-z_]+|"[^"]+")(?:\(\d+\))?(?:\[\])?)
      | (?P<name>"(?:[^"]|"")+"|[A-Za-z_][A-Za-z0-9_$]*)
      | (?P<sign>[=\[\](),])
    )""",
    re.VERBOSE,
)
_KEYWORDS = {"OR", "IS", "NULL", "ANY", "ARRAY", "IN"}


@dataclass(frozen=True)
class ValueList:
    """The column and its allowed values. NULL always passes a CHECK."""

    column: str
    values: frozenset[str]


def read_value_list(definition: str) -> ValueList | None:
    """Parse the text of `pg_get_constraintdef`; None if the CHECK is not a list of values for one column."""
    body = re.sub(r"(\s+(NO INHERIT|NOT VALID|NOT ENFORCED))+$", "", definition.strip())
    tokens = _tokens(re.sub(r"^CHECK\s*", "", body))
    if not tokens:  # not parsed
        return None
    columns: set[str] = set()
    values: set[str] = set()
    for term in _split_at("OR", tokens):
        match term:
            case [str(column), "IS", "NULL"]:
                columns.add(column)
            case [str(column), "=", str(literal)] if literal.startswith("'"):
                columns.add(column)
                values.add(literal)
            case [str(column), "=", "ANY", "ARRAY", "[", *listed, "]"] | [str(column), "IN", *listed]:
                columns.add(column)
                literals = [one for one in listed if one != ","]
                if not literals or not all(one.startswith("'") for one in literals):
                    return None
                values.update(literals)
            case _:
                return None
    column = columns.pop()
    if columns or not values or column.startswith("'"):
        return None
    return ValueList(_unquoted(column), frozenset(value[1:-1].replace("''", "'") for value in values))


def _tokens(body: str) -> list[str]:
    """The tokens without casts and parentheses; empty if something cannot be parsed."""
    tokens: list[str] = []
    position = 0
    body = body.rstrip()
    while position < len(body):
        found = _TOKEN.match(body, position)
        if found is None:
            return []
        position = found.end()
        word = found.group().strip()
        if found["cast"] or word in ("(", ")"):
            continue
        tokens.append(word.upper() if found["name"] and word.upper() in _KEYWORDS else word)
    return tokens


def _split_at(separator: str, tokens: list[str]) -> list[list[str]]:
    terms: list[list[str]] = [[]]
    for one in tokens:
        if one == separator:
            terms.append([])
        else:
            terms[-1].append(one)
    return terms


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
