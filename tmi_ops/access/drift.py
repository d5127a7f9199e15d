"""All differences between a server and the declared access, including those that `roles apply` cannot fix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tmi_ops.access.declared import DeclaredAccess
from tmi_ops.access.facts import PUBLIC, AccessFacts, ObjectKind, Session
from tmi_ops.access.findings import Drift, drift
from tmi_ops.access.hba import hba_findings
from tmi_ops.access.passwords import Passwords
from tmi_ops.access.planning import NO_PASSWORDS, plan_access
from tmi_ops.checks.finding import Severity
from tmi_ops.postgres.connections import APPLICATION_NAME
from tmi_ops.schema.dialect import quote

_WORST_FIRST = tuple(reversed(Severity))
# Tools of people, who may connect as superuser temporarily.
_BY_HAND = ("psql", "pgAdmin", "DBeaver", "DataGrip")


def check_access(facts: AccessFacts, declared: DeclaredAccess, known: Passwords = NO_PASSWORDS) -> tuple[Drift, ...]:
    """Every difference, the worst first.

    Raises:
        SettingsError: as `plan_access`.
    """
    found = [
        *plan_access(facts, declared, known).drifts,
        *_undeclared_grants(facts, declared),
        *_everybody(facts, declared),
        *_superusers(facts),
        *_unencrypted(facts),
        *_password_encryption(facts),
        *hba_findings(facts, declared),
    ]
    return tuple(sorted(found, key=lambda one: _WORST_FIRST.index(one.severity)))


def drifted(findings: tuple[Drift, ...]) -> bool:
    """Whether any is more than a notice."""
    return any(one.severity is not Severity.NOTICE for one in findings)


def _undeclared_grants(facts: AccessFacts, declared: DeclaredAccess) -> Iterator[Drift]:
    known = {PUBLIC, *declared.by_name}
    privileges: dict[str, set[str]] = defaultdict(set)
    things: dict[str, set[str]] = defaultdict(set)
    for one in (*facts.of(ObjectKind.TABLE), *facts.of(ObjectKind.SEQUENCE)):
        for grant in one.grants:
            if grant.grantee not in known and not grant.grantee.startswith("pg_"):
                privileges[grant.grantee].add(grant.privilege)
                things[grant.grantee].add(one.sql)
    for grantee, names in things.items():
        yield drift(
            Severity.WARNING,
            grantee,
            f"is not declared and has {', '.join(sorted(privileges[grantee]))} on {_counted(len(names), 'table')}",
            by_hand=[
                f"REVOKE ALL ON {kind} IN SCHEMA {quote(declared.schema)} FROM {quote(grantee)};  -- if not needed"
                for kind in ("ALL TABLES", "ALL SEQUENCES")
            ],
        )


def _everybody(facts: AccessFacts, declared: DeclaredAccess) -> Iterator[Drift]:
    database = facts.of(ObjectKind.DATABASE)[0]
    open_to_all = sorted({grant.privilege for grant in database.grants if grant.grantee == PUBLIC})
    if open_to_all:
        yield drift(
            Severity.NOTICE,
            PUBLIC,
            f"every role of this server has {', '.join(open_to_all)} on the database {declared.database}",
            by_hand=[
                f"REVOKE {', '.join(open_to_all)} ON DATABASE {database.sql} FROM PUBLIC;  -- the declared roles keep "
                "CONNECT; grant it to other roles that need it"
            ],
        )


def _superusers(facts: AccessFacts) -> Iterator[Drift]:
    for one in facts.sessions or ():
        if one.superuser and not one.application.startswith(APPLICATION_NAME):
            yield drift(
                Severity.NOTICE if one.application.startswith(_BY_HAND) else Severity.CRITICAL,
                one.role,
                f"is a superuser, and {_who(one)} uses it on this database",
                by_hand=["let the application connect as its own role: POSTGRES_USER=tmi_app"],
            )
    if facts.superuser:
        yield drift(
            Severity.NOTICE,
            facts.role,
            "is a superuser that tmi_ops uses: needed for this command, but health and backups have their own roles",
        )


def _unencrypted(facts: AccessFacts) -> Iterator[Drift]:
    if facts.sessions is None:
        yield drift(
            Severity.NOTICE,
            "connections",
            f"{facts.role} sees only its own, so those of superusers and those without TLS were not checked",
            by_hand=[f"GRANT pg_monitor TO {quote(facts.role)};"],
        )
    for one in facts.sessions or ():
        if one.remote and not one.encrypted:
            yield drift(
                Severity.CRITICAL,
                one.role,
                f"{_who(one)} is connected without TLS: rows are sent in the clear",
                by_hand=["POSTGRES_SSLMODE=verify-full for the client", "hostssl instead of host in pg_hba.conf"],
            )
    if not facts.ssl:
        yield drift(
            Severity.NOTICE,
            "ssl",
            "TLS is off, so the server should be reachable only from its own machine",
            by_hand=[
                "ALTER SYSTEM SET ssl = on;  -- with server.crt and server.key in its data directory, then reload"
            ],
        )


def _password_encryption(facts: AccessFacts) -> Iterator[Drift]:
    # Before 14 `on` meant md5.
    if facts.password_encryption in ("md5", "on"):
        yield drift(
            Severity.WARNING,
            "password_encryption",
            "passwords that are not set by tmi_ops will be stored as md5",
            by_hand=["ALTER SYSTEM SET password_encryption = 'scram-sha-256';", "SELECT pg_reload_conf();"],
        )


def _who(one: Session) -> str:
    application = one.application or "an unnamed application"
    return f"{application} ({one.address}, {_counted(one.connections, 'connection')})"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
