"""Reads the facts, the declared access and the passwords, for a plan or a check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tmi_ops.access.declared import DeclaredAccess, RoleKind, declared_access
from tmi_ops.access.drift import check_access
from tmi_ops.access.facts import AccessFacts
from tmi_ops.access.findings import Drift
from tmi_ops.access.passwords import Passwords, known_passwords, password_file
from tmi_ops.access.planning import Plan, plan_access
from tmi_ops.access.reading import read_access
from tmi_ops.access.rights import lacking_rights
from tmi_ops.postgres.rights import Lack
from tmi_ops.settings import Settings


@dataclass(frozen=True)
class Inspection:
    """The state of the server. `file`: the file of generated passwords."""

    facts: AccessFacts
    declared: DeclaredAccess
    known: Passwords
    file: Path

    def plan(self, reset: frozenset[RoleKind] = frozenset()) -> Plan:
        return plan_access(self.facts, self.declared, self.known, reset)

    def lacking(self, planned: Plan) -> tuple[Lack, ...]:
        """The rights that our role lacks to execute the plan."""
        return lacking_rights(self.facts, self.declared, planned)

    def check(self) -> tuple[Drift, ...]:
        return check_access(self.facts, self.declared, self.known)


def inspect_access(connection: psycopg.Connection[Any], settings: Settings, variables: Mapping[str, str]) -> Inspection:
    """Inspect the connected database.

    Raises:
        SettingsError: a role name is invalid, or others can read the password file.
        DatabaseError: the facts could not be read.
    """
    facts = read_access(connection)
    file = password_file(settings.home, settings.environment)
    return Inspection(
        facts, declared_access(facts.database, facts.major, variables), known_passwords(variables, file), file
    )
