"""What the server says about who may do what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import SecretStr

PUBLIC = "PUBLIC"


class PasswordKind(StrEnum):
    """How a role's password is kept; NOT_VISIBLE: only a superuser may look."""

    NONE = "none"
    MD5 = "md5"
    SCRAM = "scram-sha-256"
    NOT_VISIBLE = "not visible"


@dataclass(frozen=True)
class Membership:
    """The role it is a member of, and who granted that."""

    role: str
    grantor: str


@dataclass(frozen=True)
class RoleFacts:
    """A login role, or one that is declared. `verifier`: what the server keeps of its password, where visible."""

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
    """A privilege somebody has; on one column when `column` is set."""

    grantee: str
    privilege: str
    grantable: bool = False
    column: str | None = None


class ObjectKind(StrEnum):
    """What SQL calls it; views, materialized, partitioned and foreign tables are tables to GRANT."""

    DATABASE = "DATABASE"
    SCHEMA = "SCHEMA"
    TABLE = "TABLE"
    SEQUENCE = "SEQUENCE"
    ROUTINE = "ROUTINE"
    TYPE = "TYPE"


@dataclass(frozen=True)
class ObjectFacts:
    """A thing with an owner.

    Attributes:
        sql: its name as it stands in SQL, quoted and with its schema.
        grants: what others than its owner have.
        follows: its owner is that of another thing (a serial column's sequence).
    """

    kind: ObjectKind
    sql: str
    owner: str
    grants: frozenset[Grant] = frozenset()
    follows: bool = False


@dataclass(frozen=True)
class DefaultGrant:
    """What a table or sequence that `creator` makes later is born with; in every schema when `everywhere`."""

    creator: str
    kind: ObjectKind
    grantee: str
    privilege: str
    grantable: bool = False
    everywhere: bool = False


@dataclass(frozen=True)
class Session:
    """Open connections of one role from one address to this database."""

    role: str
    superuser: bool
    application: str
    address: str
    remote: bool
    encrypted: bool | None
    connections: int


@dataclass(frozen=True)
class HbaRule:
    """A line of pg_hba.conf as the server understood it; `error` when it did not."""

    line: int
    type: str
    databases: tuple[str, ...]
    users: tuple[str, ...]
    address: str | None
    method: str
    error: str | None = None


@dataclass(frozen=True)
class AccessFacts:
    """Everything a judgement on access is made of.

    Attributes:
        role: as whom we ask.
        role_memberships: the roles whose rights we may take.
        role_admin_of: the roles that we may make others members of.
        hba: None where we may not read pg_hba_file_rules.
        sessions: None where we see our own only.
        objects: database, schema, and what lies in the schema and belongs to no extension.
        extension_relations: how many tables and sequences of the schema do belong to one.
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
