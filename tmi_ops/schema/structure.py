"""Matches the models' keys, indexes and constraints with the live ones by structure, regardless of their names.

A CHECK of the form "this column has one of these values" is parsed in any notation, as PostgreSQL rewrites its text:
`role IN ('a', 'b')` becomes `CHECK (((role)::text = ANY ((ARRAY['a'::character varying, 'b'::character
varying])::text[])))`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, MetaData, Table

from tmi_ops.schema.catalog import LiveConstraint, LiveIndex, LiveSchema

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


IndexState = Literal["present", "stricter", "missing", "invalid", "being built", "name taken"]
ConstraintState = Literal["present", "not valid", "differs", "missing", "name taken"]


@dataclass(frozen=True)
class PrimaryKeyMatch:
    """`live`: the existing key, with other columns; None if there is none."""

    table: str
    columns: tuple[str, ...]
    live: LiveIndex | None


@dataclass(frozen=True)
class IndexMatch:
    """A model's index and the live one.

    present: same columns and uniqueness. stricter: same columns, unique although the model's is not.
    invalid: only the leftover of an unfinished build. name taken: another index has its name.
    """

    table: str
    name: str
    columns: tuple[str, ...]
    unique: bool
    state: IndexState
    live: LiveIndex | None = None


@dataclass(frozen=True)
class ForeignKeyMatch:
    """A model's foreign key and the live one. differs: same columns, other actions."""

    table: str
    name: str
    columns: tuple[str, ...]
    referenced: str
    referenced_columns: tuple[str, ...]
    on_delete: str
    state: ConstraintState
    live: LiveConstraint | None = None


@dataclass(frozen=True)
class CheckMatch:
    """A model's list of values and the live one. differs: the column has a list with other values."""

    table: str
    name: str
    column: str
    values: tuple[str, ...]
    state: ConstraintState
    live: LiveConstraint | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def live_values(self) -> frozenset[str]:
        found = read_value_list(self.live.definition) if self.live else None
        return found.values if found else frozenset()


@dataclass(frozen=True)
class Structure:
    """The keys, indexes and constraints of the models' tables that exist, and the live ones that no model has."""

    wrong_primary_keys: tuple[PrimaryKeyMatch, ...] = ()
    indexes: tuple[IndexMatch, ...] = ()
    foreign_keys: tuple[ForeignKeyMatch, ...] = ()
    checks: tuple[CheckMatch, ...] = ()
    extra_indexes: tuple[LiveIndex, ...] = ()
    extra_constraints: tuple[LiveConstraint, ...] = ()


def match_structure(live: LiveSchema, metadata: MetaData) -> Structure:
    tables = [table for table in metadata.sorted_tables if table.name in live.tables]
    index_names = {index.name: index for index in live.indexes}
    indexes = tuple(
        _match_index(table, index, live, index_names)
        for table in tables
        for index in sorted(table.indexes, key=lambda one: str(one.name))
    )
    foreign_keys = tuple(
        _match_foreign_key(table, key, live)
        for table in tables
        for key in sorted(table.foreign_key_constraints, key=lambda one: str(one.name))
    )
    checks = tuple(
        _match_check(table, check, live)
        for table in tables
        for check in sorted(_checks(table), key=lambda one: str(one.name))
    )
    return Structure(
        wrong_primary_keys=tuple(filter(None, (_wrong_primary_key(table, live) for table in tables))),
        indexes=indexes,
        foreign_keys=foreign_keys,
        checks=checks,
        extra_indexes=_extra_indexes(tables, live, indexes),
        extra_constraints=_extra_constraints(tables, live, (*foreign_keys, *checks)),
    )


def columns_of(item: Index | ForeignKeyConstraint) -> tuple[str, ...]:
    return tuple(column.name for column in item.columns)


def _checks(table: Table) -> Iterable[CheckConstraint]:
    return (one for one in table.constraints if isinstance(one, CheckConstraint))


def _wrong_primary_key(table: Table, live: LiveSchema) -> PrimaryKeyMatch | None:
    wanted = tuple(column.name for column in table.primary_key.columns)
    found = next((index for index in live.indexes_of(table.name) if index.primary), None)
    # The order of a key's columns affects only speed, not uniqueness.
    if found is not None and set(found.columns) == set(wanted):
        return None
    return PrimaryKeyMatch(table.name, wanted, found)


