"""Plans the statements that turn the present access into the declared access."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from tmi_ops.access.declared import NOTHING, DeclaredAccess, DeclaredRole, RoleKind
from tmi_ops.access.facts import PUBLIC, AccessFacts, DefaultGrant, Grant, ObjectFacts, ObjectKind
from tmi_ops.access.findings import Change, Drift, Statement, Touched, drift
from tmi_ops.access.passwords import Passwords
from tmi_ops.access.roles import password_findings, role_findings
from tmi_ops.checks.finding import Severity
from tmi_ops.schema.dialect import quote

# PostgreSQL's defaults for PUBLIC that are acceptable; drift.py reports the first as a notice.
_PUBLIC_MAY = {ObjectKind.DATABASE: frozenset({"CONNECT", "TEMPORARY"}), ObjectKind.SCHEMA: frozenset({"USAGE"})}
_GRANTED_KINDS = (ObjectKind.DATABASE, ObjectKind.SCHEMA, ObjectKind.TABLE, ObjectKind.SEQUENCE)
_NAMES_SHOWN = 3


def wanted(role: DeclaredRole, kind: ObjectKind) -> frozenset[str]:
    """Exactly the privileges that this role must have on objects of this kind."""
    if kind is ObjectKind.DATABASE:
        return frozenset({"CONNECT"})
    if kind is ObjectKind.SCHEMA:
        return frozenset({"USAGE"}) if role.schema_usage else NOTHING
    return role.tables if kind is ObjectKind.TABLE else role.sequences


def privilege_findings(facts: AccessFacts, declared: DeclaredAccess) -> Iterator[Drift]:
    """Revocations first: excess privileges are worse than missing ones."""
    # When they run, the declared owner owns everything.
    touched = Touched(Change.GRANTS, declared.owner.name)
    for one in _findings(facts, declared):
        yield replace(one, touched=touched)


def _findings(facts: AccessFacts, declared: DeclaredAccess) -> Iterator[Drift]:
    grantees = [role for role in declared.roles if role.kind is not RoleKind.OWNER]
    for kind in _GRANTED_KINDS:
        for role in grantees:
            yield from _excess(facts.of(kind), role.name, wanted(role, kind))
        yield from _excess(facts.of(kind), PUBLIC, _PUBLIC_MAY.get(kind, NOTHING))
    for kind in _GRANTED_KINDS:
        for role in grantees:
            yield from _lacking(facts, declared, kind, role)
    yield from _defaults(facts, declared, grantees)


def _excess(things: Sequence[ObjectFacts], grantee: str, may: frozenset[str]) -> Iterator[Drift]:
    groups: dict[tuple[str, bool], list[str]] = defaultdict(list)
    kinds: set[ObjectKind] = set()
    for thing in things:
        for privilege, only_option in sorted(_too_much(thing, grantee, may)):
            groups[privilege, only_option].append(thing.sql)
            kinds.add(thing.kind)
    for (privilege, only_option), names in groups.items():
        option = "GRANT OPTION FOR " if only_option else ""
        cascade = " CASCADE" if only_option else ""
        what = f"can grant {privilege}" if only_option else f"has {privilege}"
        yield drift(
            Severity.CRITICAL,
            _role(grantee),
            f"{what} on {_names(names)} and must not",
            f"REVOKE {option}{privilege} ON {next(iter(kinds))} {', '.join(names)} FROM {_role(grantee)}{cascade};",
        )


def _too_much(thing: ObjectFacts, grantee: str, may: frozenset[str]) -> set[tuple[str, bool]]:
    """(privilege as REVOKE needs it, whether only its grant option is in excess)."""
    found = set()
    for grant in thing.grants:
        if grant.grantee == grantee and (grant.privilege not in may or grant.grantable):
            found.add((_with_column(grant), grant.privilege in may))
    return found


def _with_column(grant: Grant) -> str:
    return f"{grant.privilege} ({grant.column})" if grant.column else grant.privilege


def _lacking(facts: AccessFacts, declared: DeclaredAccess, kind: ObjectKind, role: DeclaredRole) -> Iterator[Drift]:
    things = facts.of(kind)
    groups: dict[frozenset[str], list[str]] = defaultdict(list)
    for thing in things:
        has = {grant.privilege for grant in thing.grants if grant.grantee == role.name and grant.column is None}
        if missing := wanted(role, kind) - has:
            groups[missing].append(thing.sql)
    for missing, names in groups.items():
        whole = kind in (ObjectKind.TABLE, ObjectKind.SEQUENCE) and len(names) == len(things)
        where = (
            f"ALL {kind}S IN SCHEMA {quote(declared.schema)}"
            if whole and not facts.extension_relations
            else f"{kind} {', '.join(names)}"
        )
        yield drift(
            Severity.WARNING,
            role.name,
            f"lacks {_privileges(missing)} on {_names(names)}",
            f"GRANT {_privileges(missing)} ON {where} TO {quote(role.name)};",
        )


def _defaults(facts: AccessFacts, declared: DeclaredAccess, grantees: Sequence[DeclaredRole]) -> Iterator[Drift]:
    """Default privileges on tables and sequences that the owner creates later."""
    owner = declared.owner.name
    prefix = f"ALTER DEFAULT PRIVILEGES FOR ROLE {quote(owner)}"
    in_schema = f" IN SCHEMA {quote(declared.schema)}"
    of_owner = [one for one in facts.defaults if one.creator == owner]
    may = {(role.name, kind): wanted(role, kind) for role in grantees for kind in _GRANTED_KINDS}
    for one in of_owner:
        if one.grantee in (PUBLIC, *declared.by_name) and one.privilege not in may.get((one.grantee, one.kind), ()):
            where = "" if one.everywhere else in_schema
            yield drift(
                Severity.CRITICAL,
                _role(one.grantee),
                f"will have {one.privilege} on every {one.kind.lower()} that {owner} creates, and must not",
                f"{prefix}{where} REVOKE {one.privilege} ON {one.kind}S FROM {_role(one.grantee)};",
            )
    for kind in (ObjectKind.TABLE, ObjectKind.SEQUENCE):
        for role in grantees:
            if missing := wanted(role, kind) - _born_with(of_owner, role.name, kind):
                yield drift(
                    Severity.WARNING,
                    role.name,
                    f"will lack {_privileges(missing)} on {kind.lower()}s that {owner} creates later",
                    f"{prefix}{in_schema} GRANT {_privileges(missing)} ON {kind}S TO {quote(role.name)};",
                )


def _born_with(defaults: Iterable[DefaultGrant], grantee: str, kind: ObjectKind) -> set[str]:
    return {one.privilege for one in defaults if one.grantee == grantee and one.kind is kind}


_ORDER = ("SELECT", "INSERT", "UPDATE", "DELETE", "USAGE")


def _privileges(privileges: Iterable[str]) -> str:
    return ", ".join(sorted(privileges, key=lambda one: _ORDER.index(one) if one in _ORDER else len(_ORDER)))


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"


def _role(grantee: str) -> str:
    return PUBLIC if grantee == PUBLIC else quote(grantee)


# From 15 on, this role owns the schema public; its only member is the database's owner.
DATABASE_OWNER = "pg_database_owner"
# ALTER TABLE changes the owner of views and sequences, too.
_ALTER = {ObjectKind.SEQUENCE: "TABLE"}


def ownership_findings(facts: AccessFacts, declared: DeclaredAccess) -> Iterator[Drift]:
    """One finding for each kind of object and owner."""
    strangers: dict[tuple[ObjectKind, str], list[ObjectFacts]] = defaultdict(list)
    for one in facts.objects:
        if one.owner != declared.owner.name and not one.follows and not _is_owners_anyway(one):
            strangers[one.kind, one.owner].append(one)
    # The database and the schema first: the new owner of an object must have the right to create it.
    for (kind, owner), things in sorted(strangers.items(), key=lambda one: tuple(ObjectKind).index(one[0][0])):
        role = facts.named(owner)
        of_declared = owner in declared.by_name
        yield drift(
            Severity.CRITICAL if of_declared else Severity.WARNING,
            things[0].sql if len(things) == 1 else f"{len(things)} {kind.lower()}s",
            f"{_belongs(len(things))} to {owner}, not to {declared.owner.name}"
            + (f": {owner} may alter and drop {_it(len(things))}" if of_declared else ""),
            *(f"ALTER {_ALTER.get(kind, kind)} {one.sql} OWNER TO {quote(declared.owner.name)};" for one in things),
            by_hand=[
                f"if TMI itself connects as {owner}, let it connect as its own role before you apply, or make it the "
                f"owner: TMI_OPS_ROLE_NAME_OWNER={owner}"
            ]
            if role is not None and role.login and not role.superuser and not of_declared
            else (),
            touched=Touched(Change.OWNER, owner, frozenset({"CREATEDB"} if kind is ObjectKind.DATABASE else ())),
        )


def _is_owners_anyway(one: ObjectFacts) -> bool:
    return one.kind is ObjectKind.SCHEMA and one.owner == DATABASE_OWNER


def _belongs(count: int) -> str:
    return "belongs" if count == 1 else "belong"


def _it(count: int) -> str:
    return "it" if count == 1 else "them"


NO_PASSWORDS = Passwords()


@dataclass(frozen=True)
class Plan:
    """The differences in order, with their statements; those without statements are left to a person."""

    drifts: tuple[Drift, ...]

    @property
    def statements(self) -> tuple[Statement, ...]:
        return tuple(statement for one in self.drifts for statement in one.statements)

    @property
    def left_out(self) -> tuple[Drift, ...]:
        return tuple(one for one in self.drifts if not one.statements)

    @property
    def empty(self) -> bool:
        return not self.statements


def plan_access(
    facts: AccessFacts,
    declared: DeclaredAccess,
    known: Passwords = NO_PASSWORDS,
    reset: frozenset[RoleKind] = frozenset(),
) -> Plan:
    """Plan the declared access. Undeclared roles are not changed.

    Args:
        known: existing passwords.
        reset: roles that get a new password.

    Raises:
        SettingsError: the declared access is impossible on this server.
    """
    return Plan(
        (
            *role_findings(facts, declared),
            *ownership_findings(facts, declared),
            *privilege_findings(facts, declared),
            # Last, so that logging is off for these statements only.
            *password_findings(facts, declared, known, reset),
        )
    )
