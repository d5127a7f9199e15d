"""What a dump does not hold: the server's roles, the database's own properties, facts that no statement says."""

from __future__ import annotations

from typing import Any, Literal

import psycopg
from pydantic import BaseModel, ConfigDict, Field

from tmi_ops.backup.properties import DatabaseProperties, read_properties
from tmi_ops.backup.roles import Roles, read_roles
from tmi_ops.backup.undumped import Fact, read_facts

SURROUNDINGS_OBJECT = "surroundings.json"
# A copy's server needs at least as much of these as its source to take the same dump in one transaction.
_CAPACITIES = ("max_connections", "max_locks_per_transaction", "max_prepared_transactions")


class Surroundings(BaseModel):
    """Roles, properties, facts of objects, and how much the server could hold (`capacities`, settings by name)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: Literal[1] = 1
    roles: Roles
    database: DatabaseProperties
    facts: tuple[Fact, ...] = ()
    capacities: dict[Literal["max_connections", "max_locks_per_transaction", "max_prepared_transactions"], int] = Field(
        default_factory=dict
    )


def read_surroundings(connection: psycopg.Connection[Any], *, with_passwords: bool) -> Surroundings:
    """Read them for the connected database; search_path must be pinned to pg_catalog.

    Args:
        with_passwords: the roles' password verifiers too; needs the right to read pg_authid.
    """
    capacities = connection.execute(
        "SELECT name, setting::int FROM pg_catalog.pg_settings WHERE name = ANY(%s)", [list(_CAPACITIES)]
    ).fetchall()
    return Surroundings(
        roles=read_roles(connection, with_passwords=with_passwords),
        database=read_properties(connection),
        facts=read_facts(connection),
        capacities=dict(capacities),
    )
