"""The purposes that tmi_ops connects for, each with its rights. An environment can name a role for each; the default is
POSTGRES_USER.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import SecretStr

from tmi_ops.error_codes import Code
from tmi_ops.errors import SettingsError
from tmi_ops.settings.facts import PostgresSettings


class Purpose(StrEnum):
    """What a session is for; in capitals it is part of variable names."""

    OWNER = "owner"
    BACKUP = "backup"
    RECEIVER = "receiver"
    HEARTBEAT = "heartbeat"
    MONITOR = "monitor"
    RESTORER = "restorer"
    RUNBOOK = "runbook"

    @property
    def need(self) -> Need:
        return PURPOSES[self]

    @property
    def user_variable(self) -> str:
        return f"{PREFIX}{self.upper()}_USER"

    @property
    def password_variable(self) -> str:
        return f"{PREFIX}{self.upper()}_PASSWORD"


@dataclass(frozen=True)
class Rights:
    """What a role may do on the server, and nothing else.

    Attributes:
        owns: it owns the database, its schema and everything in it.
        replication: it has the attribute REPLICATION.
        reads_all: it reads every row and sequence: pg_read_all_data, before PostgreSQL 14 SELECT on each.
        own_schema: a schema that it creates and owns.
        createdb: it has the attribute CREATEDB.
        member_of: predefined roles that it is a member of.
        in_words: rights that are not an attribute or a membership.
    """

    owns: bool = False
    replication: bool = False
    reads_all: bool = False
    own_schema: str = ""
    createdb: bool = False
    member_of: tuple[str, ...] = ()
    described: str = ""

    def describe(self) -> str:
        """For documentation and advice."""
        said = [
            "ownership of the database and its tables" if self.owns else "",
            "REPLICATION" if self.replication else "",
            f"{READS_ALL} (before PostgreSQL 14: SELECT on all tables)" if self.reads_all else "",
            f"ownership of the schema {self.own_schema}, which it creates" if self.own_schema else "",
            "CREATEDB" if self.createdb else "",
            *self.member_of,
            self.described,
        ]
        return " and ".join(filter(None, said)) if sum(map(bool, said)) < 3 else ", ".join(filter(None, said))


@dataclass(frozen=True)
class Need:
    """What a purpose needs.

    Attributes:
        does: what its role does, as a predicate.
        rights: what `tmi-ops roles` grants to its role, and what plans and the doctor check.
        role: the declared role of `tmi-ops roles` that has them; empty: only an administrator has them.
        falls_back: the purpose whose role is used if none is named; None: POSTGRES_USER.
    """

    does: str
    rights: Rights
    role: str
    falls_back: Purpose | None = None


PREFIX = "TMI_OPS_"
READS_ALL = "pg_read_all_data"
PURPOSES: Mapping[Purpose, Need] = {
    Purpose.OWNER: Need("migrates and maintains the schema", Rights(owns=True), "owner"),
    Purpose.BACKUP: Need("takes and verifies backups, runs drills", Rights(replication=True, reads_all=True), "backup"),
    Purpose.RECEIVER: Need("receives WAL", Rights(replication=True), "backup", Purpose.BACKUP),
    Purpose.HEARTBEAT: Need("writes heartbeats", Rights(own_schema="tmi_ops"), "owner", Purpose.OWNER),
    Purpose.MONITOR: Need("reads statistics and WAL positions", Rights(member_of=("pg_monitor",)), "monitor"),
    Purpose.RESTORER: Need("restores into a new database", Rights(createdb=True), ""),
    Purpose.RUNBOOK: Need(
        "locks the application out, replaces databases, restores rows",
        Rights(
            owns=True,
            createdb=True,
            member_of=("pg_signal_backend",),
            described="superuser to restore roles and database properties",
        ),
        "",
    ),
}


LOGINS = frozenset(
    f"{PREFIX}{purpose.upper()}_{part}" for purpose in Purpose for part in ("USER", "PASSWORD", "PASSWORD_FILE")
)


def rights_of(role: str) -> Rights:
    """The rights that the purposes of one declared role need together."""
    needed = [need.rights for need in PURPOSES.values() if need.role == role]
    return Rights(
        owns=any(one.owns for one in needed),
        replication=any(one.replication for one in needed),
        reads_all=any(one.reads_all for one in needed),
        own_schema=next((one.own_schema for one in needed if one.own_schema), ""),
        createdb=any(one.createdb for one in needed),
        member_of=tuple(dict.fromkeys(name for one in needed for name in one.member_of)),
    )


def login_of(purpose: Purpose, postgres: PostgresSettings, values: Mapping[str, str]) -> PostgresSettings:
    """The connection settings with the role that the environment names for this purpose.

    Raises:
        SettingsError: its password file cannot be read.
    """
    named: Purpose | None = purpose
    while named is not None:
        user = values.get(named.user_variable, "").strip()
        if user:
            return postgres.model_copy(update={"user": user, "password": _password_of(named, postgres, user, values)})
        named = named.need.falls_back
    return postgres


def _password_of(
    purpose: Purpose, postgres: PostgresSettings, user: str, values: Mapping[str, str]
) -> SecretStr | None:
    variable = purpose.password_variable
    if values.get(variable):
        return SecretStr(values[variable])
    file = values.get(f"{variable}_FILE")
    if file:
        try:
            return SecretStr(Path(file).read_text().strip())
        except (OSError, UnicodeDecodeError):
            raise SettingsError(
                f"The password of {user} cannot be read from {file} ({variable}_FILE).",
                hint="make the file readable for this account, or correct the path",
                code=Code.SETTINGS_FILE,
            ) from None
    # POSTGRES_PASSWORD belongs to POSTGRES_USER only.
    return postgres.password if user == postgres.user else None
