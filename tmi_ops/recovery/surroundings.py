"""Reads roles and database properties from a fetched backup, and applies the properties to a copy.

Backups store them as data. Backups of earlier releases contain scripts, which are parsed as data.

These contain statements by pg_dumpall and by us. PostgreSQL's parser (libpg_query) parses them, so a value that looks
like a statement stays a value. Anything that is not a role, a membership, a privilege or a setting is left out and
reported.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Any

import postgast
import psycopg
from psycopg import sql
from pydantic import ValidationError

from tmi_ops.backup.logical import GLOBALS_OBJECT, PROPERTIES_OBJECT
from tmi_ops.backup.properties import (
    LOADS_CODE,
    DatabaseGrant,
    DatabaseProperties,
    DatabaseSetting,
    property_statements,
    read_properties,
)
from tmi_ops.backup.roles import Membership, ParameterGrant, Role, Roles, Setting
from tmi_ops.backup.snapshot import pin_text_output
from tmi_ops.backup.surroundings import SURROUNDINGS_OBJECT, Surroundings
from tmi_ops.errors import RecoveryError, first_line
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import Report
from tmi_ops.recovery.fetch import FetchedBackup
from tmi_ops.settings import PostgresSettings

# psql's restricted mode, in scripts of pg_dumpall since August 2025; its key is random, so no value holds it.
_RESTRICTED = re.compile(r"(?:--.*\n|\n)*\\restrict (?P<key>[A-Za-z0-9]+)\n")
_ATTRIBUTES = {
    "superuser": "superuser",
    "inherit": "inherit",
    "createrole": "create_role",
    "createdb": "create_db",
    "canlogin": "login",
    "isreplication": "replication",
    "bypassrls": "bypass_rls",
    "connectionlimit": "connection_limit",
    "password": "password",
    "validUntil": "valid_until",
}
_RIGHTS = {"create": "CREATE", "connect": "CONNECT", "temporary": "TEMPORARY", "temp": "TEMPORARY"}
Refuse = Callable[[str], None]


def parse_roles(script: str, refuse: Refuse) -> Roles:
    """The roles of a `pg_dumpall --roles-only` output.

    Args:
        refuse: called for each statement that is left out.

    Raises:
        RecoveryError: the script cannot be parsed.
    """
    roles: dict[str, dict[str, Any]] = {}
    memberships: list[Membership] = []
    grants: list[ParameterGrant] = []
    for kind, node in _statements(script, "globals.sql"):
        try:
            if kind == "create_role_stmt":
                roles.setdefault(node.role, {"name": node.role, **_attributes(node.options)})
            elif kind == "alter_role_stmt":
                roles.setdefault(node.role.rolename, {"name": node.role.rolename}).update(_attributes(node.options))
            elif kind == "alter_role_set_stmt" and not node.database:
                item = _setting(node.setstmt)
                role = roles.setdefault(node.role.rolename, {"name": node.role.rolename})
                role["settings"] = (*role.get("settings", ()), item)
            elif kind == "comment_stmt" and node.comment:
                roles.setdefault(node.object.string.sval, {"name": node.object.string.sval})["comment"] = node.comment
            elif kind == "grant_role_stmt" and node.is_grant:
                memberships += _memberships(node)
            elif kind == "grant_stmt" and node.is_grant:
                grants += _parameter_grants(node)
            elif kind != "variable_set_stmt":
                refuse(kind)
        except ValidationError as error:
            refuse(f"{kind}: {error.errors()[0]['msg']}")
    made = []
    for facts in roles.values():
        try:
            made.append(Role(**facts))
        except ValidationError as error:
            refuse(f"role {facts['name']!r}: {error.errors()[0]['msg']}")
    return Roles(roles=tuple(made), memberships=tuple(memberships), parameter_grants=tuple(grants))


def parse_properties(script: str, refuse: Refuse) -> DatabaseProperties:
    """The properties in one of our `database.sql` scripts, whose statements refer to `:"db"`.

    Raises:
        RecoveryError: the script cannot be parsed, or names no owner.
    """
    name = f"db_{secrets.token_hex(8)}"
    facts: dict[str, Any] = {}
    grants: list[DatabaseGrant] = []
    settings: list[DatabaseSetting] = []
    revoked = False
    for kind, node in _statements(script.replace(':"db"', name), "database.sql"):
        try:
            if kind == "alter_owner_stmt":
                facts["owner"] = node.newowner.rolename
            elif kind == "alter_database_stmt":
                facts["connection_limit"] = node.options[0].def_elem.arg.integer.ival
            elif kind == "comment_stmt":
                facts["comment"] = node.comment.replace(name, ':"db"')
            elif kind == "grant_stmt":
                revoked = True
                grants += _database_grants(node) if node.is_grant else []
            elif kind in ("alter_database_set_stmt", "alter_role_set_stmt"):
                role = node.role.rolename if kind == "alter_role_set_stmt" else None
                item = _setting(node.setstmt)
                values = tuple(value.replace(name, ':"db"') for value in item.values)
                settings.append(DatabaseSetting(role=role, setting=item.model_copy(update={"values": values})))
            else:
                refuse(kind)
        except ValidationError as error:
            refuse(f"{kind}: {error.errors()[0]['msg']}")
    if revoked:
        facts["grants"] = tuple(grants)
    try:
        return DatabaseProperties(settings=tuple(settings), **facts)
    except ValidationError as error:
        raise RecoveryError(
            f"The backup's database.sql is invalid: {error.errors()[0]['msg']}.",
            hint="restore another backup (`tmi-ops backups`), or this one by hand as RESTORE.md in the store describes",
        ) from None


def _statements(script: str, name: str) -> list[tuple[str, Any]]:
    if restricted := _RESTRICTED.match(script):
        key = restricted["key"]
        script = script.replace(f"\\restrict {key}\n", "", 1).replace(f"\\unrestrict {key}\n", "", 1)
    try:
        tree = postgast.parse(script)
    except postgast.PgQueryError as error:
        raise RecoveryError(
            f"The backup's {name} cannot be parsed: {error}.",
            hint="restore another backup (`tmi-ops backups`), or this one by hand as RESTORE.md in the store describes",
        ) from None
    found = []
    for raw in tree.stmts:
        kind = raw.stmt.WhichOneof("node") or ""
        found.append((kind, getattr(raw.stmt, kind)))
    return found


def _attributes(options: Any) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    for option in options:
        element = option.def_elem
        if (name := _ATTRIBUTES.get(element.defname)) is not None:
            attributes[name] = _value(element.arg)
    return attributes


def _value(node: Any) -> bool | int | str | None:
    kind = node.WhichOneof("node")
    if kind == "boolean":
        return bool(node.boolean.boolval)
    if kind == "integer":
        return int(node.integer.ival)
    return str(node.string.sval) if kind == "string" else None


def _setting(node: Any) -> Setting:
    return Setting(name=node.name, values=tuple(_constant(argument.a_const) for argument in node.args))


def _constant(constant: Any) -> str:
    kind = constant.WhichOneof("val")
    if kind == "ival":
        return str(constant.ival.ival)
    if kind == "fval":
        return str(constant.fval.fval)
    return str(constant.sval.sval)


def _memberships(node: Any) -> list[Membership]:
    options = {option.def_elem.defname: _value(option.def_elem.arg) for option in node.opt}
    return [
        Membership(
            role=granted.access_priv.priv_name,
            member=member.role_spec.rolename,
            admin=options.get("admin") is True,
            inherit=options.get("inherit"),
            set=options.get("set"),
        )
        for granted in node.granted_roles
        for member in node.grantee_roles
    ]


def _grantee(node: Any) -> str | None:
    return node.role_spec.rolename or None


def _parameter_grants(node: Any) -> list[ParameterGrant]:
    return [
        ParameterGrant(
            parameter=parameter.string.sval,
            grantee=_grantee(grantee),
            privilege=privilege.access_priv.priv_name.upper(),
            grantable=node.grant_option,
        )
        for parameter in node.objects
        for privilege in node.privileges
        for grantee in node.grantees
    ]


def _database_grants(node: Any) -> list[DatabaseGrant]:
    return [
        DatabaseGrant(
            grantee=_grantee(grantee),
            privilege=_RIGHTS.get(privilege.access_priv.priv_name, ""),
            grantable=node.grant_option,
        )
        for privilege in node.privileges
        for grantee in node.grantees
    ]


def read_surroundings(fetched: FetchedBackup, report: Report) -> Surroundings:
    """The roles and properties in a backup. Other statements in an older backup's scripts are noted and left out.

    Raises:
        RecoveryError: they cannot be read.
    """
    path = fetched.path(SURROUNDINGS_OBJECT)
    if path.exists():
        try:
            return Surroundings.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise RecoveryError(
                f"{SURROUNDINGS_OBJECT} of the backup is invalid: {'.'.join(map(str, first['loc']))}: {first['msg']}.",
                hint="restore another backup (`tmi-ops backups`)",
            ) from None
    roles = parse_roles(
        fetched.path(GLOBALS_OBJECT).read_bytes().decode(errors="replace"),
        lambda what: report.note(f"Left out of {GLOBALS_OBJECT}: {what}"),
    )
    script = fetched.path(PROPERTIES_OBJECT).read_bytes().decode(errors="replace")
    manifest = fetched.manifest
    properties = parse_properties(script, lambda what: report.note(f"Left out of {PROPERTIES_OBJECT}: {what}"))
    known = {"encoding": manifest.encoding, "collation": manifest.collation, "ctype": manifest.ctype}
    return Surroundings(roles=roles, database=properties.model_copy(update=known))


def apply_properties(address: PostgresSettings, properties: DatabaseProperties, report: Report) -> tuple[str, ...]:
    """Set owner, settings, grants and comment of the database that `address` names, and verify them.

    Returns:
        What could not be set, one sentence each (also noted), such as a property that this server refused.
    """
    refused = []
    with connect(address, "postgres") as connection:
        for statement in property_statements(properties, sql.Identifier(address.database)):
            try:
                connection.execute(statement)
            except psycopg.Error as error:
                refused.append(f"The server refused a property of the database: {first_line(error)}")
    with connect(address) as connection:
        pin_text_output(connection)
        differing = differing_properties(properties, read_properties(connection))
    sentences = (*refused, *(sentence for sentence in differing if not refused or not sentence.startswith("setting")))
    for sentence in sentences:
        report.note(sentence)
    return sentences


def differing_properties(source: DatabaseProperties, copy: DatabaseProperties) -> tuple[str, ...]:
    """The differences between the known properties of the source and the copy's, one sentence each."""
    plain = sorted(set(DatabaseProperties.model_fields) - {"settings", "grants"})
    known = [name for name in plain if name in source.model_fields_set]
    sentences = [
        f"{name.replace('_', ' ')} of the database was {getattr(source, name)}, here it is {getattr(copy, name)}"
        for name in known
        if getattr(source, name) != getattr(copy, name)
    ]
    if source.grants is not None and set(source.grants) != set(copy.grants or ()):
        sentences.append("privileges on the database differ from the source's")
    here = {(item.role, item.setting.name): item.setting.values for item in copy.settings}
    for item in source.settings:
        if here.get((item.role, item.setting.name)) != item.setting.values:
            loads_code = item.setting.name.lower() in LOADS_CODE
            why = "it loads code, so set it yourself" if loads_code else "it is not set here"
            role = f" of {item.role}" if item.role else ""
            sentences.append(f"setting {item.setting.name}{role} in the database: {why}")
    return tuple(sentences)
