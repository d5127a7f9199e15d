"""Objects that were dropped with tables (DROP ... CASCADE), from the past's catalogue: what is restored, and what not.

1. `relations`: the tables themselves; all partitions of a partitioned table; empty tables that their foreign keys
   reference. This includes their sequences, indexes, constraints, triggers, rules, policies, grants and statistics.
2. `views`: views over them, and views over those.
3. `repairs`: what other objects lost: foreign keys, policies, membership in publications, partitions of a live table,
   the content of materialized views.
4. `left`: everything else that PostgreSQL dropped, according to its dependencies; it is only reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from tmi_ops.backup.snapshot import TableName
from tmi_ops.postgres.versions import PUBLISHED_COLUMNS, since
from tmi_ops.rescue.session import Sides


@dataclass(frozen=True)
class Repair:
    """`statement` restores `thing`, once the rows and all definitions exist."""

    thing: str
    statement: str


@dataclass(frozen=True)
class Attachment(Repair):
    """A partition of a table that still exists. `names`: it and its indexes, as schema and name."""

    names: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class DroppedObjects:
    """See above; `left` are PostgreSQL's descriptions of what is not restored."""

    relations: tuple[TableName, ...] = ()
    views: tuple[TableName, ...] = ()
    repairs: tuple[Repair, ...] = ()
    left: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """Descriptions of what is restored."""
        return (
            *(f"the table {name}" for name in self.relations),
            *(f"the view {name}" for name in self.views),
            *(repair.thing for repair in self.repairs),
        )

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        return tuple(repair for repair in self.repairs if isinstance(repair, Attachment))


def dropped_with(sides: Sides, lost: Iterable[TableName]) -> DroppedObjects:
    """What was dropped with these tables."""
    relations = _relations(sides, lost)
    if not relations:
        return DroppedObjects()
    views = lost_views(sides, relations)
    published, not_ours = _publications(sides, relations)
    repairs = (
        *_attachments(sides, relations),
        *_foreign_keys(sides, relations),
        *_defaults(sides, relations),
        *_repairs(sides, _POLICIES, relations, "the policy {detail} of {table}", of_others=True),
        *published,
        *_repairs(sides, _STATISTICS, relations, "the statistics {detail}"),
        *_repairs(sides, _CONTENTS, views, "the content of {table}"),
    )
    return DroppedObjects(relations, tuple(views), repairs, (*not_ours, *_left(sides, [*relations, *views])))


def lost_views(sides: Sides, relations: Sequence[TableName]) -> list[TableName]:
    """Past views over these relations, and views over those, that do not exist now."""
    over = [TableName(*row) for row in _ask(sides, _VIEWS_OVER, relations)]
    return [view for view in over if not is_there(sides, view.identifier.as_string(sides.now))]


def is_there(sides: Sides, relation: str) -> bool:
    """Whether the live database has a relation of this qualified, quoted name."""
    row = sides.now.execute("SELECT to_regclass(%s)", [relation]).fetchone()
    return row is not None and row[0] is not None


def _relations(sides: Sides, lost: Iterable[TableName]) -> tuple[TableName, ...]:
    found: set[TableName] = set()
    more = set(lost)
    while more:
        found |= more
        families = [{whole, *parts} for whole, parts in sides.then.partitions.items() if whole not in sides.living]
        parents = {key.parent for key in sides.then.foreign_keys if key.child in found}
        more = {name for family in families if family & found for name in family}
        more = {name for name in more | parents if name not in sides.living} - found
    return tuple(sorted(found, key=str))


def _attachments(sides: Sides, relations: Sequence[TableName]) -> list[Attachment]:
    return [
        Attachment(
            f"{part} as a partition of {whole}",
            f"ALTER TABLE {whole} ATTACH PARTITION {part} {bound}",
            tuple((schema, name) for schema, name in names),
        )
        for schema, name, whole, part, bound, names in _ask(sides, _PARTITION_OF, relations)
        if TableName(schema, name) in sides.living
    ]


