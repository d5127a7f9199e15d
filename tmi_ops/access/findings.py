"""Differences from the declared access, with their severity and the statements that fix them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from tmi_ops.access.declared import RoleKind
from tmi_ops.checks.finding import Finding, Severity, advise


class PasswordSource(StrEnum):
    """Where a password to be set comes from."""

    ENVIRONMENT = "environment"
    FILE = "file"
    GENERATED = "generated"


@dataclass(frozen=True)
class Statement:
    """A step of a plan. `sql` never contains a secret: a password is shown only by its source.

    Attributes:
        password_of: the kind of role whose password this statement sets.
        password_from: the source of that password.
    """

    sql: str
    password_of: RoleKind | None = None
    password_from: PasswordSource | None = None


class Change(StrEnum):
    """What the statements of a difference change, which decides the rights they need."""

    NEW_ROLE = "makes a role"
    ROLE = "alters a role"
    MEMBER = "makes or unmakes a member of a role"
    OWNER = "takes things from an owner"
    GRANTS = "grants on what the declared owner has"


@dataclass(frozen=True)
class Touched:
    """What is changed: the role or the owner, and the attributes that a role gains or loses."""

    change: Change
    role: str
    attributes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Drift:
    """One difference. CRITICAL: a role has rights that it must not have; WARNING: it lacks rights that it needs, now or
    soon.

    Attributes:
        subject: the role, table or line it is about.
        what: a sentence without a full stop.
        statements: what `tmi-ops roles apply` runs; empty if it is left to a person.
        by_hand: what a person must do.
        touched: what the statements change.
    """

    severity: Severity
    subject: str
    what: str
    statements: tuple[Statement, ...] = ()
    by_hand: tuple[str, ...] = ()
    touched: Touched | None = None

    @property
    def finding(self) -> Finding:
        """The difference as a finding of a check."""
        statements = (statement.sql for statement in self.statements)
        return Finding(self.severity, self.subject, self.what, advice=advise(*statements, *self.by_hand))


def drift(
    severity: Severity,
    subject: str,
    what: str,
    *statements: str,
    by_hand: Iterable[str] = (),
    touched: Touched | None = None,
) -> Drift:
    """A difference whose statements set no password."""
    return Drift(severity, subject, what, tuple(Statement(one) for one in statements), tuple(by_hand), touched)