def _match_index(table: Table, index: Index, live: LiveSchema, names: dict[str, LiveIndex]) -> IndexMatch:
    name, columns, unique = str(index.name), columns_of(index), bool(index.unique)
    alike = [one for one in live.indexes_of(table.name) if one.plain and one.columns == columns]
    # If several match, prefer the one with the model's name.
    alike.sort(key=lambda one: one.name != name)

    def match(state: IndexState, found: LiveIndex | None = None) -> IndexMatch:
        return IndexMatch(table.name, name, columns, unique, state, found)

    for one in alike:
        if one.valid and one.unique == unique:
            return match("present", one)
    for one in alike:
        if one.valid and one.unique:
            return match("stricter", one)
    holder = names.get(name)
    for one in (*([holder] if holder else []), *alike):
        if not one.valid and one.table == table.name and one.unique == unique and one.columns == columns:
            return match("being built" if one.being_built else "invalid", one)
    return match("name taken", holder) if holder else match("missing")


def _match_foreign_key(table: Table, key: ForeignKeyConstraint, live: LiveSchema) -> ForeignKeyMatch:
    name, columns = str(key.name), columns_of(key)
    referenced = key.referred_table.name
    referenced_columns = tuple(element.column.name for element in key.elements)
    actions = (_action(key.ondelete), _action(key.onupdate))

    def match(state: ConstraintState, found: LiveConstraint | None = None) -> ForeignKeyMatch:
        return ForeignKeyMatch(table.name, name, columns, referenced, referenced_columns, actions[0], state, found)

    wanted_pairs = set(zip(columns, referenced_columns, strict=True))
    alike = [
        one
        for one in live.constraints_of(table.name, "foreign key")
        if one.enforced
        and one.referenced == referenced
        and set(zip(one.columns, one.referenced_columns, strict=True)) == wanted_pairs
    ]
    alike.sort(key=lambda one: ((one.on_delete, one.on_update) != actions, not one.validated, one.name != name))
    if not alike:
        holder = _holder_of_name(table.name, name, live)
        return match("name taken", holder) if holder else match("missing")
    best = alike[0]
    if (best.on_delete, best.on_update) != actions:
        return match("differs", best)
    return match("present" if best.validated else "not valid", best)


def _match_check(table: Table, check: CheckConstraint, live: LiveSchema) -> CheckMatch:
    name = str(check.name)
    column: str = check.info["column"]
    values: tuple[str, ...] = check.info["values"]

    def match(state: ConstraintState, found: LiveConstraint | None = None) -> CheckMatch:
        return CheckMatch(table.name, name, column, values, state, found)

    lists = [
        (one, found.values)
        for one in live.constraints_of(table.name, "check")
        if one.enforced and (found := read_value_list(one.definition)) and found.column == column
    ]
    lists.sort(key=lambda pair: (pair[1] != set(values), not pair[0].validated, pair[0].name != name))
    if not lists:
        holder = _holder_of_name(table.name, name, live)
        return match("name taken", holder) if holder else match("missing")
    best, found_values = lists[0]
    if found_values != set(values):
        return match("differs", best)
    return match("present" if best.validated else "not valid", best)


def _holder_of_name(table: str, name: str, live: LiveSchema) -> LiveConstraint | None:
    return next((one for one in live.constraints if one.table == table and one.name == name), None)


def _extra_indexes(tables: list[Table], live: LiveSchema, matches: Iterable[IndexMatch]) -> tuple[LiveIndex, ...]:
    claimed = {match.live.name for match in matches if match.live and match.state != "name taken"}
    known = {table.name for table in tables}
    return tuple(
        index for index in live.indexes if index.table in known and not index.primary and index.name not in claimed
    )


def _extra_constraints(
    tables: list[Table], live: LiveSchema, matches: Iterable[ForeignKeyMatch | CheckMatch]
) -> tuple[LiveConstraint, ...]:
    claimed = {(match.table, match.live.name) for match in matches if match.live and match.state != "name taken"}
    known = {table.name for table in tables}
    return tuple(one for one in live.constraints if one.table in known and (one.table, one.name) not in claimed)


def _action(action: str | None) -> str:
    return action or "NO ACTION"