def _foreign_keys(sides: Sides, relations: Sequence[TableName]) -> list[Repair]:
    there = {(TableName(schema, name), key) for schema, name, key in sides.now.execute(_CONSTRAINTS).fetchall()}
    return [
        Repair(f"the foreign key {key} of {schema}.{name}", statement)
        for schema, name, key, statement in _ask(sides, _KEYS_OF_OTHERS, relations)
        if TableName(schema, name) in sides.living and (TableName(schema, name), key) not in there
    ]


def _defaults(sides: Sides, relations: Sequence[TableName]) -> list[Repair]:
    """Defaults of other tables' columns that used a sequence of these tables."""
    without = {
        (name, column.name)
        for name, table in sides.living.tables.items()
        for column in table.columns
        if column.default is None
    }
    return [
        Repair(f"the default of {column} of {schema}.{name}", statement)
        for schema, name, column, statement in _ask(sides, _DEFAULTS, relations)
        if (TableName(schema, name), column) in without
    ]


def _repairs(
    sides: Sides, query: str, relations: Sequence[TableName], words: str, *, of_others: bool = False
) -> list[Repair]:
    """From a query's rows (schema, table, detail, statement); `of_others`: only if the table still exists."""
    return [
        Repair(words.format(table=f"{schema}.{name}", detail=detail), statement)
        for schema, name, detail, statement in _ask(sides, query, relations)
        if not of_others or TableName(schema, name) in sides.living
    ]


def _publications(sides: Sides, relations: Sequence[TableName]) -> tuple[list[Repair], list[str]]:
    """Repairs for publications that our role may alter, and descriptions of the others."""
    new = sides.past.info.server_version >= since(PUBLISHED_COLUMNS)
    query = _PUBLICATIONS.format(*(_CONDITIONS if new else ("''", "''")))
    mine = sides.now.execute("SELECT pubname FROM pg_publication WHERE pg_has_role(pubowner, 'USAGE')").fetchall()
    rows = _ask(sides, query, relations)
    words = "{}.{} in the publication {}".format
    repairs = [Repair(words(*row[:3]), row[3]) for row in rows if (row[2],) in mine]
    return repairs, [words(*row[:3]) for row in rows if (row[2],) not in mine]


def _left(sides: Sides, relations: Sequence[TableName]) -> list[str]:
    """What else was dropped and does not exist now."""
    rows = _ask(sides, _DEPENDENTS, relations)
    return [f"the {kind} {identity}" for kind, identity, *address in rows if not _is_known(sides.now, address)]


def _is_known(now: psycopg.Connection[Any], address: Sequence[Any]) -> bool:
    """Whether the live database has such an object: it may have been recreated since."""
    try:
        with now.transaction():
            now.execute("SELECT pg_get_object_address(%s, %s::text[], %s::text[])", list(address))
    except (psycopg.errors.ProgrammingError, psycopg.errors.DataError):
        return False
    return True


def _ask(sides: Sides, query: str, relations: Sequence[TableName]) -> list[tuple[Any, ...]]:
    names = [name.identifier.as_string(sides.past) for name in relations]
    return sides.past.execute(query.encode(), {"oids": names}).fetchall()


