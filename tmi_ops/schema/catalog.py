"""The objects of the live database, read from PostgreSQL's catalogs into frozen facts. PostgreSQL 12 to 18.

Objects that belong to an extension are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import Connection, Row, text

from tmi_ops.errors import DatabaseError

ConstraintKind = Literal["check", "foreign key"]


@dataclass(frozen=True)
class LiveTable:
    """An ordinary or partitioned table. `estimated_rows`: None if the table was never analyzed."""

    name: str
    readable: bool
    size: int
    estimated_rows: int | None


@dataclass(frozen=True)
class LiveIndex:
    """An index. `plain`: a btree on columns, in default order, of all rows, without INCLUDE."""

    table: str
    name: str
    columns: tuple[str, ...]
    unique: bool
    primary: bool = False
    plain: bool = True
    valid: bool = True
    being_built: bool = False
    definition: str = ""


@dataclass(frozen=True)
class LiveConstraint:
    """A CHECK or a foreign key. `referenced*` and the actions are those of a foreign key."""

    table: str
    name: str
    kind: ConstraintKind
    columns: tuple[str, ...]
    definition: str
    validated: bool = True
    enforced: bool = True
    referenced: str | None = None
    referenced_columns: tuple[str, ...] = ()
    on_delete: str = "NO ACTION"
    on_update: str = "NO ACTION"


@dataclass(frozen=True)
class LiveObject:
    """A sequence, a view or a trigger."""

    kind: Literal["sequence", "view", "trigger"]
    name: str
    detail: str
    table: str | None = None


@dataclass(frozen=True)
class LiveSchema:
    """The live schema. `database_size` in bytes.

    `applications_schema`: the schema of unqualified names in a session of this role that sets no search_path, as TMI's
    sessions do; None if there is none.
    """

    server_version: str
    database: str
    database_size: int
    schema: str
    tables: Mapping[str, LiveTable] = field(default_factory=dict)
    indexes: tuple[LiveIndex, ...] = ()
    constraints: tuple[LiveConstraint, ...] = ()
    objects: tuple[LiveObject, ...] = ()
    applications_schema: str | None = None

    def indexes_of(self, table: str) -> tuple[LiveIndex, ...]:
        return tuple(index for index in self.indexes if index.table == table)

    def constraints_of(self, table: str, kind: ConstraintKind) -> tuple[LiveConstraint, ...]:
        return tuple(one for one in self.constraints if one.table == table and one.kind == kind)


def read_catalog(connection: Connection) -> LiveSchema:
    """Read the connection's current schema.

    Raises:
        DatabaseError: the role may use no schema.
    """
    version, database, size, schema = connection.execute(text(_SERVER)).one()
    if schema is None:
        raise DatabaseError(
            f"The role may use no schema of its search_path in {database}.",
            hint="GRANT USAGE ON SCHEMA public TO the role, or correct its search_path",
        )
    within = {"schema": schema}
    applications_schema = _applications_schema(connection)
    return LiveSchema(
        server_version=version,
        database=database,
        database_size=size,
        schema=schema,
        tables={row.name: _table(row) for row in connection.execute(text(_TABLES), within)},
        indexes=tuple(_index(row) for row in connection.execute(text(_INDEXES), within)),
        constraints=tuple(_constraint(row) for row in connection.execute(text(_CONSTRAINTS), within)),
        objects=tuple(LiveObject(*row) for row in connection.execute(text(_OBJECTS), within)),
        applications_schema=applications_schema,
    )


def _applications_schema(connection: Connection) -> str | None:
    """The first schema of the search_path set for the role, the database or the server, including `"$user"`."""
    ours, theirs = connection.execute(
        text("SELECT setting, reset_val FROM pg_catalog.pg_settings WHERE name = 'search_path'")
    ).one()
    set_path = text("SELECT pg_catalog.set_config('search_path', :path, true)")
    connection.execute(set_path, {"path": theirs})
    found: str | None = connection.execute(text("SELECT pg_catalog.current_schema()::text")).scalar_one()
    connection.execute(set_path, {"path": ours})
    return found


def _table(row: Row[tuple[object, ...]]) -> LiveTable:
    return LiveTable(row.name, row.readable, row.size, row.estimated_rows if row.estimated_rows >= 0 else None)


def _index(row: Row[tuple[object, ...]]) -> LiveIndex:
    return LiveIndex(
        table=row.table_name,
        name=row.name,
        columns=tuple(row.columns),
        unique=row.is_unique,
        primary=row.is_primary,
        plain=row.plain and "NULLS NOT DISTINCT" not in row.definition,
        valid=row.is_valid,
        being_built=row.being_built,
        definition=row.definition,
    )


def _constraint(row: Row[tuple[object, ...]]) -> LiveConstraint:
    return LiveConstraint(
        table=row.table_name,
        name=row.name,
        kind="check" if row.kind == "c" else "foreign key",
        columns=tuple(row.columns),
        definition=row.definition,
        validated=row.validated,
        enforced="NOT ENFORCED" not in row.definition,
        referenced=row.referenced,
        referenced_columns=tuple(row.referenced_columns),
        on_delete=_ACTIONS.get(row.on_delete, "NO ACTION"),
        on_update=_ACTIONS.get(row.on_update, "NO ACTION"),
    )


# Letters of pg_constraint.confdeltype: https://www.postgresql.org/docs/current/catalog-pg-constraint.html
_ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}

_SERVER = """
    SELECT current_setting('server_version'), current_database(),
           pg_database_size(current_database()), current_schema()::text
