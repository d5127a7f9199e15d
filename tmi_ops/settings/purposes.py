"""What tmi_ops logs in for: the declared table. An environment may name a role for each purpose, else POSTGRES_USER
does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import SecretStr

from tmi_ops.errors import SettingsError
from tmi_ops.settings.facts import PostgresSettings


class Purpose(StrEnum):
    """Why a session is opened; in capitals also how variables name it."""

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


@dataclass(frozen=True)
class Need:
    """What a purpose needs, and no more.

    Attributes:
        does: what it is for.
        rights: in words.
        role: the declared role of `tmi-ops roles` that has them; empty: an administrator, as only one has them.
        falls_back: the purpose whose role does it where none is named; None: POSTGRES_USER.
    """

    does: str
    rights: str
    role: str
    falls_back: Purpose | None = None


PREFIX = "TMI_OPS_"
PURPOSES: Mapping[Purpose, Need] = {
    Purpose.OWNER: Need("migrates the schema, does its upkeep", "owns the database and its tables", "owner"),
    Purpose.BACKUP: Need(
        "takes backups, proves them, drills", "REPLICATION and pg_read_all_data (before 14 SELECT on tables)", "backup"
    ),
    Purpose.RECEIVER: Need("receives WAL", "REPLICATION", "backup", Purpose.BACKUP),
    Purpose.HEARTBEAT: Need("writes beats", "the schema tmi_ops, made and owned by it", "owner", Purpose.OWNER),
    Purpose.MONITOR: Need("reads statistics and how far WAL is", "pg_monitor", "monitor"),
    Purpose.RESTORER: Need("restores into a new database", "CREATEDB", ""),
    Purpose.RUNBOOK: Need(
        "fences the application, exchanges databases, brings rows back",
        "the owner's rights, CREATEDB, pg_signal_backend; of roles and properties a superuser's",
        "",
    ),
}


def login_of(purpose: Purpose, postgres: PostgresSettings, values: Mapping[str, str]) -> PostgresSettings:
    """The connection with the role that the environment names for this purpose.

    Raises:
        SettingsError: the file of its password cannot be read.
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
    variable = f"{PREFIX}{purpose.upper()}_PASSWORD"
    if values.get(variable):
        return SecretStr(values[variable])
    file = values.get(f"{variable}_FILE")
    if file:
        try:
            return SecretStr(Path(file).read_text().strip())
        except (OSError, UnicodeDecodeError):
            raise SettingsError(
                f"The password of {user} cannot be read: {variable}_FILE names {file}.",
                next_step="give this user the right to read it, or correct the path",
            ) from None
    # The same role needs no second password; another one does not have this one.
    return postgres.password if user == postgres.user else None
