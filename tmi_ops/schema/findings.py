"""Turns the comparison into findings, each with the guide's level and one rule (guide: Schema Validation).

ERROR: TMI fails, or data violates its declaration. WARN: something is not enforced, slower than it should be, or not in
the models. INFO: summaries and different names. DEBUG: what matches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ConfigDict
from sqlalchemy import MetaData

from tmi_ops.checks.finding import Finding, Severity
from tmi_ops.schema.dialect import quote
from tmi_ops.schema.models import Base
from tmi_ops.schema.rules import LEVELS, Level, Rule
from tmi_ops.schema.state import SchemaState
from tmi_ops.schema.structure import CheckMatch, ForeignKeyMatch, IndexMatch

# The guide's levels, as severities.
SEVERITIES: Mapping[Level, Severity] = {
    "ERROR": Severity.CRITICAL,
    "WARN": Severity.WARNING,
    "INFO": Severity.NOTICE,
    "DEBUG": Severity.NOTICE,
}


class Deviation(BaseModel):
    """One finding. `table` and `object` are None if it is about the entire schema or the entire table."""

    model_config = ConfigDict(frozen=True)

    level: Level
    rule: Rule
    table: str | None
    object: str | None
    message: str

    @property
    def where(self) -> str:
        return ".".join(part for part in (self.table, self.object) if part)

    @property
    def finding(self) -> Finding:
        """In the form common to all checks."""
        return Finding(SEVERITIES[self.level], self.where, self.message)


def find_all(state: SchemaState, metadata: MetaData = Base.metadata) -> tuple[Deviation, ...]:
    """Judge a state. Pure; ordered by level, the worst first, then by table."""
    found = [
        *_tables(state, metadata),
        *_columns(state),
        *_primary_keys(state),
        *(one for match in state.structure.indexes for one in _index(state, match)),
        *(one for key in state.structure.foreign_keys for one in _foreign_key(state, key)),
        *(one for check in state.structure.checks for one in _check(state, check)),
        *_extra(state, metadata),
    ]
    found += _summary(state, metadata, found)
    return tuple(sorted(found, key=lambda one: (LEVELS.index(one.level), one.table or "", one.rule, one.object or "")))


def _tables(state: SchemaState, metadata: MetaData) -> Iterator[Deviation]:
    elsewhere = state.live.applications_schema
    if elsewhere != state.live.schema and elsewhere is not None:
        message = (
            f"TMI looks for its tables in the schema {quote(elsewhere)}, the first one in its role's search_path; the "
            f"tables checked here are in {quote(state.live.schema)}. Rename or drop the empty schema, or: "
            f"ALTER ROLE ... SET search_path = {quote(state.live.schema)}"
        )
        yield _deviation("ERROR", Rule.MISSING_TABLE, None, elsewhere, message)
    for name in state.columns.missing_tables:
        yield _deviation("ERROR", Rule.MISSING_TABLE, name, None, "The table is missing.")
    for name, table in state.live.tables.items():
        if not table.readable and name in metadata.tables:
            yield _deviation("ERROR", Rule.UNREADABLE_TABLE, name, None, "The role may not read the table.")


def _columns(state: SchemaState) -> Iterator[Deviation]:
    for table, column in state.columns.missing_columns:
        yield _deviation("ERROR", Rule.MISSING_COLUMN, table, column, "The column is missing.")
    for kind in state.columns.types:
        consequence = {
            "narrower": "values that TMI writes may not fit",
            "wider": "all values that TMI writes fit",
            "other": "TMI may read or write wrong values",
        }[kind.width]
        level: Level = "WARN" if kind.width == "wider" else "ERROR"
        message = f"The type is {kind.live}; the model has {kind.model}: {consequence}."
        yield _deviation(level, Rule.COLUMN_TYPE, kind.table, kind.column, message)
    for null in state.columns.nullability:
        yield _nullability(state, null.table, null.column, live_nullable=null.live_nullable)
    for default in state.columns.defaults:
        if default.model is None:
            level = "DEBUG" if default.live_is_sequence else "WARN"
            message = f"The default is {default.live}; the model has none: TMI always sets a value."
        else:
            level = "WARN"
            message = f"The default is {default.live or 'missing'}; the model has {default.model}."
        yield _deviation(level, Rule.COLUMN_DEFAULT, default.table, default.column, message)


def _nullability(state: SchemaState, table: str, column: str, *, live_nullable: bool) -> Deviation:
    conflict = state.conflict(table, column, "null")
    if not live_nullable:
        message = "The column is NOT NULL; the model allows NULL: rows that TMI writes without it are refused."
    elif conflict:
        message = f"The column must not be NULL, but is NULL in {conflict.describe()}."
    elif not _is_readable(state, table):
        message = "The column allows NULL; the model does not. The role may not read whether a row is NULL."
    else:
        message = "The column allows NULL; the model does not. No row is NULL; `tmi-ops migrate` adds NOT NULL."
    level: Level = "ERROR" if conflict or not live_nullable else "WARN"
    return _deviation(level, Rule.COLUMN_NULLABILITY, table, column, message)


def _primary_keys(state: SchemaState) -> Iterator[Deviation]:
    for key in state.structure.wrong_primary_keys:
        wanted = ", ".join(key.columns)
        found = f"is ({', '.join(key.live.columns)})" if key.live else "is missing"
        conflict = state.conflict(key.table, f"{key.table}_pkey", "duplicate")
        rows = f" Not unique: {conflict.describe()}." if conflict else ""
        message = f"The primary key {found}; the model has ({wanted}).{rows}"
        yield _deviation("ERROR", Rule.MISSING_PRIMARY_KEY, key.table, None, message)


def _index(state: SchemaState, match: IndexMatch) -> Iterator[Deviation]:
    what = f"{'unique ' if match.unique else ''}({', '.join(match.columns)})"
    serious: Level = "ERROR" if match.unique else "WARN"
    consequence = "duplicates are not refused" if match.unique else "queries on these columns scan the entire table"
    live = match.live.name if match.live else ""
    conflict = state.conflict(match.table, match.name, "duplicate")
    rows = (
        f" It cannot be built yet: {conflict.describe()} {conflict.verb('have')} duplicate values." if conflict else ""
    )
    if match.state == "present" and live != match.name:
        yield _deviation("INFO", Rule.OTHER_NAME, match.table, match.name, f"The index has another name: {live}.")
    elif match.state == "missing":
        message = f"The index {what} is missing: {consequence}.{rows}"
        yield _deviation(serious, Rule.MISSING_INDEX, match.table, match.name, message)
    elif match.state == "invalid":
        message = f"The index {live} is invalid, left by an unfinished build: {consequence}.{rows}"
        yield _deviation(serious, Rule.INVALID_INDEX, match.table, match.name, message)
    elif match.state == "being built":
        yield _deviation(serious, Rule.INVALID_INDEX, match.table, match.name, f"The index {live} is being built now.")
    elif match.state == "stricter":
        message = f"The index {live} is unique; the model's is not: rows that TMI writes may be refused."
        yield _deviation("WARN", Rule.INDEX_DIFFERS, match.table, match.name, message)
    elif match.state == "name taken":
        definition = match.live.definition if match.live else ""
        message = f"The index {what} is missing; another index has its name: {definition}."
        yield _deviation(serious, Rule.INDEX_DIFFERS, match.table, match.name, message)


def _foreign_key(state: SchemaState, key: ForeignKeyMatch) -> Iterator[Deviation]:
    what = f"({', '.join(key.columns)}) to {key.referenced}"
    live = key.live.name if key.live else ""
    conflict = state.conflict(key.table, live if key.state == "not valid" else key.name, "reference")
    rows = f" {_sentence(conflict.describe())} already {conflict.verb('do')}." if conflict else ""
    if key.state == "present" and live != key.name:
        yield _deviation("INFO", Rule.OTHER_NAME, key.table, key.name, f"The foreign key has another name: {live}.")
    elif key.state in ("missing", "name taken"):
        taken = f" Another constraint has its name: {key.live.definition}." if key.live else ""
        message = f"The foreign key {what} is missing: rows may reference rows that do not exist.{rows}{taken}"
        yield _deviation("ERROR", Rule.MISSING_FOREIGN_KEY, key.table, key.name, message)
    elif key.state == "differs":
        definition = key.live.definition if key.live else ""
        message = f"The foreign key has other actions: {definition}; the model has ON DELETE {key.on_delete}."
        yield _deviation("WARN", Rule.FOREIGN_KEY_DIFFERS, key.table, key.name, message)
    elif key.state == "not valid" and conflict:
        message = (
            f"{_sentence(conflict.describe())} {conflict.verb('reference')} a row that does not exist. New rows are "
            "checked."
        )
        yield _deviation("ERROR", Rule.FOREIGN_KEY_VIOLATED, key.table, live, message)
    elif key.state == "not valid":
        yield _not_valid(live, key.table, readable=_is_readable(state, key.table, key.referenced))


def _check(state: SchemaState, check: CheckMatch) -> Iterator[Deviation]:
    allowed = ", ".join(check.values)
    live = check.live.name if check.live else ""
    conflict = state.conflict(check.table, live if check.state == "not valid" else check.name, "value")
    if check.state == "present" and live != check.name:
        yield _deviation("INFO", Rule.OTHER_NAME, check.table, check.name, f"The CHECK has another name: {live}.")
    elif check.state in ("missing", "name taken"):
        rows = f" {_sentence(conflict.describe())} {conflict.verb('violate')} it." if conflict else ""
        taken = f" Another constraint has its name: {check.live.definition}." if check.live else ""
        message = f"The CHECK is missing: only TMI itself limits {check.column} to {allowed}.{rows}{taken}"
        yield _deviation("WARN", Rule.MISSING_CHECK, check.table, check.name, message)
    elif check.state == "differs":
        yield _other_values(check, live)
    elif check.state == "not valid" and conflict:
        message = (
            f"{_sentence(conflict.describe())} {conflict.verb('have')} a {check.column} other than {allowed}. "
            "Such rows can be read, but updating one fails until it is corrected."
        )
        yield _deviation("ERROR", Rule.CHECK_VIOLATED, check.table, live, message)
    elif check.state == "not valid":
        yield _not_valid(live, check.table, readable=_is_readable(state, check.table))


def _other_values(check: CheckMatch, live: str) -> Deviation:
    refused = [value for value in check.values if value not in check.live_values]
    more = sorted(check.live_values - set(check.values))
    parts = [
        *([f"refuses {', '.join(refused)}, which TMI may write"] if refused else []),
        *([f"also allows {', '.join(more)}"] if more else []),
    ]
    level: Level = "ERROR" if refused else "WARN"
    return _deviation(
        level, Rule.CHECK_DIFFERS, check.table, live, f"The CHECK of {check.column} {' and '.join(parts)}."
    )


def _is_readable(state: SchemaState, *tables: str) -> bool:
    return all(state.live.tables[table].readable for table in tables if table in state.live.tables)


def _not_valid(name: str, table: str, *, readable: bool) -> Deviation:
    if readable:
        message = "The constraint was never validated, although no row violates it; `tmi-ops migrate` validates it."
    else:
        message = "The constraint was never validated. The role may not read whether a row violates it."
    return _deviation("WARN", Rule.CONSTRAINT_NOT_VALID, table, name, message)


def _extra(state: SchemaState, metadata: MetaData) -> Iterator[Deviation]:
    kept = "Not in TMI's models; migrations do not change it, and backups include it."
    for name in state.live.tables:
        if name not in metadata.tables:
            yield _deviation("WARN", Rule.EXTRA_TABLE, name, None, kept)
    for column in state.columns.extra_columns:
        if column.required:
            message = "Not in TMI's models, and NOT NULL without a default: rows that TMI writes are refused."
            yield _deviation("ERROR", Rule.EXTRA_COLUMN, column.table, column.column, message)
        else:
            yield _deviation("WARN", Rule.EXTRA_COLUMN, column.table, column.column, kept)
    for index in state.structure.extra_indexes:
        if index.valid:
            yield _deviation("WARN", Rule.EXTRA_INDEX, index.table, index.name, f"{index.definition}. {kept}")
        else:
            message = f"Invalid, left by an unfinished build: {index.definition}. DROP INDEX {quote(index.name)}"
            yield _deviation("WARN", Rule.INVALID_INDEX, index.table, index.name, message)
    for one in state.structure.extra_constraints:
        yield _deviation("WARN", Rule.EXTRA_CONSTRAINT, one.table, one.name, f"{one.definition}. {kept}")
    for thing in state.live.objects:
        message = f"A {thing.kind} {thing.detail}. {kept}"
        yield _deviation("WARN", Rule.EXTRA_OBJECT, thing.table, thing.name, message)


def _summary(state: SchemaState, metadata: MetaData, found: list[Deviation]) -> Iterator[Deviation]:
    troubled = {one.table for one in found if one.level in ("ERROR", "WARN")}
    present = [table for table in metadata.sorted_tables if table.name in state.live.tables]
    for table in present:
        if table.name not in troubled:
            message = (
                f"{len(table.columns)} columns, {len(table.indexes)} indexes and "
                f"{len(table.foreign_key_constraints)} foreign keys match the model."
            )
            yield _deviation("DEBUG", Rule.SUMMARY, table.name, None, message)
    counts = {level: sum(one.level == level for one in found) for level in ("ERROR", "WARN")}
    message = (
        f"{len(present)} of {len(metadata.tables)} tables exist; "
        f"{counts['ERROR']} errors and {counts['WARN']} warnings were found."
    )
    yield _deviation("INFO", Rule.SUMMARY, None, None, message)


def _deviation(level: Level, rule: Rule, table: str | None, name: str | None, message: str) -> Deviation:
    return Deviation(level=level, rule=rule, table=table, object=name, message=message)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
