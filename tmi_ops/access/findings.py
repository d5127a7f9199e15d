"""What differs from the declared access, how bad that is, and the statements that cure it."""

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
    """A step of a plan. `sql` never holds a secret: of a password it says only where it comes from.

    Attributes:
        password_of: the kind of role whose password this step sets.
        password_from: where that password comes from.
    """

    sql: str
    password_of: RoleKind | None = None
    password_from: PasswordSource | None = None


class Change(StrEnum):
    """What the statements of a difference change; by it is told whose right they need."""

    NEW_ROLE = "makes a role"
    ROLE = "alters a role"
    MEMBER = "makes or unmakes a member of a role"
    OWNER = "takes things from an owner"
    GRANTS = "grants on what the declared owner has"


@dataclass(frozen=True)
class Touched:
    """What is changed: the role, or the owner of the things, and the attributes that a role is to have or to lose."""

    change: Change
    role: str
    attributes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Drift:
    """One difference. CRITICAL: somebody can do what they must not; WARNING: cannot do what they must, or soon.

    Attributes:
        subject: the role, table or line it is about.
        what: one sentence without its full stop.
        statements: what `tmi-ops roles apply` does about it; nothing when it is left to a person.
        by_hand: what a person does about it, where applying does not.
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
        """As every check says it."""
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
    """A difference whose statements hold no password."""
    return Drift(severity, subject, what, tuple(Statement(one) for one in statements), tuple(by_hand), touched)