# Everything that reads one of these tables through a view, and through views of views.
_VIEWS_OVER = """
WITH RECURSIVE over AS (
    SELECT %(oids)s::regclass[]::oid[] AS relations, ARRAY[]::oid[] AS found
    UNION
    SELECT ARRAY(SELECT DISTINCT r.ev_class FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
                 WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
                   AND d.refobjid = ANY (relations) AND r.ev_class <> ALL (relations || found)),
           found || relations
    FROM over WHERE relations <> ARRAY[]::oid[]
)
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('v', 'm') AND c.oid = ANY (SELECT unnest(relations) FROM over) ORDER BY c.oid
"""
_CONSTRAINTS = """
SELECT n.nspname, c.relname, k.conname
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f'
"""
_PARTITION_OF = """
SELECT pn.nspname, p.relname, p.oid::regclass::text, c.oid::regclass::text, pg_get_expr(c.relpartbound, c.oid),
       ARRAY(SELECT ARRAY[m.nspname, r.relname]::text[] FROM pg_class r JOIN pg_namespace m ON m.oid = r.relnamespace
             WHERE r.oid = c.oid OR r.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = c.oid))
FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid JOIN pg_class p ON p.oid = i.inhparent
JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE c.relispartition AND c.oid = ANY (%(oids)s::regclass[]::oid[])
ORDER BY c.oid
"""
# A key that references a partition is part of one that references the partitioned table, which is dropped with it.
_KEYS_OF_OTHERS = """
WITH RECURSIVE keys AS (
    SELECT oid, conparentid FROM pg_constraint
    WHERE contype = 'f' AND confrelid = ANY (%(oids)s::regclass[]::oid[])
    UNION SELECT up.oid, up.conparentid FROM keys JOIN pg_constraint up ON up.oid = keys.conparentid
)
SELECT n.nspname, c.relname, k.conname,
       format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', c.oid::regclass, k.conname, pg_get_constraintdef(k.oid))
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.conparentid = 0 AND k.oid IN (SELECT oid FROM keys) AND k.conrelid <> ALL (%(oids)s::regclass[]::oid[])
ORDER BY 1, 2, 3
"""
_DEFAULTS = """
SELECT DISTINCT n.nspname, c.relname, a.attname,
       format('ALTER TABLE %%s ALTER COLUMN %%I SET DEFAULT %%s', c.oid::regclass, a.attname,
              pg_get_expr(f.adbin, f.adrelid))
FROM pg_depend owned JOIN pg_class s ON s.oid = owned.objid AND s.relkind = 'S'
JOIN pg_depend used ON used.refclassid = 'pg_class'::regclass AND used.refobjid = s.oid
                       AND used.classid = 'pg_attrdef'::regclass
JOIN pg_attrdef f ON f.oid = used.objid JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
JOIN pg_class c ON c.oid = f.adrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE owned.classid = 'pg_class'::regclass AND owned.refclassid = 'pg_class'::regclass AND owned.deptype IN ('a', 'i')
  AND owned.refobjid = ANY (%(oids)s::regclass[]::oid[]) AND c.oid <> ALL (%(oids)s::regclass[]::oid[])
ORDER BY 1, 2, 3
"""
_POLICIES = """
SELECT n.nspname, c.relname, p.polname,
       format('CREATE POLICY %%I ON %%s AS %%s FOR %%s TO %%s', p.polname, c.oid::regclass,
              CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
              CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE'
                            ELSE 'ALL' END,
              (SELECT string_agg(CASE WHEN role = 0 THEN 'PUBLIC' ELSE role::regrole::text END, ', ')
               FROM unnest(p.polroles) role))
       || coalesce(' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')', '')
       || coalesce(' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')', '')
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid <> ALL (%(oids)s::regclass[]::oid[])
  AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid
              AND d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY (%(oids)s::regclass[]::oid[]))
ORDER BY 1, 2, 3
"""
_PUBLICATIONS = """
SELECT n.nspname, c.relname, p.pubname,
       format('ALTER PUBLICATION %%I ADD TABLE ONLY %%s', p.pubname, c.oid::regclass) || {} || {}
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid JOIN pg_class c ON c.oid = r.prrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = ANY (%(oids)s::regclass[]::oid[])
ORDER BY 1, 2, 3
"""
_CONDITIONS = (
    """coalesce((SELECT format(' (%%s)', string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)) FROM pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum = ANY (r.prattrs)), '')""",
    """coalesce(' WHERE (' || pg_get_expr(r.prqual, r.prrelid) || ')', '')""",
)
# Some versions of pg_dump dump them with the table.
_STATISTICS = """
SELECT n.nspname, c.relname, s.stxname, overlay(pg_get_statisticsobjdef(s.oid) PLACING 'CREATE STATISTICS IF NOT EXISTS'
                                                FROM 1 FOR length('CREATE STATISTICS'))
FROM pg_statistic_ext s JOIN pg_class c ON c.oid = s.stxrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = ANY (%(oids)s::regclass[]::oid[])
ORDER BY 1, 2, 3
"""
_CONTENTS = """
SELECT n.nspname, c.relname, NULL, 'REFRESH MATERIALIZED VIEW ' || c.oid::regclass
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND c.relispopulated AND c.oid = ANY (%(oids)s::regclass[]::oid[])
ORDER BY c.oid
"""
# An object is dropped with one that it depends on; an internal part of another object drops that, too.
_DEPENDENTS = """
WITH RECURSIVE own AS (SELECT unnest(%(oids)s::regclass[]::oid[]) AS oid), dropped AS (
    SELECT 'pg_class'::regclass::oid AS classid, oid AS objid, 0 AS objsubid FROM own
    UNION
    SELECT next.* FROM dropped f CROSS JOIN LATERAL (
        SELECT d.classid, d.objid, d.objsubid FROM pg_depend d
        WHERE d.refclassid = f.classid AND d.refobjid = f.objid AND f.objsubid IN (0, d.refobjsubid)
          AND d.deptype IN ('n', 'a', 'i')
        UNION ALL
        SELECT d.refclassid, d.refobjid, d.refobjsubid FROM pg_depend d
        WHERE d.classid = f.classid AND d.objid = f.objid AND d.deptype = 'i') next
), homes AS (
    SELECT f.*, CASE f.classid
        WHEN 'pg_class'::regclass THEN coalesce(
            (SELECT indrelid FROM pg_index WHERE indexrelid = objid),
            (SELECT d.refobjid FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
             WHERE d.classid = f.classid AND d.objid = f.objid AND d.refclassid = 'pg_class'::regclass
               AND d.deptype IN ('a', 'i') LIMIT 1), objid)
        WHEN 'pg_constraint'::regclass THEN (SELECT conrelid FROM pg_constraint WHERE oid = objid)
        WHEN 'pg_trigger'::regclass THEN (SELECT tgrelid FROM pg_trigger WHERE oid = objid)
        WHEN 'pg_attrdef'::regclass THEN (SELECT adrelid FROM pg_attrdef WHERE oid = objid)
        WHEN 'pg_rewrite'::regclass THEN (SELECT ev_class FROM pg_rewrite WHERE oid = objid)
        WHEN 'pg_policy'::regclass THEN (SELECT polrelid FROM pg_policy WHERE oid = objid)
        WHEN 'pg_statistic_ext'::regclass THEN (SELECT stxrelid FROM pg_statistic_ext WHERE oid = objid)
        WHEN 'pg_type'::regclass THEN (SELECT coalesce(nullif(t.typrelid, 0), e.typrelid) FROM pg_type t
                                       LEFT JOIN pg_type e ON e.oid = t.typelem WHERE t.oid = objid)
    END AS home FROM dropped f
)
SELECT DISTINCT i.type, i.identity, a.type, a.object_names, a.object_args
FROM homes h CROSS JOIN LATERAL pg_identify_object(h.classid, h.objid, h.objsubid) i
CROSS JOIN LATERAL pg_identify_object_as_address(h.classid, h.objid, h.objsubid) a
WHERE coalesce(h.home NOT IN (SELECT oid FROM own), true)
  -- TOAST tables; before version 14 they and sequences have types, too.
  AND NOT (h.classid IN ('pg_class'::regclass, 'pg_type'::regclass)
           AND coalesce((SELECT relkind IN ('t', 'S') FROM pg_class WHERE oid = h.home), false))
  AND h.classid NOT IN ('pg_publication_rel'::regclass, 'pg_policy'::regclass, 'pg_attrdef'::regclass)
  AND NOT (h.classid = 'pg_constraint'::regclass AND (SELECT contype FROM pg_constraint WHERE oid = h.objid) = 'f')
  AND NOT (h.classid = 'pg_trigger'::regclass AND (SELECT tgisinternal FROM pg_trigger WHERE oid = h.objid))
ORDER BY 1, 2
"""
