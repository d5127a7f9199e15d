"""What belongs to the database itself and not to anything in it: owner, settings, grants, comment.

pg_dump keeps these only together with the database's name. We keep them as a small psql script whose variable `db`
names the database they are for, so that a copy under any name gets them back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

_DATABASE = sql.SQL(':"db"')
# Their stored value is a quoted list already (PostgreSQL: GUC_LIST_QUOTE); quoting it again would make it one name.
_LIST_SETTINGS = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)


def database_script(connection: psycopg.Connection[Any]) -> bytes:
    """The psql script that gives the connected database's properties to the database that `db` names."""
    statements = [*_ownership(connection), *_grants(connection), *_settings(connection)]
    lines = [statement.as_string(connection) + ";\n" for statement in statements]
    return "".join(lines).encode()


def _ownership(connection: psycopg.Connection[Any]) -> Iterator[sql.Composed]:
    row = connection.execute(
        """
        SELECT pg_get_userbyid(datdba), datconnlimit, shobj_description(oid, 'pg_database')
        FROM pg_database WHERE datname = current_database()
        """
    ).fetchone()
    if row is None:
        raise AssertionError
    owner, connection_limit, comment = row
    yield sql.SQL("ALTER DATABASE {} OWNER TO {}").format(_DATABASE, sql.Identifier(owner))
    if connection_limit >= 0:
        yield sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(_DATABASE, sql.Literal(connection_limit))
    if comment is not None:
        yield sql.SQL("COMMENT ON DATABASE {} IS {}").format(_DATABASE, sql.Literal(comment))


def _grants(connection: psycopg.Connection[Any]) -> Iterator[sql.Composed]:
    rows = connection.execute(
        """
        SELECT CASE g.grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(g.grantee) END, g.privilege_type, g.is_grantable
        FROM pg_database d, aclexplode(d.datacl) g WHERE d.datname = current_database() ORDER BY 1, 2
        """
    ).fetchall()
    if rows:
        yield sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(_DATABASE)
    for grantee, privilege, is_grantable in rows:
        yield sql.SQL("GRANT {} ON DATABASE {} TO {}{}").format(
            sql.SQL(privilege),
            _DATABASE,
            sql.SQL("PUBLIC") if grantee is None else sql.Identifier(grantee),
            sql.SQL(" WITH GRANT OPTION" if is_grantable else ""),
        )


def _settings(connection: psycopg.Connection[Any]) -> Iterator[sql.Composed]:
    rows = connection.execute(
        """
        SELECT CASE s.setrole WHEN 0 THEN NULL ELSE pg_get_userbyid(s.setrole) END, unnest(s.setconfig)
        FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
        WHERE d.datname = current_database() ORDER BY 1 NULLS FIRST, 2
        """
    ).fetchall()
    for role, assignment in rows:
        name, value = assignment.split("=", 1)
        written: sql.Composable = sql.SQL(value) if name in _LIST_SETTINGS and value else sql.Literal(value)
        target = (
            sql.SQL("ALTER DATABASE {}").format(_DATABASE)
            if role is None
            else sql.SQL("ALTER ROLE {} IN DATABASE {}").format(sql.Identifier(role), _DATABASE)
        )
        yield target + sql.SQL(" SET {} TO ").format(sql.Identifier(*name.split("."))) + written
