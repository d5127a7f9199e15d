"""Creates the roles that a backup refers to: owners and grantees must exist before its dump can be restored."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import psycopg
from psycopg import sql

from tmi_ops.backup.properties import LOADS_CODE, setting_statement
from tmi_ops.backup.roles import Membership, ParameterGrant, Role, Roles
from tmi_ops.errors import DatabaseError, first_line
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import Report
from tmi_ops.settings import PostgresSettings

# Members can reach what only a superuser should: the server's files, programs, and all rows.
POWERFUL_ROLES = frozenset(
    {
        "pg_checkpoint",
        "pg_create_subscription",
        "pg_execute_server_program",
        "pg_maintain",
        "pg_monitor",
        "pg_read_all_data",
        "pg_read_all_settings",
        "pg_read_all_stats",
        "pg_read_server_files",
        "pg_signal_autovacuum_worker",
        "pg_signal_backend",
        "pg_stat_scan_tables",
        "pg_use_reserved_connections",
        "pg_write_all_data",
        "pg_write_server_files",
    }
)


@dataclass(frozen=True)
class RoleStatement:
    """One statement, and the role it concerns."""

    role: str
    statement: sql.Composed


def role_statements(roles: Roles, existing: Collection[str]) -> Iterator[RoleStatement]:
    """The statements that create the roles not in `existing`; existing roles are not changed.

    GRANTED BY is left out: since PostgreSQL 16 a grantor must hold ADMIN OPTION, which the source's bootstrap superuser
    has implicitly, but a role of the same name elsewhere does not. Settings that load code are left out.
    """
    made = [role for role in roles.roles if role.name not in existing]
    for role in made:
        yield RoleStatement(role.name, _create(role))
    for role in made:
        if role.comment is not None:
            comment = sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(role.name), sql.Literal(role.comment))
            yield RoleStatement(role.name, comment)
        for item in role.settings:
            if item.name.lower() not in LOADS_CODE:
                yield RoleStatement(role.name, setting_statement(item, role=role.name, database=None))
    for membership in roles.memberships:
        if membership.member not in existing:
            yield RoleStatement(membership.member, _grant(membership))
    for right in roles.parameter_grants:
        if right.grantee is not None and right.grantee not in existing:
            yield RoleStatement(right.grantee, _grant_parameter(right))


def without_power(roles: Roles) -> Roles:
    """The same roles as ordinary users: no superusers, and no members of powerful roles."""
    return Roles(
        roles=tuple(
            role.model_copy(
                update={
                    "superuser": False,
                    "create_role": False,
                    "create_db": False,
                    "replication": False,
                    "bypass_rls": False,
                }
            )
            for role in roles.roles
        ),
        memberships=tuple(item for item in roles.memberships if item.role not in POWERFUL_ROLES),
    )


@dataclass(frozen=True)
class RestoredRoles:
    """The created roles, and one sentence for each statement that the server refused."""

    created: tuple[str, ...]
    refused: tuple[str, ...]


def restore_roles(address: PostgresSettings, roles: Roles, report: Report) -> RestoredRoles:
    """Create the roles that the server lacks. Refused statements are noted."""
    refused = []
    with connect(address) as connection:
        existing = {name for (name,) in connection.execute("SELECT rolname FROM pg_catalog.pg_roles").fetchall()}
        for item in role_statements(roles, existing):
            try:
                connection.execute(item.statement)
            except psycopg.Error as error:
                refused.append(f"The server refused a statement for the role {item.role}: {first_line(error)}")
                report.note(refused[-1])
        now = {name for (name,) in connection.execute("SELECT rolname FROM pg_catalog.pg_roles").fetchall()}
    created = sorted(role.name for role in roles.roles if role.name in now - existing)
    return RestoredRoles(tuple(created), tuple(refused))


def drop_roles(address: PostgresSettings, names: Collection[str], report: Report) -> None:
    """Drop roles that a failed restore created. Failures are only noted, so that they do not hide its error."""
    kept = []
    try:
        with connect(address) as connection:
            for name in names:
                try:
                    connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
                except psycopg.Error:
                    kept.append(name)
    except DatabaseError:
        kept = list(names)
    if kept:
        report.note(f"These roles were created and could not be dropped again: {', '.join(kept)}.")


def _create(role: Role) -> sql.Composed:
    attributes = (
        ("SUPERUSER", role.superuser),
        ("INHERIT", role.inherit),
        ("CREATEROLE", role.create_role),
        ("CREATEDB", role.create_db),
        ("LOGIN", role.login),
        ("REPLICATION", role.replication),
        ("BYPASSRLS", role.bypass_rls),
    )
    # Off is the default of all attributes except INHERIT, and naming them may need privileges.
    written = [word if on else f"NO{word}" for word, on in attributes if on or word == "INHERIT"]
    words: list[sql.Composable] = [sql.SQL(word) for word in written]
    if role.connection_limit >= 0:
        words.append(sql.SQL("CONNECTION LIMIT {}").format(sql.Literal(role.connection_limit)))
    if role.password is not None:
        words.append(sql.SQL("PASSWORD {}").format(sql.Literal(role.password)))
    if role.valid_until is not None:
        words.append(sql.SQL("VALID UNTIL {}").format(sql.Literal(role.valid_until)))
    return sql.SQL("CREATE ROLE {} WITH {}").format(sql.Identifier(role.name), sql.SQL(" ").join(words))


def _grant(membership: Membership) -> sql.Composed:
    options = [sql.SQL("ADMIN OPTION")] if membership.admin and membership.inherit is None else []
    if membership.inherit is not None:
        truths = {"ADMIN": membership.admin, "INHERIT": membership.inherit, "SET": membership.set is not False}
        options = [sql.SQL(f"{word} {'TRUE' if on else 'FALSE'}") for word, on in truths.items()]
    grant = sql.SQL("GRANT {} TO {}").format(sql.Identifier(membership.role), sql.Identifier(membership.member))
    return grant + sql.SQL(" WITH ") + sql.SQL(", ").join(options) if options else grant


def _grant_parameter(right: ParameterGrant) -> sql.Composed:
    return sql.SQL("GRANT {} ON PARAMETER {} TO {}{}").format(
        sql.SQL(right.privilege),
        sql.Identifier(*right.parameter.split(".")),
        sql.SQL("PUBLIC") if right.grantee is None else sql.Identifier(right.grantee),
        sql.SQL(" WITH GRANT OPTION" if right.grantable else ""),
    )
