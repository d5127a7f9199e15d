"""What a comparison means: findings, each at the guide's level and under one rule (guide: Schema Validation).

ERROR: TMI fails or data is not what it is declared to be. WARN: something is not enforced, slower than it should be,
or more than the models know. INFO: summaries and other names. DEBUG: what matches.
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

# The guide's levels in the words of all checks.
SEVERITIES: Mapping[Level, Severity] = {
    "ERROR": Severity.CRITICAL,
    "WARN": Severity.WARNING,
    "INFO": Severity.NOTICE,
    "DEBUG": Severity.NOTICE,
}


class Deviation(BaseModel):
    """One observation. `table` and `object` are None where it concerns the whole schema or the whole table."""

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
        """As every check says it."""
        return Finding(SEVERITIES[self.level], self.where, self.message)


def find_all(state: SchemaState, metadata: MetaData = Base.metadata) -> tuple[Deviation, ...]:
    """Judge a state. Pure; the worst comes first, then by table."""
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
            f"TMI would look for its tables in the schema {quote(elsewhere)}, which the search_path of its role names "
            f"first; those that are checked here are in {quote(state.live.schema)}. Rename or drop the empty one, or: "
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
            "narrower": "what TMI writes may not fit",
            "wider": "everything TMI writes fits",
            "other": "TMI may write or read it wrongly",
        }[kind.width]
        level: Level = "WARN" if kind.width == "wider" else "ERROR"
        message = f"The type is {kind.live}, the model says {kind.model}: {consequence}."
        yield _deviation(level, Rule.COLUMN_TYPE, kind.table, kind.column, message)
    for null in state.columns.nullability:
        yield _nullability(state, null.table, null.column, live_nullable=null.live_nullable)
    for default in state.columns.defaults:
        if default.model is None:
            level = "DEBUG" if default.live_is_sequence else "WARN"
            message = f"The column has a default, {default.live}, the model none: TMI gives a value anyway."
        else:
            level = "WARN"
            message = f"The default is {default.live or 'missing'}, the model says {default.model}."
        yield _deviation(level, Rule.COLUMN_DEFAULT, default.table, default.column, message)


def _nullability(state: SchemaState, table: str, column: str, *, live_nullable: bool) -> Deviation:
    conflict = state.conflict(table, column, "null")
    if not live_nullable:
        message = "The column is NOT NULL, the model allows NULL: rows TMI writes without it are refused."
    elif conflict:
        message = f"The column must not be NULL, but it is in {conflict.describe()}."
    elif not _is_readable(state, table):
        message = "The column allows NULL, the model does not. Whether a row holds NULL is unknown: it may not be read."
    else:
        message = "The column allows NULL, the model does not. No row holds NULL; `tmi-ops migrate` adds NOT NULL."
    level: Level = "ERROR" if conflict or not live_nullable else "WARN"
    return _deviation(level, Rule.COLUMN_NULLABILITY, table, column, message)


def _primary_keys(state: SchemaState) -> Iterator[Deviation]:
    for key in state.structure.wrong_primary_keys:
        wanted = ", ".join(key.columns)
        found = f"is ({', '.join(key.live.columns)})" if key.live else "is missing"
        conflict = state.conflict(key.table, f"{key.table}_pkey", "duplicate")
        rows = f" Not unique: {conflict.describe()}." if conflict else ""
        message = f"The primary key {found}, the model says ({wanted}).{rows}"
        yield _deviation("ERROR", Rule.MISSING_PRIMARY_KEY, key.table, None, message)


def _index(state: SchemaState, match: IndexMatch) -> Iterator[Deviation]:
    what = f"{'unique ' if match.unique else ''}({', '.join(match.columns)})"
    serious: Level = "ERROR" if match.unique else "WARN"
    consequence = "duplicates are not refused" if match.unique else "queries by it read the whole table"
    live = match.live.name if match.live else ""
    conflict = state.conflict(match.table, match.name, "duplicate")
    rows = f" It cannot be built yet: {conflict.describe()} share their values." if conflict else ""
    if match.state == "present" and live != match.name:
        yield _deviation("INFO", Rule.OTHER_NAME, match.table, match.name, f"The index is there, called {live}.")
    elif match.state == "missing":
        message = f"The index {what} is missing: {consequence}.{rows}"
        yield _deviation(serious, Rule.MISSING_INDEX, match.table, match.name, message)
    elif match.state == "invalid":
        message = f"{live} is invalid, left by a build that did not finish: {consequence}.{rows}"
        yield _deviation(serious, Rule.INVALID_INDEX, match.table, match.name, message)
    elif match.state == "being built":
        yield _deviation(serious, Rule.INVALID_INDEX, match.table, match.name, f"{live} is being built now.")
    elif match.state == "stricter":
        message = f"{live} is unique, the model's index is not: rows TMI writes may be refused."
        yield _deviation("WARN", Rule.INDEX_DIFFERS, match.table, match.name, message)
    elif match.state == "name taken":
        definition = match.live.definition if match.live else ""
        message = f"The index {what} is missing, and its name is taken by: {definition}."
        yield _deviation(serious, Rule.INDEX_DIFFERS, match.table, match.name, message)


def _foreign_key(state: SchemaState, key: ForeignKeyMatch) -> Iterator[Deviation]:
    what = f"({', '.join(key.columns)}) to {key.referenced}"
    live = key.live.name if key.live else ""
    conflict = state.conflict(key.table, live if key.state == "not valid" else key.name, "reference")
    rows = f" {_sentence(conflict.describe())} already do." if conflict else ""
    if key.state == "present" and live != key.name:
        yield _deviation("INFO", Rule.OTHER_NAME, key.table, key.name, f"The foreign key is there, called {live}.")
    elif key.state in ("missing", "name taken"):
        taken = f" Its name is taken by: {key.live.definition}." if key.live else ""
        message = f"The foreign key {what} is missing: rows may refer to nothing.{rows}{taken}"
        yield _deviation("ERROR", Rule.MISSING_FOREIGN_KEY, key.table, key.name, message)
    elif key.state == "differs":
        definition = key.live.definition if key.live else ""
        message = f"The foreign key acts otherwise: {definition}; the model says ON DELETE {key.on_delete}."
        yield _deviation("WARN", Rule.FOREIGN_KEY_DIFFERS, key.table, key.name, message)
    elif key.state == "not valid" and conflict:
        message = f"{_sentence(conflict.describe())} refer to nothing. New rows are checked."
        yield _deviation("ERROR", Rule.FOREIGN_KEY_VIOLATED, key.table, live, message)
    elif key.state == "not valid":
        yield _not_valid(live, key.table, readable=_is_readable(state, key.table, key.referenced))


def _check(state: SchemaState, check: CheckMatch) -> Iterator[Deviation]:
    allowed = ", ".join(check.values)
    live = check.live.name if check.live else ""
    conflict = state.conflict(check.table, live if check.state == "not valid" else check.name, "value")
    if check.state == "present" and live != check.name:
        yield _deviation("INFO", Rule.OTHER_NAME, check.table, check.name, f"The CHECK is there, called {live}.")
    elif check.state in ("missing", "name taken"):
        rows = f" {_sentence(conflict.describe())} hold others." if conflict else ""
        taken = f" Its name is taken by: {check.live.definition}." if check.live else ""
        message = f"The CHECK is missing: only TMI itself keeps {check.column} to {allowed}.{rows}{taken}"
        yield _deviation("WARN", Rule.MISSING_CHECK, check.table, check.name, message)
    elif check.state == "differs":
        yield _other_values(check, live)
    elif check.state == "not valid" and conflict:
        message = (
            f"{_sentence(conflict.describe())} hold a {check.column} other than {allowed}. "
            "They can be read; changing one fails until it is corrected."
        )
        yield _deviation("ERROR", Rule.CHECK_VIOLATED, check.table, live, message)
    elif check.state == "not valid":
        yield _not_valid(live, check.table, readable=_is_readable(state, check.table))


def _other_values(check: CheckMatch, live: str) -> Deviation:
    refused = [value for value in check.values if value not in check.live_values]
    more = sorted(check.live_values - set(check.values))
    parts = [
        *([f"refuses {', '.join(refused)}, which TMI may write"] if refused else []),
        *([f"allows {', '.join(more)} as well"] if more else []),
    ]
    level: Level = "ERROR" if refused else "WARN"
    return _deviation(
        level, Rule.CHECK_DIFFERS, check.table, live, f"The CHECK of {check.column} {' and '.join(parts)}."
    )


def _is_readable(state: SchemaState, *tables: str) -> bool:
    return all(state.live.tables[table].readable for table in tables if table in state.live.tables)


def _not_valid(name: str, table: str, *, readable: bool) -> Deviation:
    if readable:
        message = "The constraint was never validated, though every row meets it; `tmi-ops migrate` validates it."
    else:
        message = "The constraint was never validated. Whether every row meets it is unknown: they may not be read."
    return _deviation("WARN", Rule.CONSTRAINT_NOT_VALID, table, name, message)


def _extra(state: SchemaState, metadata: MetaData) -> Iterator[Deviation]:
    kept = "Not in TMI's models; it is left alone, and backups hold it."
    for name in state.live.tables:
        if name not in metadata.tables:
            yield _deviation("WARN", Rule.EXTRA_TABLE, name, None, kept)
    for column in state.columns.extra_columns:
        if column.required:
            message = "Not in TMI's models, and NOT NULL without a default: rows TMI writes are refused."
            yield _deviation("ERROR", Rule.EXTRA_COLUMN, column.table, column.column, message)
        else:
            yield _deviation("WARN", Rule.EXTRA_COLUMN, column.table, column.column, kept)
    for index in state.structure.extra_indexes:
        if index.valid:
            yield _deviation("WARN", Rule.EXTRA_INDEX, index.table, index.name, f"{index.definition}. {kept}")
        else:
            message = (
                f"Invalid, left by a build that did not finish: {index.definition}. DROP INDEX {quote(index.name)}"
            )
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
                f"{len(table.foreign_key_constraints)} foreign keys are as the model says."
            )
            yield _deviation("DEBUG", Rule.SUMMARY, table.name, None, message)
    counts = {level: sum(one.level == level for one in found) for level in ("ERROR", "WARN")}
    message = (
        f"{len(present)} of {len(metadata.tables)} tables are there; "
        f"{counts['ERROR']} errors and {counts['WARN']} warnings were found."
    )
    yield _deviation("INFO", Rule.SUMMARY, None, None, message)


def _deviation(level: Level, rule: Rule, table: str | None, name: str | None, message: str) -> Deviation:
    return Deviation(level=level, rule=rule, table=table, object=name, message=message)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
