"""Checks before the first step that our role has the privileges for all steps of a plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from tmi_ops.postgres.session import SEARCH_PATH
from tmi_ops.schema.operations import Blocked, BuildIndex, CreateDatabase, CreateTable, InsertSeed, MigrationPlan

_OF_OTHERS = """
SELECT c.relname::text, pg_get_userbyid(c.relowner)::text, current_user::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = ANY (%s) AND c.relkind IN ('r', 'p')
  AND NOT pg_has_role(c.relowner, 'USAGE')
ORDER BY 1"""
_MAY_CREATE = "SELECT has_schema_privilege(%s, 'CREATE'), current_user::text"
_MAY_INSERT = "SELECT has_table_privilege(to_regclass(%s), 'INSERT')"


def lacking_createdb(connection: psycopg.Connection[Any], database: str) -> Iterator[Blocked]:
    """The missing privilege to create the database; checked from another database."""
    row = connection.execute(
        "SELECT rolcreatedb OR rolsuper, rolname::text FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    if row is None or not row[0]:
        role = row[1] if row else "the role"
        yield Blocked(
            database, "", f"{role} may not create this database.", f"as a superuser: ALTER ROLE {role} CREATEDB"
        )


def lacking_rights(connection: psycopg.Connection[Any], plan: MigrationPlan) -> Iterator[Blocked]:
    """The missing privileges for these steps, each with the statement that grants it."""
    created = {one.table for one in plan.operations if isinstance(one, CreateTable)}
    altered = {
        one.table
        for one in plan.operations
        if not isinstance(one, CreateDatabase | CreateTable | InsertSeed) and one.table not in created
    }
    for table, owner, role in connection.execute(_OF_OTHERS, (SEARCH_PATH, sorted(altered))).fetchall():
        yield Blocked(table, "", f"It belongs to {owner}, so {role} may not alter it.", f"run this as {owner}")
    if any(isinstance(one, CreateTable | BuildIndex) for one in plan.operations):
        may, role = connection.execute(_MAY_CREATE, (SEARCH_PATH,)).fetchone() or (False, "the role")
        if not may:
            how = f"as its owner: GRANT CREATE, USAGE ON SCHEMA {SEARCH_PATH} TO {role}"
            yield Blocked(SEARCH_PATH, "", f"{role} may not create tables and indexes in this schema.", how)
    for seed in (one for one in plan.operations if isinstance(one, InsertSeed) and one.table not in created):
        row = connection.execute(_MAY_INSERT, (seed.table,)).fetchone()
        if row is None or not row[0]:
            how = f"as its owner: GRANT INSERT ON {seed.table} TO the role"
            yield Blocked(seed.table, "", "The role may not insert the rows that TMI needs.", how)
