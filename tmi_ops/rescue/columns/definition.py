"""The definition of a column in the past's catalogue, and the statements that restore it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.postgres.versions import COLUMN_COMPRESSION, since
from tmi_ops.rescue.pairs import Pair
from tmi_ops.rescue.session import Sides

_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod),
       CASE WHEN a.attcollation <> t.typcollation
            THEN (SELECT quote_ident(n.nspname) || '.' || quote_ident(l.collname)
                  FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = a.attcollation) END,
       a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
       CASE a.attidentity WHEN 'a' THEN 'ALWAYS' WHEN 'd' THEN 'BY DEFAULT' END,
       CASE a.attgenerated WHEN 's' THEN 'STORED' WHEN 'v' THEN 'VIRTUAL' END,
       col_description(a.attrelid, a.attnum),
       CASE WHEN a.attstattarget > 0 THEN 'SET STATISTICS ' || a.attstattarget END,
       CASE WHEN a.attstorage <> t.typstorage THEN 'SET STORAGE ' ||
            CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END
       END,
       CASE WHEN a.attoptions IS NOT NULL THEN 'SET (' || array_to_string(a.attoptions, ', ') || ')' END,
       {compression}
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = %(table)s::regclass AND a.attname = ANY (%(columns)s)
ORDER BY a.attnum"""
_COMPRESSION = "CASE a.attcompression WHEN 'p' THEN 'SET COMPRESSION pglz' WHEN 'l' THEN 'SET COMPRESSION lz4' END"
_GRANTS = """
SELECT a.attname, r.rolname, string_agg(x.privilege_type, ', ' ORDER BY x.privilege_type), x.is_grantable
FROM pg_attribute a CROSS JOIN LATERAL aclexplode(a.attacl) x LEFT JOIN pg_roles r ON r.oid = x.grantee
WHERE a.attrelid = %(table)s::regclass AND a.attname = ANY (%(columns)s)
GROUP BY 1, 2, 4, a.attnum ORDER BY a.attnum, 2 NULLS FIRST"""
_IDENTITY = """
SELECT format('(START %%s INCREMENT %%s MINVALUE %%s MAXVALUE %%s CACHE %%s %%s)', seqstart, seqincrement, seqmin,
              seqmax, seqcache, CASE WHEN seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END)
FROM pg_sequence WHERE seqrelid = pg_get_serial_sequence(%s, %s)::regclass"""


@dataclass(frozen=True)
class Grant:
    """Rights on one column; `role` None: PUBLIC."""

    role: str | None
    privileges: str
    grantable: bool


@dataclass(frozen=True)
class WasColumn:
    """A column as it was.

    Args:
        type: with its collation, if that is not the type's default.
        computed: `GENERATED ALWAYS AS (...) STORED`; such a column is not filled.
        identity: ALWAYS or BY DEFAULT.
        settings: clauses of ALTER COLUMN: storage, compression, statistics.
    """

    name: str
    type: str
    not_null: bool = False
    default: str | None = None
    computed: str | None = None
    identity: str | None = None
    comment: str | None = None
    settings: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()

    @property
    def filled_by_default(self) -> bool:
        """Whether rows without a past value get the default."""
        return self.not_null and self.default is not None

    def describe(self) -> str:
        """`numeric(4,2), default 0, NOT NULL, with its comment`"""
        parts = [
            self.type,
            self.computed and "computed",
            self.identity and "identity",
            self.default and f"default {self.default}",
            self.not_null and "NOT NULL",
            self.comment and "with its comment",
        ]
        return ", ".join(part for part in parts if part)


def read_columns(sides: Sides, pair: Pair, names: Sequence[str]) -> tuple[WasColumn, ...]:
    """Read the definitions of columns, in the table's order."""
    compression = _COMPRESSION if sides.past.info.server_version >= since(COLUMN_COMPRESSION) else "NULL"
    asked = {"table": pair.table.as_string(sides.past), "columns": list(names)}
    grants: defaultdict[str, list[Grant]] = defaultdict(list)
    for column, *grant in sides.past.execute(_GRANTS.encode(), asked).fetchall():
        grants[column].append(Grant(*grant))
    rows = sides.past.execute(_COLUMNS.format(compression=compression).encode(), asked).fetchall()
    return tuple(_column(row, tuple(grants[row[0]])) for row in rows)


