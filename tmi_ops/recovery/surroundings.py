"""What surrounds a database, as a fetched backup holds it; and the properties given to a copy of it.

Backups of today hold roles and properties as data. Those of earlier releases hold scripts, which are read as data.
"""

from __future__ import annotations

import psycopg
from psycopg import sql
from pydantic import ValidationError

from tmi_ops.backup.logical import GLOBALS_OBJECT, PROPERTIES_OBJECT
from tmi_ops.backup.properties import DatabaseProperties, property_statements
from tmi_ops.backup.surroundings import SURROUNDINGS_OBJECT, Surroundings
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import Report
from tmi_ops.recovery.fetch import FetchedBackup
from tmi_ops.recovery.scripts import parse_properties, parse_roles
from tmi_ops.settings import PostgresSettings


def read_surroundings(fetched: FetchedBackup, report: Report) -> Surroundings:
    """The roles and properties that a backup holds; what an older backup's scripts hold besides is noted and left out.

    Raises:
        RecoveryError: they cannot be understood.
    """
    path = fetched.path(SURROUNDINGS_OBJECT)
    if path.exists():
        try:
            return Surroundings.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise RecoveryError(
                f"{SURROUNDINGS_OBJECT} of the backup cannot be understood: "
                f"{'.'.join(map(str, first['loc']))}: {first['msg']}.",
                next_step="restore another backup (tmi-ops backups)",
            ) from None
    roles = parse_roles(
        fetched.path(GLOBALS_OBJECT).read_bytes().decode(errors="replace"),
        lambda what: report.note(f"left out of {GLOBALS_OBJECT}: {what}"),
    )
    script = fetched.path(PROPERTIES_OBJECT).read_bytes().decode(errors="replace")
    manifest = fetched.manifest
    properties = parse_properties(script, lambda what: report.note(f"left out of {PROPERTIES_OBJECT}: {what}"))
    known = {"encoding": manifest.encoding, "collation": manifest.collation, "ctype": manifest.ctype}
    return Surroundings(roles=roles, database=properties.model_copy(update=known))


def apply_properties(address: PostgresSettings, properties: DatabaseProperties, report: Report) -> None:
    """Give the database that `address` names its owner, settings, grants and comment; what is refused is noted."""
    with connect(address, "postgres") as connection:
        for statement in property_statements(properties, sql.Identifier(address.database)):
            try:
                connection.execute(statement)
            except psycopg.Error as error:
                report.note(f"database property refused: {str(error).splitlines()[0]}")
