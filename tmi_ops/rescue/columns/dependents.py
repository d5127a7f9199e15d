"""Objects that were dropped with columns, from the past's catalogue: what is restored with them, and what is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from psycopg import sql

from tmi_ops.backup.snapshot import TableName
from tmi_ops.rescue.columns.definition import WasColumn, literal, quoted
from tmi_ops.rescue.definitions import dumped
from tmi_ops.rescue.dropped import is_there, lost_views
from tmi_ops.rescue.pairs import Pair
from tmi_ops.rescue.session import Sides

Kind = Literal["constraint", "foreign key", "index", "statistics", "trigger", "view", "computed column", "other"]
# Everything that depends on one of the columns, with all columns of the table that it needs, in order of recreation:
# constraints before plain indexes, because a unique one creates its own; foreign keys after what they reference.
_DEPENDING = """
WITH depending AS (
    SELECT d.classid, d.objid, d.objsubid, array_agg(DISTINCT a.attname::text) AS needs
    FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = %(table)s::regclass AND d.refobjsubid > 0
    GROUP BY 1, 2, 3 HAVING array_agg(a.attname::text) && %(columns)s
)
SELECT CASE k.contype WHEN 'f' THEN 'foreign key' ELSE 'constraint' END, k.conrelid::regclass::text,
       quote_ident(k.conname), needs, 'ALTER TABLE ' || k.conrelid::regclass || ' ADD CONSTRAINT '
       || quote_ident(k.conname) || ' ' || pg_get_constraintdef(k.oid),
       'CONSTRAINT ' || quote_ident(k.conname) || ' ON ' || k.conrelid::regclass,
       obj_description(k.oid, 'pg_constraint'), CASE k.contype WHEN 'f' THEN 4 ELSE 1 END
FROM depending JOIN pg_constraint k ON classid = 'pg_constraint'::regclass AND k.oid = objid AND k.contype <> 'n'
UNION ALL
SELECT 'index', i.indrelid::regclass::text, i.indexrelid::regclass::text, needs, pg_get_indexdef(i.indexrelid),
       'INDEX ' || i.indexrelid::regclass, obj_description(i.indexrelid, 'pg_class'), 2
FROM depending JOIN pg_index i ON classid = 'pg_class'::regclass AND i.indexrelid = objid
UNION ALL
SELECT 'statistics', s.stxrelid::regclass::text, quote_ident(n.nspname) || '.' || quote_ident(s.stxname), needs,
       pg_get_statisticsobjdef(s.oid), 'STATISTICS ' || quote_ident(n.nspname) || '.' || quote_ident(s.stxname),
       obj_description(s.oid, 'pg_statistic_ext'), 3
FROM depending JOIN pg_statistic_ext s ON classid = 'pg_statistic_ext'::regclass AND s.oid = objid
JOIN pg_namespace n ON n.oid = s.stxnamespace
UNION ALL
SELECT 'trigger', t.tgrelid::regclass::text, quote_ident(t.tgname), needs, pg_get_triggerdef(t.oid)
       || CASE t.tgenabled WHEN 'O' THEN '' ELSE E'\\nALTER TABLE ' || t.tgrelid::regclass
       || CASE t.tgenabled WHEN 'D' THEN ' DISABLE' WHEN 'R' THEN ' ENABLE REPLICA' ELSE ' ENABLE ALWAYS' END
       || ' TRIGGER ' || quote_ident(t.tgname) END,
       'TRIGGER ' || quote_ident(t.tgname) || ' ON ' || t.tgrelid::regclass, obj_description(t.oid, 'pg_trigger'), 5
FROM depending JOIN pg_trigger t ON classid = 'pg_trigger'::regclass AND t.oid = objid AND NOT t.tgisinternal
UNION ALL
SELECT 'view', n.nspname, c.relname, needs, '', '', NULL, 6
FROM depending JOIN pg_rewrite r ON classid = 'pg_rewrite'::regclass AND r.oid = objid AND r.rulename = '_RETURN'
JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
UNION ALL
SELECT 'computed column', NULL, a.attname, needs, '', '', NULL, 7
FROM depending LEFT JOIN pg_attrdef f ON classid = 'pg_attrdef'::regclass AND f.oid = objid
JOIN pg_attribute a ON a.attrelid = %(table)s::regclass AND a.attgenerated <> '' AND a.attname <> ALL (%(columns)s)
 AND (a.attnum = f.adnum OR classid = 'pg_class'::regclass AND a.attrelid = objid AND a.attnum = objsubid)
UNION ALL
SELECT 'other', NULL, pg_describe_object(classid, objid, objsubid), needs, '', '', NULL, 8
FROM depending
WHERE classid NOT IN ('pg_constraint'::regclass, 'pg_class'::regclass, 'pg_statistic_ext'::regclass,
                      'pg_attrdef'::regclass, 'pg_trigger'::regclass)
  AND NOT EXISTS (SELECT FROM pg_rewrite r WHERE classid = 'pg_rewrite'::regclass AND r.oid = objid
                  AND r.rulename = '_RETURN')
