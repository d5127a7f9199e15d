"""Privileges that the declared roles lack, and those that they or PUBLIC have in excess."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from tmi_ops.access.declared import NOTHING, DeclaredAccess, DeclaredRole, RoleKind
from tmi_ops.access.facts import PUBLIC, AccessFacts, DefaultGrant, Grant, ObjectFacts, ObjectKind
from tmi_ops.access.findings import Change, Drift, Touched, drift
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
