"""The roles that tmi_ops logs in as: `init` creates them where it may, `uninit` drops those it created.

They are the backup and monitor roles of the declared access, with exactly the rights declared there, so that
`tmi-ops roles` finds nothing to change in them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.access.declared import RoleKind, role_name
from tmi_ops.access.execution import apply_access
from tmi_ops.access.inspection import Inspection, inspect_access
from tmi_ops.access.passwords import passwords_to_set
from tmi_ops.access.planning import Plan
from tmi_ops.access.rights import lacking_rights
from tmi_ops.access.roles import password_findings, role_findings
from tmi_ops.errors import OpsError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.versions import READ_ALL_DATA
from tmi_ops.progress import Report
from tmi_ops.settings import Purpose, Settings
from tmi_ops.settings.env_file import remove_values
from tmi_ops.settings.sources import read_env_file

# What an earlier release or a person created has another comment, or none, and is never dropped.
MARK = "Created by tmi-ops init; tmi-ops uninit drops it."
PURPOSES: Mapping[RoleKind, Purpose] = {RoleKind.BACKUP: Purpose.BACKUP, RoleKind.MONITOR: Purpose.MONITOR}


@dataclass(frozen=True)
class ServiceRoles:
    """The roles' names, and the plan that creates what is missing of them.

    Attributes:
        missing: roles that do not exist.
        refused: why they cannot be created here; empty: they can.
    """

    names: Mapping[RoleKind, str]
    missing: tuple[str, ...]
    plan: Plan
    refused: str = ""


def are_named(variables: Mapping[str, str]) -> bool:
    """Whether the settings name a login for each purpose, so that there is nothing to create. A POSTGRES_USER that is
    the declared role of backups is one."""
    named = {kind: variables.get(purpose.user_variable) for kind, purpose in PURPOSES.items()}
    if variables.get("POSTGRES_USER") == role_name(RoleKind.BACKUP, variables):
        named[RoleKind.BACKUP] = variables["POSTGRES_USER"]
    return all(named.values())


def plan_roles(inspection: Inspection) -> ServiceRoles:
    """Pure: what would be created, or why nothing can be."""
    facts, declared, known = inspection.facts, inspection.declared, inspection.known
    names = {kind: declared.of(kind).name for kind in PURPOSES}
    drifts = (*role_findings(facts, declared), *password_findings(facts, declared, known, frozenset()))
    plan = Plan(tuple(one for one in drifts if one.subject in names.values()))
    missing = tuple(name for name in names.values() if facts.named(name) is None)
    return ServiceRoles(names, missing, plan, _refusal(inspection, names, plan))


def _refusal(inspection: Inspection, names: Mapping[RoleKind, str], plan: Plan) -> str:
    if inspection.facts.major < READ_ALL_DATA:
        return "before PostgreSQL 14 a role reads only tables that it is granted one by one"
    known = {*inspection.known.file, *inspection.known.environment}
    for kind, name in names.items():
        if inspection.facts.named(name) is not None and kind not in known:
            return f"the role {name} exists, and its password is not known here"
    lacks = lacking_rights(inspection.facts, inspection.declared, plan)
    return f"{inspection.facts.role} lacks {', '.join(lack.right for lack in lacks)}" if lacks else ""


def look_at_roles(settings: Settings, variables: Mapping[str, str]) -> ServiceRoles:
    """Read the server.

    Raises:
        OpsError: it cannot be read.
    """
    with connect(settings.postgres) as connection:
        return plan_roles(inspect_access(connection, settings, variables))


def create_roles(settings: Settings, variables: Mapping[str, str], report: Report) -> dict[str, str]:
    """Create what is missing, in one transaction.

    Returns: the variables to write down, with the passwords.

    Raises:
        OpsError: the roles cannot be created; nothing was.
    """
    with connect(settings.postgres) as connection:
        inspection = inspect_access(connection, settings, variables)
        roles = plan_roles(inspection)
        if roles.refused:
            raise OpsError(
                f"The roles {' and '.join(roles.names.values())} cannot be created: {roles.refused}.",
                hint="create them yourself (docs/access.md) and set TMI_OPS_BACKUP_USER and TMI_OPS_MONITOR_USER, or "
                "run everything as POSTGRES_USER: --no-roles",
            )
        chosen = passwords_to_set(roles.plan.statements, inspection.known, inspection.file)
        apply_access(connection, roles.plan, inspection.declared, chosen, report)
        for name in roles.missing:
            connection.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(name), sql.Literal(MARK)))
    passwords = {**inspection.known.file, **inspection.known.environment, **chosen}
    written: dict[str, str] = {}
    for kind, name in roles.names.items():
        login = PURPOSES[kind]
        written |= {login.user_variable: name, login.password_variable: passwords[kind].get_secret_value()}
    return written


def created_roles(connection: psycopg.Connection[Any]) -> tuple[str, ...]:
    """Those that `init` created on this server, the session's own login left out."""
    rows = connection.execute(
        "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname <> session_user "
        "AND pg_catalog.shobj_description(oid, 'pg_authid') = %s ORDER BY 1",
        (MARK,),
    ).fetchall()
    return tuple(name for (name,) in rows)


def forget_roles(env_file: Path, dropped: Collection[str]) -> None:
    """Remove dropped roles and their passwords from an environment's file: nobody can log in as them any more."""
    known = read_env_file(env_file) if env_file.exists() else {}
    gone = [purpose for purpose in PURPOSES.values() if known.get(purpose.user_variable) in dropped]
    if gone:
        remove_values(env_file, {name for one in gone for name in (one.user_variable, one.password_variable)})
