"""Compares the definitions in a fetched backup with those of a database restored from it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tmi_ops.backup.archive.files import read_toc
from tmi_ops.backup.copying import TOC_OBJECT
from tmi_ops.backup.definitions import Definition, definitions_of
from tmi_ops.backup.inventory import differing_objects, read_inventory
from tmi_ops.backup.logical import INVENTORY_OBJECT
from tmi_ops.backup.snapshot import pin_text_output
from tmi_ops.backup.surroundings import SURROUNDINGS_OBJECT, Surroundings
from tmi_ops.backup.undumped import read_facts
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.versions import major_of
from tmi_ops.recovery.definitions import DefinitionDifferences, compare_definitions, compare_facts
from tmi_ops.recovery.fetch import FetchedBackup
from tmi_ops.recovery.trees import Majors
from tmi_ops.settings import PostgresSettings


def compare_objects(
    address: PostgresSettings, fetched: FetchedBackup, copy: Iterable[Definition]
) -> DefinitionDifferences:
    """The differences between the objects of the database that `address` names and the backup's.

    Args:
        copy: the definitions of that database.
    """
    archive = archive_of(fetched)
    with connect(address) as connection:
        pin_text_output(connection)
        copy_major = major_of(connection.info.server_version)
        facts = read_facts(connection)
        if archive is None:  # a plain dump of an earlier release
            inventory = json.loads(fetched.path(INVENTORY_OBJECT).read_bytes())
            return DefinitionDifferences(tuple(differing_objects(inventory, read_inventory(connection))))
    majors = Majors(major_of(fetched.manifest.server_version_num), copy_major)
    found = compare_definitions(definitions_of(read_toc(archive)), copy, majors)
    surroundings = fetched.path(SURROUNDINGS_OBJECT)
    if not surroundings.exists():  # of an earlier release
        return found
    expected = Surroundings.model_validate_json(surroundings.read_bytes()).facts
    with_data = fetched.manifest.format != "schema-only"
    return found + compare_facts([fact for fact in expected if with_data or not fact.of_data], facts)


def archive_of(fetched: FetchedBackup) -> Path | None:
    """The archive whose table of contents has all definitions; None for a plain dump of an earlier release."""
    if fetched.manifest.format in ("custom", "directory"):
        return fetched.dump
    beside = fetched.path(TOC_OBJECT)
    return beside if beside.exists() else None
