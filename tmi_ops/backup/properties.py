"""The properties of the database itself, not of anything in it: owner, locale, settings, grants, comment.

pg_dump writes them only together with the database's name. We keep them as data and compose the statements for a
database of any name. `database.sql` in the store has the same for manual restores: a psql script whose variable `db`
names the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import psycopg
from psycopg import sql
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tmi_ops.backup.roles import Name, Setting, Text, setting
from tmi_ops.postgres.versions import ICU_RULES, LOCALE_PROVIDER, PROVIDERS_LOCALE, since

_PSQL_VARIABLE = sql.SQL(':"db"')
Provider = Literal["libc", "icu", "builtin"]
_PROVIDERS: dict[str, Provider] = {"c": "libc", "i": "icu", "b": "builtin"}
# Source: https://www.postgresql.org/docs/current/catalog-pg-database.html (15: ICU; 16: rules; 17: datlocale)
_LOCALE_COLUMNS = (
    (since(PROVIDERS_LOCALE), "datlocprovider, datlocale, daticurules, datcollversion"),
    (since(ICU_RULES), "datlocprovider, daticulocale, daticurules, datcollversion"),
    (since(LOCALE_PROVIDER), "datlocprovider, daticulocale, NULL, datcollversion"),
    (0, "'c', NULL, NULL, NULL"),
)
# These load code into the server; only a person may set them for a copy.
LOADS_CODE = frozenset(
    {
        "dynamic_library_path",
        "extension_control_path",
        "jit_provider",
        "local_preload_libraries",
        "oauth_validator_libraries",
        "session_preload_libraries",
        "shared_preload_libraries",
    }
)


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class DatabaseGrant(_Fact):
    """A right on the database. `grantee` None: PUBLIC."""

    grantee: Name | None
    privilege: Annotated[str, StringConstraints(pattern=r"^(CREATE|CONNECT|TEMPORARY)$")]
    grantable: bool = False


class DatabaseSetting(_Fact):
    """`ALTER DATABASE SET`, or with a role `ALTER ROLE IN DATABASE SET`."""

    role: Name | None
    setting: Setting


class DatabaseProperties(_Fact):
    """The database itself. `locale` is for ICU or the builtin provider; `grants` None: PostgreSQL's default ones."""

    owner: Name
    encoding: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,32}$")] | None = None
    provider: Provider = "libc"
    collation: Text | None = None
    ctype: Text | None = None
    locale: Text | None = None
    icu_rules: Text | None = None
    collation_version: Text | None = None
    tablespace: Name | None = None
    connection_limit: Annotated[int, Field(ge=-2)] = -1
    comment: Text | None = None
    grants: tuple[DatabaseGrant, ...] | None = None
    settings: tuple[DatabaseSetting, ...] = ()


def read_properties(connection: psycopg.Connection[Any]) -> DatabaseProperties:
    """The properties of the connected database."""
    version = connection.info.server_version
    locale_columns = next(columns for first, columns in _LOCALE_COLUMNS if version >= first)
    row = connection.execute(
        f"""
        SELECT pg_get_userbyid(d.datdba), pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, t.spcname,
               d.datconnlimit, shobj_description(d.oid, 'pg_database'), d.datacl IS NULL, {locale_columns}
        FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE d.datname = current_database()
        """.encode()  # noqa: S608 - of our own words
    ).fetchone()
    if row is None:  # the connected database always has its row
        raise AssertionError
    owner, encoding, collation, ctype, tablespace, limit, comment, default_grants, *locale_facts = row
    provider, locale, rules, collation_version = locale_facts
    return DatabaseProperties(
        owner=owner,
        encoding=encoding,
        provider=_PROVIDERS[provider],
        collation=collation,
        ctype=ctype,
        locale=locale,
        icu_rules=rules,
        collation_version=collation_version,
        tablespace=tablespace,
        connection_limit=limit,
        comment=comment,
        grants=None if default_grants else _grants(connection),
        settings=_settings(connection),
    )


def database_script(properties: DatabaseProperties, connection: psycopg.Connection[Any]) -> bytes:
    """The psql script that sets these properties on the database named by `db`."""
    statements = property_statements(properties, _PSQL_VARIABLE)
    return "".join(statement.as_string(connection) + ";\n" for statement in statements).encode()


def property_statements(properties: DatabaseProperties, database: sql.Composable) -> Iterator[sql.Composed]:
    """The statements that set these properties on `database`, without the settings that load code."""
    yield sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, sql.Identifier(properties.owner))
    if properties.connection_limit >= 0:
        limit = sql.Literal(properties.connection_limit)
        yield sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(database, limit)
    if properties.comment is not None:
        yield sql.SQL("COMMENT ON DATABASE {} IS {}").format(database, sql.Literal(properties.comment))
    if properties.grants is not None:
        yield from _grant_statements(properties, database)
    for item in properties.settings:
        if item.setting.name.lower() not in LOADS_CODE:
            yield setting_statement(item.setting, role=item.role, database=database)


def setting_statement(item: Setting, *, role: str | None, database: sql.Composable | None) -> sql.Composed:
    """`ALTER ROLE ... IN DATABASE ... SET`, or the form for a role alone or a database alone."""
    if role is None:
        target = sql.SQL("ALTER DATABASE {}").format(database or sql.SQL(""))
    elif database is None:
        target = sql.SQL("ALTER ROLE {}").format(sql.Identifier(role))
    else:
        target = sql.SQL("ALTER ROLE {} IN DATABASE {}").format(sql.Identifier(role), database)
    values = sql.SQL(", ").join(sql.Literal(value) for value in item.values)
    return sql.SQL("{} SET {} TO {}").format(target, sql.Identifier(*item.name.split(".")), values)


def _grant_statements(properties: DatabaseProperties, database: sql.Composable) -> Iterator[sql.Composed]:
    owner = sql.Identifier(properties.owner)
    yield sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC, {}").format(database, owner)
    for grant in properties.grants or ():
        yield sql.SQL("GRANT {} ON DATABASE {} TO {}{}").format(
            sql.SQL(grant.privilege),
            database,
            sql.SQL("PUBLIC") if grant.grantee is None else sql.Identifier(grant.grantee),
            sql.SQL(" WITH GRANT OPTION" if grant.grantable else ""),
        )


def _grants(connection: psycopg.Connection[Any]) -> tuple[DatabaseGrant, ...]:
    rows = connection.execute(
        """
        SELECT CASE g.grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(g.grantee) END, g.privilege_type,
               bool_or(g.is_grantable)
        FROM pg_database d, aclexplode(d.datacl) g WHERE d.datname = current_database()
        GROUP BY 1, 2 ORDER BY 1 NULLS FIRST, 2
        """
    ).fetchall()
    return tuple(DatabaseGrant(grantee=who, privilege=what, grantable=on) for who, what, on in rows)


def _settings(connection: psycopg.Connection[Any]) -> tuple[DatabaseSetting, ...]:
    rows = connection.execute(
        """
        SELECT CASE s.setrole WHEN 0 THEN NULL ELSE pg_get_userbyid(s.setrole) END, unnest(s.setconfig)
        FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
        WHERE d.datname = current_database() ORDER BY 1 NULLS FIRST, 2
        """
    ).fetchall()
    return tuple(DatabaseSetting(role=role, setting=setting(assignment)) for role, assignment in rows)
