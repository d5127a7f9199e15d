"""The declared roles and their rights (guide: Security, Access Control)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tmi_ops.errors import SettingsError
from tmi_ops.postgres.versions import READ_ALL_DATA
from tmi_ops.settings.purposes import READS_ALL, rights_of

NAME_VARIABLE = "TMI_OPS_ROLE_NAME_"
SCHEMA = "public"

TABLE_READ = frozenset({"SELECT"})
TABLE_WRITE = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
SEQUENCE_READ = frozenset({"SELECT"})
SEQUENCE_USE = frozenset({"SELECT", "USAGE"})
NOTHING: frozenset[str] = frozenset()

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$-]{0,62}")


class RoleKind(StrEnum):
    """What a role is for; in capitals it is part of variable names."""

    OWNER = "owner"
    APP = "app"
    READONLY = "readonly"
    BACKUP = "backup"
    MONITOR = "monitor"

    @property
    def purpose(self) -> str:
        return _PURPOSES[self]

    @property
    def password_variable(self) -> str:
        return f"TMI_OPS_ROLE_PASSWORD_{self.upper()}"


_PURPOSES = {
    RoleKind.OWNER: "owns and migrates the database",
    RoleKind.APP: "TMI itself uses to read and write rows",
    RoleKind.READONLY: "people and reports use to read rows",
    RoleKind.BACKUP: "takes backups and receives WAL",
    RoleKind.MONITOR: "runs tmi-ops health: reads statistics, but no rows",
}


@dataclass(frozen=True)
class DeclaredRole:
    """A declared role. Each logs in with a SCRAM password; none is a superuser.

    Attributes:
        member_of: predefined roles that it is a member of.
        tables: privileges on every present and future table and view of the schema.
        sequences: privileges on every present and future sequence.
        schema_usage: whether it needs USAGE on the schema granted.
        settings: settings of its sessions.
    """

    kind: RoleKind
    name: str
    replication: bool = False
    member_of: frozenset[str] = NOTHING
    tables: frozenset[str] = NOTHING
    sequences: frozenset[str] = NOTHING
    schema_usage: bool = False
    settings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class DeclaredAccess:
    """All declared roles, for one database and schema."""

    database: str
    roles: tuple[DeclaredRole, ...]
    schema: str = SCHEMA

    @property
    def owner(self) -> DeclaredRole:
        return self.of(RoleKind.OWNER)

    def of(self, kind: RoleKind) -> DeclaredRole:
        return next(role for role in self.roles if role.kind is kind)

    @property
    def by_name(self) -> Mapping[str, DeclaredRole]:
        return {role.name: role for role in self.roles}


def declared_access(database: str, major: int, variables: Mapping[str, str] | None = None) -> DeclaredAccess:
    """The roles of a database on a server of version `major`.

    Args:
        variables: TMI_OPS_ROLE_NAME_<ROLE> overrides the name `tmi_<role>`.

    Raises:
        SettingsError: a name is invalid, or two roles have the same.
    """
    names = {kind: role_name(kind, variables or {}) for kind in RoleKind}
    for kind, name in names.items():
        same = [other for other in RoleKind if names[other] == name and other is not kind]
        if same:
            raise SettingsError(
                f"The roles {kind} and {same[0]} have the same name: {name}.",
                hint=f"set {NAME_VARIABLE}{kind.upper()} or {NAME_VARIABLE}{same[0].upper()} to another name",
            )
    return DeclaredAccess(
        database,
        (
            _at_work(RoleKind.OWNER, names, major),
            DeclaredRole(
                RoleKind.APP, names[RoleKind.APP], tables=TABLE_WRITE, sequences=SEQUENCE_USE, schema_usage=True
            ),
            DeclaredRole(
                RoleKind.READONLY,
                names[RoleKind.READONLY],
                tables=TABLE_READ,
                sequences=SEQUENCE_READ,
                schema_usage=True,
                settings=(("default_transaction_read_only", "on"),),
            ),
            _at_work(RoleKind.BACKUP, names, major),
            _at_work(RoleKind.MONITOR, names, major),
        ),
    )


def _at_work(kind: RoleKind, names: Mapping[RoleKind, str], major: int) -> DeclaredRole:
    """A role of tmi_ops itself, with the rights that its purposes need."""
    rights = rights_of(kind)
    # Before 14 there is no pg_read_all_data, so SELECT is granted on each table.
    granted = rights.reads_all and major < READ_ALL_DATA
    reads_all = (READS_ALL,) if rights.reads_all and not granted else ()
    return DeclaredRole(
        kind,
        names[kind],
        replication=rights.replication,
        member_of=frozenset({*rights.member_of, *reads_all}),
        tables=TABLE_READ if granted else NOTHING,
        sequences=SEQUENCE_READ if granted else NOTHING,
        schema_usage=granted,
    )


def role_name(kind: RoleKind, variables: Mapping[str, str]) -> str:
    variable = f"{NAME_VARIABLE}{kind.upper()}"
    name = variables.get(variable) or f"tmi_{kind}"
    if not _NAME.fullmatch(name) or name.lower().startswith("pg_") or name.lower() in ("public", "none"):
        raise SettingsError(
            f"{name!r} in {variable} is not a valid role name.",
            hint="use at most 63 letters, digits, _, $ and -, and do not start with pg_",
        )
    return name
