"""Plans the statements that turn the present access into the declared access."""

from __future__ import annotations

from dataclasses import dataclass

from tmi_ops.access.declared import DeclaredAccess, RoleKind
from tmi_ops.access.facts import AccessFacts
from tmi_ops.access.findings import Drift, Statement
from tmi_ops.access.ownership import ownership_findings
from tmi_ops.access.passwords import Passwords
from tmi_ops.access.privileges import privilege_findings
from tmi_ops.access.roles import password_findings, role_findings

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