def add_statements(table: str, column: WasColumn) -> list[str]:
    """Statements that add the empty column."""
    name = quoted(column.name)
    added = f"ALTER TABLE {table} ADD COLUMN {name} {column.type}"
    return [
        f"{added} {column.computed}" if column.computed else added,
        *(f"ALTER TABLE {table} ALTER COLUMN {name} {setting}" for setting in column.settings),
    ]


def default_statements(table: str, column: WasColumn) -> list[str]:
    """Statements to run once it is filled: its default and, if it was NOT NULL, that default in empty rows."""
    name = quoted(column.name)
    if column.default is None:
        return []
    filled = f"UPDATE ONLY {table} SET {name} = DEFAULT WHERE {name} IS NULL"  # noqa: S608 - quoted identifiers
    return [
        f"ALTER TABLE {table} ALTER COLUMN {name} SET DEFAULT {column.default}",
        *([filled] if column.filled_by_default else []),
    ]


def never_null_statements(sides: Sides, pair: Pair, column: WasColumn) -> list[str]:
    """Statements that need a value in every row: NOT NULL, and the identity, which continues where it was."""
    if not column.not_null:
        return []
    table, name = pair.table.as_string(sides.past), quoted(column.name)
    alter = f"ALTER TABLE {table} ALTER COLUMN {name}"
    statements = [f"{alter} SET NOT NULL"]
    if column.identity:
        (options,) = _one(sides.past, _IDENTITY, [table, column.name])
        statements.append(f"{alter} ADD GENERATED {column.identity} AS IDENTITY {options}")
        sequence = next(one for one in pair.then.sequences if one.column == column.name)
        last, called = _one(sides.past, f"SELECT last_value, is_called FROM {_name(sides, sequence.name.identifier)}")  # noqa: S608
        place = f"pg_get_serial_sequence({literal(table)}, {literal(column.name)})"
        statements.append(f"SELECT setval({place}, {last}, {str(called).lower()})")
    return statements


def comment_statements(table: str, column: WasColumn) -> list[str]:
    if column.comment is None:
        return []
    return [f"COMMENT ON COLUMN {table}.{quoted(column.name)} IS {literal(column.comment)}"]


def grant_statements(table: str, column: WasColumn, roles: frozenset[str]) -> tuple[list[str], list[str]]:
    """Statements for roles that exist, and descriptions of the rights of those that do not."""
    statements, lost = [], []
    for grant in column.grants:
        if grant.role is not None and grant.role not in roles:
            lost.append(f"the rights of {grant.role} on {column.name}: the role does not exist")
            continue
        privileges = ", ".join(f"{privilege} ({quoted(column.name)})" for privilege in grant.privileges.split(", "))
        to = "PUBLIC" if grant.role is None else quoted(grant.role)
        option = " WITH GRANT OPTION" if grant.grantable else ""
        statements.append(f"GRANT {privileges} ON {table} TO {to}{option}")
    return statements, lost


def quoted(name: str) -> str:
    return sql.Identifier(name).as_string(None)


def literal(text: str) -> str:
    return sql.Literal(text).as_string(None)


def _column(row: Sequence[Any], grants: tuple[Grant, ...]) -> WasColumn:
    name, kind, collation, not_null, expression, identity, generated, comment, *settings = row
    return WasColumn(
        name=name,
        type=f"{kind} COLLATE {collation}" if collation else kind,
        not_null=not_null and not generated,
        default=None if generated else expression,
        computed=f"GENERATED ALWAYS AS ({expression}) {generated}" if generated else None,
        identity=identity,
        comment=comment,
        settings=tuple(setting for setting in settings if setting),
        grants=grants,
    )


def _name(sides: Sides, identifier: sql.Identifier) -> str:
    return identifier.as_string(sides.past)


def _one(connection: psycopg.Connection[Any], query: str, asked: Sequence[str] | Mapping[str, str] = ()) -> Any:
    row = connection.execute(query.encode(), asked or None).fetchone()
    if row is None:
        raise AssertionError(query)
    return row
