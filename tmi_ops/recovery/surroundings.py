"""Reads roles and database properties from a fetched backup, and applies the properties to a copy.

Backups store them as data. Backups of earlier releases contain scripts, which are parsed as data.
"""

from __future__ import annotations

import psycopg
from psycopg import sql
from pydantic import ValidationError

from tmi_ops.backup.logical import GLOBALS_OBJECT, PROPERTIES_OBJECT
from tmi_ops.backup.properties import LOADS_CODE, DatabaseProperties, property_statements, read_properties
from tmi_ops.backup.snapshot import pin_text_output
from tmi_ops.backup.surroundings import SURROUNDINGS_OBJECT, Surroundings
from tmi_ops.errors import RecoveryError, first_line
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import Report
from tmi_ops.recovery.fetch import FetchedBackup
from tmi_ops.recovery.scripts import parse_properties, parse_roles
from tmi_ops.settings import PostgresSettings


def read_surroundings(fetched: FetchedBackup, report: Report) -> Surroundings:
    """The roles and properties in a backup. Other statements in an older backup's scripts are noted and left out.

    Raises:
        RecoveryError: they cannot be read.
    """
    path = fetched.path(SURROUNDINGS_OBJECT)
    if path.exists():
        try:
            return Surroundings.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise RecoveryError(
                f"{SURROUNDINGS_OBJECT} of the backup is invalid: {'.'.join(map(str, first['loc']))}: {first['msg']}.",
                hint="restore another backup (`tmi-ops backups`)",
            ) from None
    roles = parse_roles(
        fetched.path(GLOBALS_OBJECT).read_bytes().decode(errors="replace"),
        lambda what: report.note(f"Left out of {GLOBALS_OBJECT}: {what}"),
    )
    script = fetched.path(PROPERTIES_OBJECT).read_bytes().decode(errors="replace")
    manifest = fetched.manifest
    properties = parse_properties(script, lambda what: report.note(f"Left out of {PROPERTIES_OBJECT}: {what}"))
    known = {"encoding": manifest.encoding, "collation": manifest.collation, "ctype": manifest.ctype}
    return Surroundings(roles=roles, database=properties.model_copy(update=known))


def apply_properties(address: PostgresSettings, properties: DatabaseProperties, report: Report) -> tuple[str, ...]:
    """Set owner, settings, grants and comment of the database that `address` names, and verify them.

    Returns:
        What could not be set, one sentence each (also noted), such as a property that this server refused.
    """
    refused = []
    with connect(address, "postgres") as connection:
        for statement in property_statements(properties, sql.Identifier(address.database)):
            try:
                connection.execute(statement)
            except psycopg.Error as error:
                refused.append(f"The server refused a property of the database: {first_line(error)}")
    with connect(address) as connection:
        pin_text_output(connection)
        differing = differing_properties(properties, read_properties(connection))
    sentences = (*refused, *(sentence for sentence in differing if not refused or not sentence.startswith("setting")))
    for sentence in sentences:
        report.note(sentence)
    return sentences


def differing_properties(source: DatabaseProperties, copy: DatabaseProperties) -> tuple[str, ...]:
    """The differences between the known properties of the source and the copy's, one sentence each."""
    plain = sorted(set(DatabaseProperties.model_fields) - {"settings", "grants"})
    known = [name for name in plain if name in source.model_fields_set]
    sentences = [
        f"{name.replace('_', ' ')} of the database was {getattr(source, name)}, here it is {getattr(copy, name)}"
        for name in known
        if getattr(source, name) != getattr(copy, name)
    ]
    if source.grants is not None and set(source.grants) != set(copy.grants or ()):
        sentences.append("privileges on the database differ from the source's")
    here = {(item.role, item.setting.name): item.setting.values for item in copy.settings}
    for item in source.settings:
        if here.get((item.role, item.setting.name)) != item.setting.values:
            loads_code = item.setting.name.lower() in LOADS_CODE
            why = "it loads code, so set it yourself" if loads_code else "it is not set here"
            role = f" of {item.role}" if item.role else ""
            sentences.append(f"setting {item.setting.name}{role} in the database: {why}")
    return tuple(sentences)
