"""The server's roles, their settings and memberships as data: no statement of a dump is kept to be executed later.

`globals.sql` in the store is for manual restores. tmi_ops applies these facts (recovery/roles.py), with one composed
statement for each.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import psycopg
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tmi_ops.postgres.versions import MEMBERSHIP_OPTIONS, PARAMETER_RIGHTS, since

MAX_NAME = 255  # characters; NAMEDATALEN is 64 bytes, but builds with more exist
Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME, pattern=r"^[^\x00]+$")]
Text = Annotated[str, StringConstraints(max_length=1 << 20, pattern=r"^[^\x00]*$")]
# As pg_authid stores it; a plain-text password is not a verifier.
_VERIFIER = r"^(SCRAM-SHA-256\$[!-~]+|md5[0-9a-f]{32})$"
Verifier = Annotated[str, StringConstraints(max_length=1024, pattern=_VERIFIER)]

# Stored as a list of quoted names (PostgreSQL: GUC_LIST_QUOTE).
LIST_SETTINGS = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Setting(_Fact):
    """`SET name TO values`: one value, or for list settings (search_path) one per name."""

    name: Name
    values: tuple[Text, ...] = Field(min_length=1)


class Role(_Fact):
    """A role as pg_authid describes it. `password` is its verifier, None if there is none or it was not read."""

    name: Name
    superuser: bool = False
    inherit: bool = True
    create_role: bool = False
    create_db: bool = False
    login: bool = False
    replication: bool = False
    bypass_rls: bool = False
    connection_limit: Annotated[int, Field(ge=-1)] = -1
    password: Verifier | None = None
    valid_until: Annotated[str, StringConstraints(max_length=64)] | None = None
    settings: tuple[Setting, ...] = ()
    comment: Text | None = None


class Membership(_Fact):
    """`member` belongs to `role`. `inherit` and `set` exist since PostgreSQL 16; None: the server's default."""

    role: Name
    member: Name
    admin: bool = False
    inherit: bool | None = None
    set: bool | None = None


class ParameterGrant(_Fact):
    """The right to SET or ALTER SYSTEM a parameter (PostgreSQL 15 and later). `grantee` None: PUBLIC."""

    parameter: Name
    grantee: Name | None
    privilege: Annotated[str, StringConstraints(pattern=r"^(SET|ALTER SYSTEM)$")]
    grantable: bool = False


class Roles(_Fact):
    """What a database's objects and grants refer to, but the database itself does not hold."""

    roles: tuple[Role, ...] = ()
    memberships: tuple[Membership, ...] = ()
    parameter_grants: tuple[ParameterGrant, ...] = ()


def read_roles(connection: psycopg.Connection[Any], *, with_passwords: bool) -> Roles:
    """Every role of the server except PostgreSQL's own (`pg_...`).

    Args:
        with_passwords: also read the verifiers, which needs the right to read pg_authid.
    """
    version = connection.info.server_version
    return Roles(
        roles=tuple(_roles(connection, with_passwords=with_passwords)),
        memberships=tuple(_memberships(connection, version)),
        parameter_grants=tuple(_parameter_grants(connection)) if version >= since(PARAMETER_RIGHTS) else (),
    )


def setting(assignment: str) -> Setting:
    """Parse a `name=value` of the catalogue (pg_db_role_setting, pg_proc.proconfig)."""
    name, value = assignment.split("=", 1)
    return Setting(name=name, values=tuple(names_of(value)) if name.lower() in LIST_SETTINGS else (value,))


def names_of(value: str) -> list[str]:
    """The names of a stored list such as `"$user", public`; one empty name for an empty list.

    Source: SplitGUCList in PostgreSQL's src/bin/pg_dump/dumputils.c
    """
    names, position, length = [], 0, len(value)
    while position < length:
        if value[position] in " \t\n,":
            position += 1
        elif value[position] == '"':
            end = position + 1
            while end < length and (value[end] != '"' or value[end + 1 : end + 2] == '"'):
                end += 2 if value[end] == '"' else 1
            names.append(value[position + 1 : end].replace('""', '"'))
            position = end + 1
        else:
            end = position
            while end < length and value[end] not in ",\n\t ":
                end += 1
            names.append(value[position:end])
            position = end
    return names or [""]


def _roles(connection: psycopg.Connection[Any], *, with_passwords: bool) -> list[Role]:
    passwords: dict[str, str | None] = {}
    if with_passwords:
        passwords = dict(connection.execute("SELECT rolname, rolpassword FROM pg_catalog.pg_authid").fetchall())
    rows = connection.execute(
        """
        SELECT r.rolname, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin, r.rolreplication,
               r.rolbypassrls, r.rolconnlimit, r.rolvaliduntil::text, pg_catalog.shobj_description(r.oid, 'pg_authid'),
               (SELECT s.setconfig FROM pg_catalog.pg_db_role_setting s
                WHERE s.setrole = r.oid AND s.setdatabase = 0)
        FROM pg_catalog.pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY r.rolname
        """
    ).fetchall()
    return [
        Role(
            name=name,
            superuser=superuser,
            inherit=inherit,
            create_role=create_role,
            create_db=create_db,
            login=login,
            replication=replication,
            bypass_rls=bypass_rls,
            connection_limit=max(limit, -1),
            password=password if re.match(_VERIFIER, password := passwords.get(name) or "") else None,
            valid_until=until,
            settings=tuple(setting(assignment) for assignment in config or ()),
            comment=comment,
        )
        for (name, superuser, inherit, create_role, create_db, login, replication, bypass_rls, limit, until, comment,
             config) in rows
    ]  # fmt: skip


def _memberships(connection: psycopg.Connection[Any], version: int) -> list[Membership]:
    options = (
        "bool_or(m.inherit_option), bool_or(m.set_option)"
        if version >= since(MEMBERSHIP_OPTIONS)
        else "NULL::boolean, NULL::boolean"
    )
    rows = connection.execute(
        f"""
        SELECT r.rolname, u.rolname, bool_or(m.admin_option), {options}
        FROM pg_catalog.pg_auth_members m
        JOIN pg_catalog.pg_roles r ON r.oid = m.roleid JOIN pg_catalog.pg_roles u ON u.oid = m.member
        WHERE u.rolname !~ '^pg_' GROUP BY 1, 2 ORDER BY 1, 2
        """.encode()  # noqa: S608 - of our own words
    ).fetchall()
    return [
        Membership(role=role, member=member, admin=admin, inherit=inherit, set=set_)
        for role, member, admin, inherit, set_ in rows
    ]


def _parameter_grants(connection: psycopg.Connection[Any]) -> list[ParameterGrant]:
    rows = connection.execute(
        """
        SELECT p.parname, CASE g.grantee WHEN 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(g.grantee) END,
               g.privilege_type, g.is_grantable
        FROM pg_catalog.pg_parameter_acl p, pg_catalog.aclexplode(p.paracl) g
        WHERE g.grantee <> 10 ORDER BY 1, 2, 3
        """
    ).fetchall()
    return [
        ParameterGrant(parameter=name, grantee=grantee, privilege=privilege, grantable=grantable)
        for name, grantee, privilege, grantable in rows
    ]
