"""Which lines of pg_hba.conf admit a role, and how.

Source: https://www.postgresql.org/docs/current/auth-pg-hba-conf.html; the first line that matches applies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tmi_ops.access.declared import DeclaredAccess, DeclaredRole
from tmi_ops.access.facts import AccessFacts, HbaRule
from tmi_ops.access.findings import Drift, drift
from tmi_ops.checks.finding import Severity
from tmi_ops.postgres.hba import REPLICATION, hba_line

_LOOPBACK = ("127.0.0.1", "::1", "localhost", "samehost")
_ANYWHERE = ("all", "0.0.0.0", "::")  # noqa: S104 - an address that a line names, not one we listen on
_WEAK_METHODS = {
    "trust": "without any password",
    "password": "with a password in the clear",
    "md5": "with md5 if the password is stored as md5",
    "ident": "because the client's machine says so (ident)",
}
_WITHOUT_TLS = ("host", "hostnossl")


def hba_findings(facts: AccessFacts, declared: DeclaredAccess) -> Iterator[Drift]:
    """Lines that are missing, invalid, or that admit a declared role too easily."""
    if facts.hba is None:
        yield drift(
            Severity.NOTICE,
            "pg_hba.conf",
            f"{facts.role} may not read pg_hba_file_rules, so its lines were not checked",
            by_hand=["tmi-ops roles check  # as a superuser (POSTGRES_USER)"],
        )
        return
    for rule in facts.hba:
        if rule.error:
            yield drift(Severity.WARNING, f"pg_hba.conf line {rule.line}", f"is invalid: {rule.error}")
    rules = [rule for rule in facts.hba if not rule.error]
    # A hostssl line on a server without TLS is an error.
    for role in declared.roles:
        for database in (declared.database, REPLICATION) if role.replication else (declared.database,):
            if not admitting(rules, role.name, database):
                yield drift(
                    Severity.WARNING,
                    role.name,
                    f"no line of pg_hba.conf admits it to {_place(database)}",
                    by_hand=[
                        f"{hba_line(database, role.name, 'all', encrypted=facts.ssl)}  # in pg_hba.conf, then reload"
                    ],
                )
    yield from _too_easy(rules, declared)


def admitting(rules: Sequence[HbaRule], user: str, database: str) -> list[HbaRule]:
    """The lines that admit `user` to `database` from any address."""
    found = []
    for rule in rules:
        if not _fits(rule, user, database):
            continue
        if rule.method != "reject":
            found.append(rule)
        elif rule.type == "host" and rule.address in _ANYWHERE:
            break
    return found


def _fits(rule: HbaRule, user: str, database: str) -> bool:
    return any(_names_user(word, user) for word in rule.users) and any(
        _names_database(word, user, database) for word in rule.databases
    )


def _names_user(word: str, user: str) -> bool:
    # Memberships may change, so a group counts as a match.
    return word in ("all", user) or word.startswith("+") or _matches(word, user)


def _names_database(word: str, user: str, database: str) -> bool:
    if database == REPLICATION:
        return word == REPLICATION  # `all` does not include it
    return (
        word in ("all", database)
        or word in ("samerole", "samegroup")
        or (word == "sameuser" and user == database)
        or _matches(word, database)
    )


def _matches(word: str, name: str) -> bool:
    """From 16 on, a word that starts with a slash is a regular expression."""
    if not word.startswith("/"):
        return False
    try:
        return re.search(word[1:], name) is not None
    except re.error:
        return False


def _too_easy(rules: Sequence[HbaRule], declared: DeclaredAccess) -> Iterator[Drift]:
    for rule in rules:
        who = [role.name for role in declared.roles if _lets_in(rules, rule, role, declared)]
        if not who or rule.type == "local" or _is_loopback(rule):
            if who and rule.method == "trust":
                yield drift(
                    Severity.WARNING,
                    f"pg_hba.conf line {rule.line}",
                    "lets every account on the server's machine connect as any of the roles without a password",
                    by_hand=["scram-sha-256 instead of trust"],
                )
            continue
        if rule.method in _WEAK_METHODS:
            yield drift(
                Severity.CRITICAL if rule.method != "md5" else Severity.WARNING,
                f"pg_hba.conf line {rule.line}",
                f"admits {', '.join(who)} from {rule.address} {_WEAK_METHODS[rule.method]}",
                by_hand=[f"scram-sha-256 instead of {rule.method}"],
            )
        if rule.type in _WITHOUT_TLS:
            yield drift(
                Severity.WARNING,
                f"pg_hba.conf line {rule.line}",
                f"admits {', '.join(who)} from {rule.address} without TLS",
                by_hand=[f"hostssl instead of {rule.type}"],
            )


def _lets_in(rules: Sequence[HbaRule], rule: HbaRule, role: DeclaredRole, declared: DeclaredAccess) -> bool:
    databases = (declared.database, REPLICATION) if role.replication else (declared.database,)
    return any(rule in admitting(rules, role.name, database) for database in databases)


def _is_loopback(rule: HbaRule) -> bool:
    return rule.address is not None and (rule.address in _LOOPBACK or rule.address.startswith("127."))


def _place(database: str) -> str:
    return "replication (`all` does not include it)" if database == REPLICATION else f"the database {database}"
