"""What a dump does not hold: the server's roles, the database's own properties, facts that no statement expresses."""

from __future__ import annotations

from typing import Any, Literal

import psycopg
from pydantic import BaseModel, ConfigDict

from tmi_ops.backup.properties import DatabaseProperties, read_properties
from tmi_ops.backup.roles import Roles, read_roles
from tmi_ops.backup.undumped import Fact, read_facts

SURROUNDINGS_OBJECT = "surroundings.json"


class Surroundings(BaseModel):
    """Roles, the database's properties, and facts about its objects."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: Literal[1] = 1
    roles: Roles
    database: DatabaseProperties
    facts: tuple[Fact, ...] = ()


def read_surroundings(connection: psycopg.Connection[Any], *, with_passwords: bool) -> Surroundings:
    """Read them for the connected database; search_path must be pinned to pg_catalog.

    Args:
        with_passwords: the roles' password verifiers too; needs the right to read pg_authid.
    """
    return Surroundings(
        roles=read_roles(connection, with_passwords=with_passwords),
        database=read_properties(connection),
        facts=read_facts(connection),
    )
