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
class Rights:
    """What a role may do on the server; nothing else than this.

    Attributes:
        owns: the database, its schema and everything in it.
        replication: the attribute REPLICATION.
        reads_all: every row and sequence: pg_read_all_data, before PostgreSQL 14 SELECT on each.
        own_schema: a schema of ours that it makes and owns.
        createdb: the attribute CREATEDB.
        member_of: predefined roles whose rights it has.
        in_words: what no attribute or membership says.
    """

    owns: bool = False
    replication: bool = False
    reads_all: bool = False
    own_schema: str = ""
    createdb: bool = False
    member_of: tuple[str, ...] = ()
    in_words: str = ""

    def words(self) -> str:
        """As documentation and advice say it."""
        said = [
            "owns the database and its tables" if self.owns else "",
            "REPLICATION" if self.replication else "",
            f"{READS_ALL} (before 14 SELECT on tables)" if self.reads_all else "",
            f"the schema {self.own_schema}, made and owned by it" if self.own_schema else "",
            "CREATEDB" if self.createdb else "",
            *self.member_of,
            self.in_words,
        ]
        return " and ".join(filter(None, said)) if sum(map(bool, said)) < 3 else ", ".join(filter(None, said))


@dataclass(frozen=True)
class Need:
    """What a purpose needs, and no more.

    Attributes:
        does: what it is for.
        rights: what `tmi-ops roles` gives its role, and what plans and the doctor ask for.
        role: the declared role of `tmi-ops roles` that has them; empty: an administrator, as only one has them.
        falls_back: the purpose whose role does it where none is named; None: POSTGRES_USER.
    """

    does: str
    rights: Rights
    role: str
    falls_back: Purpose | None = None


PREFIX = "TMI_OPS_"
READS_ALL = "pg_read_all_data"
PURPOSES: Mapping[Purpose, Need] = {
    Purpose.OWNER: Need("migrates the schema, does its upkeep", Rights(owns=True), "owner"),
    Purpose.BACKUP: Need("takes backups, proves them, drills", Rights(replication=True, reads_all=True), "backup"),
    Purpose.RECEIVER: Need("receives WAL", Rights(replication=True), "backup", Purpose.BACKUP),
    Purpose.HEARTBEAT: Need("writes beats", Rights(own_schema="tmi_ops"), "owner", Purpose.OWNER),
    Purpose.MONITOR: Need("reads statistics and how far WAL is", Rights(member_of=("pg_monitor",)), "monitor"),
    Purpose.RESTORER: Need("restores into a new database", Rights(createdb=True), ""),
    Purpose.RUNBOOK: Need(
        "fences the application, exchanges databases, brings rows back",
        Rights(
            owns=True,
            createdb=True,
            member_of=("pg_signal_backend",),
            in_words="of roles and properties a superuser's",
        ),
        "",
    ),
}


LOGINS = frozenset(
    f"{PREFIX}{purpose.upper()}_{part}" for purpose in Purpose for part in ("USER", "PASSWORD", "PASSWORD_FILE")
)


def rights_of(role: str) -> Rights:
    """Everything that the purposes of one declared role need, together."""
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
                hint="give this user the right to read it, or correct the path",
            ) from None
    # The same role needs no second password; another one does not have this one.
    return postgres.password if user == postgres.user else None