ORDER BY 8, 3"""
_LIVING = """
SELECT conrelid::regclass::text, quote_ident(conname) FROM pg_constraint
WHERE %(table)s::regclass IN (conrelid, confrelid)
UNION SELECT indrelid::regclass::text, indexrelid::regclass::text FROM pg_index WHERE indrelid = %(table)s::regclass
UNION SELECT tgrelid::regclass::text, quote_ident(tgname) FROM pg_trigger WHERE tgrelid = %(table)s::regclass
UNION SELECT s.stxrelid::regclass::text, quote_ident(n.nspname) || '.' || quote_ident(s.stxname)
FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE s.stxrelid = %(table)s::regclass"""


@dataclass(frozen=True)
class Dependent:
    """An object that was dropped with the columns.

    Args:
        table: the table it belongs to; for a view, its schema.
        needs: all columns of the table that it needs.
        statement: recreates it; empty if the catalogue does not have it.
    """

    kind: Kind
    table: str | None
    name: str
    needs: frozenset[str]
    statement: str
    place: str
    comment: str | None

    def describe(self) -> str:
        """`the index public.one`; PostgreSQL's description for kinds that we do not know."""
        return self.name if self.kind == "other" else f"the {self.kind} {self.name}"

    def statements(self) -> list[str]:
        comment = [f"COMMENT ON {self.place} IS {literal(self.comment)}"] if self.comment else []
        return [*self.statement.split("\n"), *comment]


def dropped_dependents(sides: Sides, pair: Pair, columns: Iterable[str]) -> list[Dependent]:
    """What depended on any of these columns and does not exist now, in the order of recreation."""
    asked = {"table": pair.table.as_string(sides.past), "columns": sorted(columns)}
    living = set(sides.now.execute(_LIVING.encode(), asked).fetchall())
    found = [
        Dependent(kind, table, name, frozenset(needs), statement, place, comment)
        for kind, table, name, needs, statement, place, comment, _ in sides.past.execute(_DEPENDING.encode(), asked)
    ]
    lost = {column.name for column in pair.lost_columns}
    return [
        one
        for one in found
        if (one.table, one.name) not in living and (one.kind != "computed column" or one.name in lost)
    ]


@dataclass(frozen=True)
class Dependents:
    """What is restored with columns.

    Args:
        before: pg_dump's script for the sequences of their defaults, with owner and grants.
        owned: statements that set these sequences' owning columns and their values.
        statements: to run once the columns are filled.
        after: pg_dump's script for views.
        words: what is restored: `the index public.one`.
        lost: what is not, and why.
    """

    before: str = ""
    owned: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    after: str = ""
    texts: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def find_dependents(sides: Sides, pair: Pair, columns: Sequence[WasColumn]) -> Dependents:
    """Everything that was dropped with these columns and does not exist now.

    Raises:
        ProgramError: there is no pg_dump for the past's version, or it failed.
    """
    wanted = frozenset(column.name for column in columns)
    gone = frozenset(column.name for column in pair.lost_columns) - wanted
    dropped = dropped_dependents(sides, pair, wanted)
    coming = [one for one in dropped if one.statement and not _why_not_restored(sides, one, gone)]
    sequences = _lost_sequences(sides, pair, wanted)
    views = _returning_views(sides, [one for one in dropped if one.kind == "view"], gone)
    return Dependents(
        before=dumped(sides, "pre-data", list(sequences)) if sequences else "",
        owned=tuple(
            statement for name, column in sequences.items() for statement in _going_on(sides, pair, name, column)
        ),
        statements=tuple(statement for one in coming for statement in one.statements()),
        after="\n".join(dumped(sides, section, views) for section in ("pre-data", "post-data")) if views else "",
        texts=(
            *(f"the sequence {name}" for name in sequences),
            *(one.describe() for one in coming),
            *(f"the view {name}" for name in views),
        ),
        lost=tuple(f"{one.describe()}: {why}" for one in dropped if (why := _why_not_restored(sides, one, gone))),
    )


def _why_not_restored(sides: Sides, dependent: Dependent, gone: frozenset[str]) -> str:
    """Why it is not restored; empty if it is."""
    if dependent.kind == "computed column":
        return f"it is computed from this column; add --column {dependent.name}"
    if dependent.kind == "other":
        return "tmi_ops cannot recreate objects of this kind"
    if missing := sorted(dependent.needs & gone):
        return f"it also needs {', '.join(missing)}, dropped too; add --column {missing[0]}"
    if dependent.kind != "view" and dependent.table is not None and not is_there(sides, dependent.table):
        return f"{dependent.table} does not exist"
    return ""


def _returning_views(sides: Sides, seeds: Sequence[Dependent], gone: frozenset[str]) -> list[TableName]:
    """Views that read the columns, and views over these; not those over a view that cannot be restored."""

    def lost(chosen: Sequence[Dependent]) -> list[TableName]:
        names = [TableName(str(one.table), one.name) for one in chosen]
        there = [name for name in names if not is_there(sides, name.identifier.as_string(sides.now))]
        return [*there, *lost_views(sides, there)] if there else []

    without = lost([one for one in seeds if one.needs & gone])
    return [view for view in dict.fromkeys(lost(seeds)) if view not in without]


def _lost_sequences(sides: Sides, pair: Pair, wanted: frozenset[str]) -> dict[TableName, str]:
    """Sequences of the columns' defaults that were dropped with them, and the column of each."""
    identities = {column.name for column in pair.then.columns if column.identity}
    return {
        sequence.name: sequence.column
        for sequence in pair.then.sequences
        if sequence.column in wanted - identities and not is_there(sides, sequence.name.identifier.as_string(sides.now))
    }


def _going_on(sides: Sides, pair: Pair, name: TableName, column: str) -> list[str]:
    sequence = name.identifier.as_string(sides.now)
    row = sides.past.execute(sql.SQL("SELECT last_value, is_called FROM {}").format(name.identifier)).fetchone()
    if row is None:
        raise AssertionError(sequence)
    owned = any(one.name == name and one.owned for one in pair.then.sequences)
    table = pair.table.as_string(sides.now)
    return [
        *([f"ALTER SEQUENCE {sequence} OWNED BY {table}.{quoted(column)}"] if owned else []),
        f"SELECT setval({literal(sequence)}, {row[0]}, {str(row[1]).lower()})",
    ]
