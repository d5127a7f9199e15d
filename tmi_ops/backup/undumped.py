"""What pg_dump does not write: facts to query in a copy, and what a backup leaves behind.

Facts are compared between source and copy like definitions. What is left behind cannot be restored from this backup. It
is reported when the backup is taken, recorded in its manifest, and listed after "except: ..." by its verification.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import psycopg
from psycopg import sql
from pydantic import BaseModel, ConfigDict

FactKind = Literal["extension version", "collation version", "populated", "large object"]
# Facts that may differ on another server: they are reported, but do not fail a verification.
OF_THE_SERVER: frozenset[FactKind] = frozenset({"extension version", "collation version"})


class Fact(BaseModel):
    """One fact about one object that no statement of a dump expresses."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: FactKind
    name: tuple[str, ...]
    value: str

    @property
    def of_data(self) -> bool:
        """Whether it concerns data, which a schema-only dump lacks."""
        return self.kind in ("large object", "populated")


_FACTS = """
SELECT 'extension version', ARRAY[extname::text], extversion FROM pg_extension
UNION ALL
SELECT 'collation version', ARRAY[n.nspname::text, c.collname::text], c.collversion
FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
WHERE c.collversion IS NOT NULL AND n.nspname NOT IN ('pg_catalog', 'information_schema')
UNION ALL
SELECT 'populated', ARRAY[n.nspname::text, c.relname::text], c.relispopulated::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm'
UNION ALL
SELECT 'large object', ARRAY[l.oid::text], concat_ws(', ',
         'owner ' || pg_get_userbyid(l.lomowner),
         (SELECT 'rights ' || string_agg(concat(CASE g.grantee WHEN 0 THEN 'PUBLIC'
                                                ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
                                                '=', g.privilege_type, CASE WHEN g.is_grantable THEN '*' END),
                                         ' ' ORDER BY pg_get_userbyid(g.grantee), g.privilege_type)
          FROM aclexplode(l.lomacl) g),
         'comment ' || obj_description(l.oid, 'pg_largeobject'))
FROM pg_largeobject_metadata l
"""
_LEFT_BEHIND = """
SELECT format('index %s is not valid (REINDEX or drop it)', i.indexrelid::regclass)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE NOT i.indisvalid AND c.relkind = 'i'
UNION ALL
SELECT DISTINCT format('triggers of foreign keys on %s are disabled or always enabled; a copy has them as usual',
                       t.tgrelid::regclass)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE t.tgisinternal AND t.tgenabled <> 'O' AND t.tgparentid = 0
  AND NOT EXISTS (SELECT FROM pg_constraint p WHERE p.oid = t.tgconstraint AND p.contype = 't')
UNION ALL
SELECT format('subscription %I comes back disabled; enable it on the new server', subname)
FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND subenabled
"""
_NO_SUPERUSER = """
SELECT format('subscription %I is left out: reading it needs a superuser', subname)
FROM pg_stat_subscription s JOIN pg_database d ON d.datname = current_database()
WHERE NOT has_table_privilege('pg_catalog.pg_subscription', 'SELECT')
UNION ALL
SELECT format('the options of the user mapping for %I on server %I are left out: %I may not read them',
              usename, srvname, current_user)
FROM pg_user_mappings WHERE umoptions IS NULL AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
"""
# pg_dump includes rows of an extension's table only if the extension marks it so, and then only those it names.
_EXTENSION_TABLES = """
SELECT e.extname, n.nspname, c.relname
FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid JOIN pg_class c ON c.oid = d.objid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
  AND c.relkind = 'r' AND (e.extconfig IS NULL OR NOT c.oid = ANY (e.extconfig))
"""


def read_facts(connection: psycopg.Connection[Any]) -> tuple[Fact, ...]:
    """The facts of the connected database; search_path must be pinned to pg_catalog."""
    rows = connection.execute(_FACTS).fetchall()
    return tuple(Fact(kind=kind, name=tuple(name), value=value) for kind, name, value in rows)


def left_behind(connection: psycopg.Connection[Any]) -> tuple[str, ...]:
    """What a dump by this connection's role would leave out, one sentence each; search_path must be pinned."""
    return tuple(sorted(_left_behind(connection)))


def _left_behind(connection: psycopg.Connection[Any]) -> Iterator[str]:
    readable = connection.execute("SELECT has_table_privilege('pg_catalog.pg_subscription', 'SELECT')").fetchone()
    queries = _LEFT_BEHIND.split("UNION ALL")
    for query in queries if readable and readable[0] else queries[:-1]:
        for (sentence,) in connection.execute(query.encode()).fetchall():
            yield sentence
    for (sentence,) in connection.execute(_NO_SUPERUSER).fetchall():
        yield sentence
    for extension, schema, table in connection.execute(_EXTENSION_TABLES).fetchall():
        name = sql.Identifier(schema, table)
        try:
            with connection.transaction():
                row = connection.execute(sql.SQL("SELECT EXISTS (SELECT FROM ONLY {})").format(name)).fetchone()
        except psycopg.errors.InsufficientPrivilege:
            yield f"rows of {schema}.{table}, if there are any: the table belongs to the extension {extension}"
            continue
        if row and row[0]:
            yield f"rows of {schema}.{table}: the table belongs to the extension {extension}, which keeps no rows"
