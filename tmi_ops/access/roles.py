"""Differences between the roles and the declared ones: existence, attributes, memberships, settings, passwords."""

from __future__ import annotations

from collections.abc import Iterator

from tmi_ops.access.declared import DeclaredAccess, DeclaredRole, RoleKind
from tmi_ops.access.facts import AccessFacts, PasswordKind, RoleFacts
from tmi_ops.access.findings import Change, Drift, PasswordSource, Statement, Touched, drift
from tmi_ops.access.passwords import Passwords
from tmi_ops.access.scram import is_password_of
from tmi_ops.checks.finding import Severity
from tmi_ops.errors import SettingsError
from tmi_ops.postgres.versions import GRANTORS
from tmi_ops.schema.dialect import quote


def role_findings(facts: AccessFacts, declared: DeclaredAccess) -> Iterator[Drift]:
    """All differences except passwords.

    Raises:
        SettingsError: a declared role is the bootstrap superuser, which cannot be changed.
    """
    for role in declared.roles:
        found = facts.named(role.name)
        if found is None:
            words = "LOGIN REPLICATION" if role.replication else "LOGIN"
            yield drift(
                Severity.WARNING,
                role.name,
                f"the role that {role.kind.purpose} is missing",
                f"CREATE ROLE {quote(role.name)} {words};",
                touched=Touched(Change.NEW_ROLE, role.name, frozenset(words.split())),
            )
        else:
            _refuse_bootstrap(role, found)
            yield from _attributes(role, found)
        yield from _memberships(role, found, facts.major)
        yield from _settings(role, found)
    yield from _our_membership(facts, declared)


def _refuse_bootstrap(role: DeclaredRole, found: RoleFacts) -> None:
    if found.bootstrap:
        raise SettingsError(
            f"{role.name} is the server's bootstrap superuser; it cannot be the role that {role.kind.purpose}.",
            hint=f"set TMI_OPS_ROLE_NAME_{role.kind.upper()} to another name",
        )


def _attributes(role: DeclaredRole, found: RoleFacts) -> Iterator[Drift]:
    excess = [
        word
        for word, has in (
            ("SUPERUSER", found.superuser),
            ("CREATEROLE", found.createrole),
            ("CREATEDB", found.createdb),
            ("BYPASSRLS", found.bypassrls),
            ("REPLICATION", found.replication and not role.replication),
        )
        if has
    ]
    if excess:
        words = " ".join(f"NO{word}" for word in excess)
        yield drift(
            Severity.CRITICAL,
            role.name,
            f"has {', '.join(excess)} and must not",
            f"ALTER ROLE {quote(role.name)} {words};",
            touched=Touched(Change.ROLE, role.name, frozenset(excess)),
        )
    lacking = [
        word
        for word, lacks in (("LOGIN", not found.login), ("REPLICATION", role.replication and not found.replication))
        if lacks
    ]
    if lacking:
        yield drift(
            Severity.WARNING,
            role.name,
            f"lacks {', '.join(lacking)}",
            f"ALTER ROLE {quote(role.name)} {' '.join(lacking)};",
            touched=Touched(Change.ROLE, role.name, frozenset(lacking)),
        )
    if found.expired:
        yield drift(
            Severity.WARNING,
            role.name,
            "its password has expired",
            by_hand=[f"ALTER ROLE {quote(role.name)} VALID UNTIL 'infinity';  -- or give it a new password and date"],
        )


def _memberships(role: DeclaredRole, found: RoleFacts | None, major: int) -> Iterator[Drift]:
    memberships = found.memberships if found else ()
    for wanted in sorted(role.member_of - {one.role for one in memberships}):
        yield drift(
            Severity.WARNING,
            role.name,
            f"is not a member of {wanted}",
            f"GRANT {quote(wanted)} TO {quote(role.name)};",
            touched=Touched(Change.MEMBER, wanted),
        )
    for one in memberships:
        if one.role not in role.member_of:
            granted_by = f" GRANTED BY {quote(one.grantor)}" if major >= GRANTORS else ""
            yield drift(
                Severity.CRITICAL,
                role.name,
                f"is a member of {one.role} and must not be",
                f"REVOKE {quote(one.role)} FROM {quote(role.name)}{granted_by};",
                touched=Touched(Change.MEMBER, one.role),
            )


def _settings(role: DeclaredRole, found: RoleFacts | None) -> Iterator[Drift]:
    for name, value in role.settings:
        if found is None or found.settings.get(name) != value:
            yield drift(
                Severity.WARNING,
                role.name,
                f"does not have the setting {name} = {value}",
                f"ALTER ROLE {quote(role.name)} SET {name} = {value};",
                touched=Touched(Change.ROLE, role.name),
            )


def _our_membership(facts: AccessFacts, declared: DeclaredAccess) -> Iterator[Drift]:
    """Only a member of the owner role may give objects to it and change its default privileges."""
    owner = declared.owner.name
    if not facts.superuser and owner not in facts.role_memberships:
        yield drift(
            Severity.NOTICE,
            facts.role,
            f"is not a superuser and must be a member of {owner} for this",
            f"GRANT {quote(owner)} TO {quote(facts.role)};",
            touched=Touched(Change.MEMBER, owner),
        )


def password_findings(
    facts: AccessFacts, declared: DeclaredAccess, known: Passwords, reset: frozenset[RoleKind]
) -> Iterator[Drift]:
    """Passwords to set, and those that are left to a person."""
    for role in declared.roles:
        found = facts.named(role.name)
        why = _why_set(role, found, known, reset)
        if why:
            statement = _password_statement(role, known, role.kind in reset)
            touched = Touched(Change.ROLE, role.name)
            yield Drift(Severity.WARNING, role.name, why, (statement,), touched=touched)
        elif found is not None and found.password is PasswordKind.MD5:
            yield drift(
                Severity.WARNING,
                role.name,
                "its password is stored as md5, which is easily broken and which later versions refuse",
                by_hand=[
                    f"set {role.kind.password_variable} to its password, then: tmi-ops roles apply",
                    f"or set a new one: tmi-ops roles apply --reset-password {role.kind}",
                ],
            )
    if any(role.password is PasswordKind.NOT_VISIBLE for role in facts.roles):
        yield drift(
            Severity.NOTICE,
            "passwords",
            f"only a superuser can read how they are stored, and {facts.role} is not one: md5 passwords are not "
            "found, and those in variables are not compared",
        )


def _why_set(role: DeclaredRole, found: RoleFacts | None, known: Passwords, reset: frozenset[RoleKind]) -> str:
    given = known.environment.get(role.kind)
    if role.kind in reset:
        return "a new password was requested"
    if found is None or found.password is PasswordKind.NONE:
        return "has no password"
    if found.password is PasswordKind.MD5 and (given or role.kind in known.file):
        return "its password is stored as md5"
    if (
        given
        and found.verifier
        and not is_password_of(found.verifier.get_secret_value(), given.get_secret_value(), role.name)
    ):
        return f"its password is not that in {role.kind.password_variable}"
    return ""


def _password_statement(role: DeclaredRole, known: Passwords, anew: bool) -> Statement:
    if role.kind in known.environment:
        source, words = PasswordSource.ENVIRONMENT, role.kind.password_variable
    elif role.kind in known.file and not anew:
        source, words = PasswordSource.FILE, "the password in the file"
    else:
        source, words = PasswordSource.GENERATED, "a generated password"
    return Statement(f"ALTER ROLE {quote(role.name)} PASSWORD '<SCRAM verifier of {words}>';", role.kind, source)
