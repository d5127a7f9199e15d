"""The server's roles, privileges, sessions and pg_hba.conf, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import SecretStr

PUBLIC = "PUBLIC"


class PasswordKind(StrEnum):
    """How a role's password is stored; NOT_VISIBLE: only a superuser may read that."""

    NONE = "none"
    MD5 = "md5"
    SCRAM = "scram-sha-256"
    NOT_VISIBLE = "not visible"


@dataclass(frozen=True)
class Membership:
    """The role that it is a member of, and the grantor."""

    role: str
    grantor: str


@dataclass(frozen=True)
class RoleFacts:
    """A role. `verifier`: its stored password, if visible."""

    name: str
    superuser: bool
    login: bool
    replication: bool
    createrole: bool
    createdb: bool
    bypassrls: bool
    bootstrap: bool
    expired: bool
    password: PasswordKind
    memberships: tuple[Membership, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    verifier: SecretStr | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Grant:
    """A privilege of a role; on one column if `column` is set."""

    grantee: str
    privilege: str
    grantable: bool = False
    column: str | None = None


class ObjectKind(StrEnum):
    """The kind in SQL. For GRANT, views and materialized, partitioned and foreign tables are tables."""

    DATABASE = "DATABASE"
    SCHEMA = "SCHEMA"
    TABLE = "TABLE"
    SEQUENCE = "SEQUENCE"
    ROUTINE = "ROUTINE"
    TYPE = "TYPE"


@dataclass(frozen=True)
class ObjectFacts:
    """An object with an owner.

    Attributes:
        sql: its name in SQL, quoted and with its schema.
        grants: privileges of others than its owner.
        follows: its owner is that of another object (a serial column's sequence).
    """

    kind: ObjectKind
    sql: str
    owner: str
    grants: frozenset[Grant] = frozenset()
    follows: bool = False


@dataclass(frozen=True)
class DefaultGrant:
    """A default privilege on what `creator` creates; in every schema if `everywhere`."""

    creator: str
    kind: ObjectKind
    grantee: str
    privilege: str
    grantable: bool = False
    everywhere: bool = False


@dataclass(frozen=True)
class Session:
    """The open connections of a role from one address to this database."""

    role: str
    superuser: bool
    application: str
    address: str
    remote: bool
    encrypted: bool | None
    connections: int


@dataclass(frozen=True)
class HbaRule:
    """A line of pg_hba.conf as the server parsed it; `error` if it could not."""

    line: int
    type: str
    databases: tuple[str, ...]
    users: tuple[str, ...]
    address: str | None
    method: str
    error: str | None = None


@dataclass(frozen=True)
class AccessFacts:
    """All facts that access is judged by.

    Attributes:
        role: the role that we connect as.
        role_memberships: the roles whose rights we have.
        role_admin_of: the roles that we may grant to others.
        hba: None if we may not read pg_hba_file_rules.
        sessions: None if we see only our own.
        objects: the database, the schema, and the schema's objects that belong to no extension.
        extension_relations: the number of tables and sequences of the schema that belong to an extension.
    """

    version_num: int
    database: str
    role: str
    superuser: bool
    role_memberships: frozenset[str]
    role_admin_of: frozenset[str]
    ssl: bool
    password_encryption: str
    roles: tuple[RoleFacts, ...]
    objects: tuple[ObjectFacts, ...]
    extension_relations: int
    defaults: tuple[DefaultGrant, ...]
    sessions: tuple[Session, ...] | None
    hba: tuple[HbaRule, ...] | None

    @property
    def major(self) -> int:
        return self.version_num // 10000

    def named(self, name: str) -> RoleFacts | None:
        return next((role for role in self.roles if role.name == name), None)

    def of(self, kind: ObjectKind) -> tuple[ObjectFacts, ...]:
        return tuple(one for one in self.objects if one.kind is kind)
