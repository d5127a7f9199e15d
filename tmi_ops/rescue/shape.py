"""The structure of tables, as needed to move rows, read from a catalogue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tmi_ops.backup.snapshot import TableName, list_tables

# pg_trigger.tgtype, as in src/include/catalog/pg_trigger.h
_BEFORE, _INSERT, _UPDATE = 2, 4, 16
_A_RULE = "a rule"


@dataclass(frozen=True)
class Column:
    """`type` as PostgreSQL writes it, qualified; `default` is its expression.

    Args:
        storage: the type itself, or a domain's base type, because temporary tables must not have its constraints.
        defined: the definition of a user-defined type: an enum's labels, a domain's constraints, a row's columns.
    """

    name: str
    type: str
    not_null: bool = False
    default: str | None = None
    generated: bool = False
    identity: str = ""
    storage: str = ""
    defined: str = ""

    @property
    def must_be_given(self) -> bool:
        """Whether an INSERT without it fails."""
        return self.not_null and self.default is None and not self.generated and not self.identity


@dataclass(frozen=True)
class UniqueIndex:
    """A unique index, or an exclusion constraint.

    Args:
        expressions: its columns or expressions in SQL.
        nulls_equal: NULLS NOT DISTINCT.
        columns: those used by it or its predicate.
        operators: by which two rows clash, one for each expression; empty: `=`.
        waits: it is deferrable.
    """

    name: str
    expressions: tuple[str, ...]
    predicate: str | None = None
    nulls_equal: bool = False
    columns: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    waits: bool = False


@dataclass(frozen=True)
class Check:
    """A CHECK constraint; `expression` over the table's `columns`."""

    name: str
    expression: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trigger:
    """A trigger or rule that an INSERT or UPDATE fires."""

    name: str
    calls: str
    before: bool
    on_insert: bool
    on_update: bool

    @property
    def is_rule(self) -> bool:
        return self.calls == _A_RULE


@dataclass(frozen=True)
class ForeignKey:
    """`child` (`columns`) references `parent` (`referenced`), which may be partitioned."""

    name: str
    child: TableName
    columns: tuple[str, ...]
    parent: TableName
    referenced: tuple[str, ...]


@dataclass(frozen=True)
class Sequence:
    """A sequence that generates values of `column`; `counts`: as numbers, not as part of a text."""

    name: TableName
    column: str
    ascending: bool = True
    owned: bool = True
    counts: bool = True