"""

_NOT_OF_AN_EXTENSION = """
    NOT EXISTS (SELECT FROM pg_depend e WHERE e.objid = c.oid AND e.classid = 'pg_class'::regclass AND e.deptype = 'e')
"""

_TABLES = f"""
    SELECT c.relname AS name, has_table_privilege(c.oid, 'SELECT') AS readable,
           pg_relation_size(c.oid) AS size, c.reltuples::bigint AS estimated_rows
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relkind IN ('r', 'p') AND {_NOT_OF_AN_EXTENSION}
    ORDER BY c.relname
"""  # noqa: S608

_INDEXES = f"""
    SELECT c.relname AS table_name, i.relname AS name, x.indisunique AS is_unique, x.indisprimary AS is_primary,
           x.indisvalid AS is_valid, pg_get_indexdef(x.indexrelid) AS definition,
           EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = x.indexrelid) AS being_built,
           am.amname = 'btree' AND x.indpred IS NULL AND x.indexprs IS NULL AND x.indnatts = x.indnkeyatts
               AND 0 = ALL (x.indoption::int2[])
               AND NOT EXISTS (SELECT FROM unnest(x.indclass::oid[]) AS k (oid)
                               JOIN pg_opclass o ON o.oid = k.oid WHERE NOT o.opcdefault) AS plain,
           ARRAY(SELECT coalesce(a.attname::text, '(expression)')
                 FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS k (number, position)
                 LEFT JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.number AND k.number > 0
                 WHERE k.position <= x.indnkeyatts ORDER BY k.position) AS columns
    FROM pg_index x
    JOIN pg_class i ON i.oid = x.indexrelid
    JOIN pg_am am ON am.oid = i.relam
    JOIN pg_class c ON c.oid = x.indrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relkind IN ('r', 'p') AND {_NOT_OF_AN_EXTENSION}
    ORDER BY c.relname, i.relname
"""  # noqa: S608


def _columns(relation: str, numbers: str) -> str:
    return f"""ARRAY(SELECT a.attname::text FROM unnest({numbers}) WITH ORDINALITY AS k (number, position)
                 JOIN pg_attribute a ON a.attrelid = {relation} AND a.attnum = k.number ORDER BY k.position)"""  # noqa: S608


_CONSTRAINTS = f"""
    SELECT c.relname AS table_name, o.conname AS name, o.contype::text AS kind, o.convalidated AS validated,
           pg_get_constraintdef(o.oid) AS definition, r.relname AS referenced,
           o.confdeltype::text AS on_delete, o.confupdtype::text AS on_update,
           {_columns("o.conrelid", "o.conkey")} AS columns,
           {_columns("o.confrelid", "o.confkey")} AS referenced_columns
    FROM pg_constraint o
    JOIN pg_class c ON c.oid = o.conrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_class r ON r.oid = o.confrelid AND o.contype = 'f'
    WHERE n.nspname = :schema AND o.contype IN ('c', 'f') AND {_NOT_OF_AN_EXTENSION}
    ORDER BY c.relname, o.conname
"""  # noqa: S608

_OBJECTS = f"""
    SELECT 'sequence', c.relname::text,
           coalesce('that numbers ' || d.refobjid::regclass || '.' || a.attname, 'that no column uses'), NULL
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_depend d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass
        AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
    LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE n.nspname = :schema AND c.relkind = 'S' AND {_NOT_OF_AN_EXTENSION}
    UNION ALL
    SELECT 'view', c.relname::text, CASE c.relkind WHEN 'm' THEN 'that is materialised' ELSE 'over tables' END, NULL
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relkind IN ('v', 'm') AND {_NOT_OF_AN_EXTENSION}
    UNION ALL
    SELECT 'trigger', t.tgname::text, 'that calls ' || t.tgfoid::regproc || '()', c.relname::text
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND NOT t.tgisinternal AND {_NOT_OF_AN_EXTENSION}
    ORDER BY 1, 2
"""  # noqa: S608