@dataclass(frozen=True)
class Table:
    """A table.

    `key`: the columns that identify a row: the primary key, else those of a unique index over NOT NULL columns; empty
    if there is neither.
    """

    name: TableName
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    uniques: tuple[UniqueIndex, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    sequences: tuple[Sequence, ...] = ()
    checks: tuple[Check, ...] = ()

    def column(self, name: str) -> Column | None:
        return next((one for one in self.columns if one.name == name), None)

    def type_of(self, column: str) -> str | None:
        return next((one.type for one in self.columns if one.name == column), None)

    @property
    def column_names(self) -> frozenset[str]:
        return frozenset(column.name for column in self.columns)


@dataclass(frozen=True)
class Shape:
    """The tables of a database and the foreign keys between them.

    `partitions`: for each partitioned table, the tables that hold its rows. `encoding`: of the database.
    """

    tables: Mapping[TableName, Table]
    foreign_keys: tuple[ForeignKey, ...] = field(default=())
    partitions: Mapping[TableName, tuple[TableName, ...]] = field(default_factory=dict)
    encoding: str = "UTF8"

    def __contains__(self, name: TableName) -> bool:
        return name in self.tables or name in self.partitions

    def find(self, words: str) -> TableName | None:
        """By `schema.table`, or by the table's name alone if only one schema has it."""
        found = [name for name in (*self.tables, *self.partitions) if words in (str(name), name.name)]
        exact = [name for name in found if str(name) == words]
        return (exact or found)[0] if len(exact or found) == 1 else None

    def parts_of(self, name: TableName) -> tuple[TableName, ...]:
        """The tables that hold this table's rows: itself, or its partitions."""
        return (name,) if name in self.tables else self.partitions.get(name, ())


def read_shape(connection: psycopg.Connection[Any]) -> Shape:
    """Read the catalogue; output must be pinned (`pin_text_output`), so that names are qualified."""
    names = list_tables(connection)
    columns = _grouped(connection, _COLUMNS)
    uniques = _grouped(connection, _UNIQUES)
    keys = _grouped(connection, _KEYS)
    triggers = _grouped(connection, _TRIGGERS)
    checks = _grouped(connection, _CHECKS)
    partitions = _read_partitions(connection)
    sequences = _inherited(_grouped(connection, _SEQUENCES), partitions)
    tables = {
        name: Table(
            name=name,
            columns=tuple(Column(*row) for row in columns[name]),
            key=tuple(keys[name][0][0]) if keys[name] else (),
            uniques=tuple(_unique(*row) for row in uniques[name]),
            triggers=tuple(_trigger(*row) for row in triggers[name]),
            sequences=tuple(Sequence(TableName(row[0], row[1]), *row[2:]) for row in sequences[name]),
            checks=tuple(Check(row[0], row[1], tuple(row[2] or ())) for row in checks[name]),
        )
        for name in names
    }
    foreign_keys = tuple(
        ForeignKey(row[0], TableName(*row[1:3]), tuple(row[3]), TableName(*row[4:6]), tuple(row[6]))
        for row in connection.execute(_FOREIGN_KEYS).fetchall()
    )
    known = {*tables, *partitions}
    return Shape(
        tables,
        tuple(key for key in foreign_keys if {key.child, key.parent} <= known),
        partitions,
        connection.info.parameter_status("server_encoding") or "",
    )


def common_columns(then: Table, now: Table | None) -> tuple[Column, ...]:
    """The columns that can be compared and moved: those of both sides that are not computed, in the past's order."""
    plain = tuple(column for column in then.columns if not column.generated)
    if now is None:
        return plain
    computed = {column.name for column in now.columns if column.generated}
    return tuple(column for column in plain if column.name in now.column_names - computed)


def _read_partitions(connection: psycopg.Connection[Any]) -> dict[TableName, tuple[TableName, ...]]:
    found: dict[TableName, tuple[TableName, ...]] = {}
    for schema, name, part_schema, part in connection.execute(_PARTITIONS).fetchall():
        parts = found.setdefault(TableName(schema, name), ())
        if part is not None:
            found[TableName(schema, name)] = (*parts, TableName(part_schema, part))
    return found


def _inherited(
    sequences: defaultdict[TableName, list[tuple[Any, ...]]], partitions: Mapping[TableName, tuple[TableName, ...]]
) -> defaultdict[TableName, list[tuple[Any, ...]]]:
    """A partitioned table's sequences are used by its partitions, too."""
    for whole, parts in partitions.items():
        for part in parts:
            known = {row[:2] for row in sequences[part]}
            sequences[part] += [row for row in sequences[whole] if row[:2] not in known]
    return sequences


def _unique(
    name: str,
    expressions: list[str],
    predicate: str | None,
    nulls_equal: bool,
    columns: list[str] | None,
    operators: list[str] | None,
    waits: bool,
) -> UniqueIndex:
    return UniqueIndex(
        name, tuple(expressions), predicate, nulls_equal, tuple(columns or ()), tuple(operators or ()), waits
    )


def _trigger(name: str, calls: str, kind: int) -> Trigger:
    return Trigger(name, calls, bool(kind & _BEFORE), bool(kind & _INSERT), bool(kind & _UPDATE))


def _grouped(connection: psycopg.Connection[Any], query: str) -> defaultdict[TableName, list[tuple[Any, ...]]]:
    """Rows of a query by the table named in their first two columns."""
    found: defaultdict[TableName, list[tuple[Any, ...]]] = defaultdict(list)
    rows: Iterable[tuple[Any, ...]] = connection.execute(query.encode()).fetchall()
    for schema, table, *rest in rows:
        found[TableName(schema, table)].append(tuple(rest))
    return found


_TABLE = "pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
# Only for user-defined types.
_MADE_OF = """
    SELECT CASE u.typtype
           WHEN 'e' THEN (SELECT string_agg(quote_literal(enumlabel), ',' ORDER BY enumsortorder)
                          FROM pg_enum WHERE enumtypid = u.oid)
           WHEN 'd' THEN concat_ws(' ', format_type(u.typbasetype, u.typtypmod), u.typnotnull,
                                   (SELECT string_agg(pg_get_constraintdef(k.oid), ' ' ORDER BY k.conname)
                                    FROM pg_constraint k WHERE k.contypid = u.oid))
           WHEN 'c' THEN (SELECT string_agg(format_type(m.atttypid, m.atttypmod), ',' ORDER BY m.attnum)
                          FROM pg_attribute m WHERE m.attrelid = u.typrelid AND m.attnum > 0 AND NOT m.attisdropped)
           END AS made_of
    FROM pg_type u WHERE u.oid = {oid} AND u.typtype IN ('e', 'd', 'c')"""
_COLUMNS = f"""
SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END, a.attgenerated <> '',
       a.attidentity::text, format_type(b.oid, b.mod), concat_ws(' ', own.made_of, base.made_of)
FROM {_TABLE} JOIN pg_attribute a ON a.attrelid = c.oid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
JOIN pg_type t ON t.oid = a.atttypid
CROSS JOIN LATERAL (
    WITH RECURSIVE rests (oid, mod, depth) AS (
        SELECT a.atttypid, a.atttypmod, 0
        UNION ALL
        SELECT d.typbasetype, d.typtypmod, depth + 1 FROM rests JOIN pg_type d ON d.oid = rests.oid AND d.typtype = 'd'
    ) SELECT rests.oid, rests.mod FROM rests ORDER BY depth DESC LIMIT 1
) b
LEFT JOIN LATERAL ({_MADE_OF.format(oid="coalesce(nullif(t.typelem, 0), t.oid)")}) own ON true
LEFT JOIN LATERAL ({_MADE_OF.format(oid="b.oid")}) base ON t.typtype = 'd'
WHERE c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.oid, a.attnum"""  # noqa: S608 - made of constants
# The primary key before others, then the one with the fewest columns.
_KEYS = f"""
SELECT n.nspname, c.relname, array_agg(a.attname::text ORDER BY k.place), i.indisprimary
FROM {_TABLE} JOIN pg_index i ON i.indrelid = c.oid
CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY k (attnum, place)
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
WHERE c.relkind = 'r' AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND k.place <= i.indnkeyatts
GROUP BY 1, 2, i.indexrelid, i.indisprimary, i.indimmediate
HAVING bool_and(coalesce(a.attnotnull, false))
ORDER BY i.indisprimary DESC, i.indimmediate DESC, count(*), i.indexrelid"""  # noqa: S608
# indnullsnotdistinct exists since PostgreSQL 15; read through JSON, its absence is no error.
_UNIQUES = f"""
SELECT n.nspname, c.relname, x.relname,
       (SELECT array_agg(pg_get_indexdef(i.indexrelid, place, true) ORDER BY place)
        FROM generate_series(1, i.indnkeyatts) place),
       pg_get_expr(i.indpred, i.indrelid), coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false),
       (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid
        AND a.attnum > 0 AND (a.attnum = ANY (i.indkey::smallint[]) OR EXISTS (
            SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = x.oid
            AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid = a.attnum))),
       (SELECT array_agg(format('OPERATOR(%I.%s)', m.nspname, o.oprname) ORDER BY place)
        FROM unnest(k.conexclop) WITH ORDINALITY u (op, place) JOIN pg_operator o ON o.oid = u.op
        JOIN pg_namespace m ON m.oid = o.oprnamespace),
       coalesce(k.condeferrable, false)
FROM {_TABLE} JOIN pg_index i ON i.indrelid = c.oid JOIN pg_class x ON x.oid = i.indexrelid
LEFT JOIN pg_constraint k ON k.conindid = x.oid AND k.conrelid = c.oid AND k.contype IN ('p', 'u', 'x')
WHERE c.relkind = 'r' AND (i.indisunique OR i.indisexclusion) AND i.indisvalid
ORDER BY x.relname"""  # noqa: S608
_TRIGGERS = f"""
SELECT n.nspname, c.relname, t.tgname, t.tgfoid::regproc::text, t.tgtype::integer
FROM {_TABLE} JOIN pg_trigger t ON t.tgrelid = c.oid
WHERE c.relkind = 'r' AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND t.tgtype & 20 <> 0
UNION ALL
SELECT n.nspname, c.relname, r.rulename, '{_A_RULE}', CASE r.ev_type WHEN '3' THEN 6 ELSE 18 END
FROM {_TABLE} JOIN pg_rewrite r ON r.ev_class = c.oid
WHERE c.relkind = 'r' AND r.ev_type IN ('2', '3')
ORDER BY 1, 2, 3"""  # noqa: S608
_CHECKS = f"""
SELECT n.nspname, c.relname, k.conname, pg_get_expr(k.conbin, k.conrelid),
       (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum = ANY (k.conkey) AND a.attnum > 0)
FROM {_TABLE} JOIN pg_constraint k ON k.conrelid = c.oid
WHERE c.relkind = 'r' AND k.contype = 'c'
ORDER BY k.conname"""  # noqa: S608
_SEQUENCES = """
SELECT DISTINCT n.nspname, c.relname, sn.nspname, s.relname, a.attname, q.seqincrement > 0,
       d.classid = 'pg_class'::regclass, y.typcategory = 'N'
FROM (SELECT classid, objid, refobjid AS relation, refobjsubid::smallint AS attnum, objid AS sequence
      FROM pg_depend WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass
                       AND deptype IN ('a', 'i') AND refobjsubid > 0
      UNION ALL
      SELECT p.classid, p.objid, f.adrelid, f.adnum, p.refobjid
      FROM pg_depend p JOIN pg_attrdef f ON f.oid = p.objid
      WHERE p.classid = 'pg_attrdef'::regclass AND p.refclassid = 'pg_class'::regclass) d
JOIN pg_sequence q ON q.seqrelid = d.sequence JOIN pg_class s ON s.oid = d.sequence
JOIN pg_namespace sn ON sn.oid = s.relnamespace
JOIN pg_class c ON c.oid = d.relation JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.attnum
JOIN pg_type y ON y.oid = a.atttypid
WHERE c.relkind IN ('r', 'p') AND NOT a.attisdropped
ORDER BY 3, 4, 7 DESC"""
_PARTITIONS = """
SELECT n.nspname, c.relname, pn.nspname, p.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL pg_partition_tree(c.oid) t ON t.isleaf
LEFT JOIN pg_class p ON p.oid = t.relid AND p.relkind = 'r' LEFT JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE c.relkind = 'p'
ORDER BY 1, 2, 3, 4"""
# A key that references a partitioned table has derived keys that reference its partitions; a row need not satisfy each.
# A partitioned table's own key has derived keys of its partitions; their rows must satisfy these.
_FOREIGN_KEYS = """
SELECT k.conname, n.nspname, c.relname,
       (SELECT array_agg(a.attname::text ORDER BY place) FROM unnest(k.conkey) WITH ORDINALITY u (attnum, place)
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum),
       pn.nspname, p.relname,
       (SELECT array_agg(a.attname::text ORDER BY place) FROM unnest(k.confkey) WITH ORDINALITY u (attnum, place)
        JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class p ON p.oid = k.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
LEFT JOIN pg_constraint up ON up.oid = k.conparentid
WHERE k.contype = 'f' AND c.relkind = 'r' AND coalesce(up.confrelid = k.confrelid, true)
ORDER BY n.nspname, c.relname, k.conname"""
