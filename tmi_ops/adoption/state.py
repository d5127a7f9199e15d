"""The present protection of a database, read from the server and the store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tmi_ops.errors import OpsError
from tmi_ops.settings import Settings
from tmi_ops.store.catalogue import list_backups
from tmi_ops.store.manifest import AnyManifest, BaseManifest, Manifest
from tmi_ops.store.objects import ObjectStore


@dataclass(frozen=True)
class Protection:
    """What protects a database.

    Attributes:
        base: the newest base backup of the server's cluster.
        logical: the newest logical backup of the database.
        verified: whether a restore has verified `logical`.
        drilled_at: when the newest passed drill started.
    """

    base: str | None = None
    logical: str | None = None
    verified: bool = False
    drilled_at: datetime | None = None


def read_protection(settings: Settings, store: ObjectStore, system_identifier: str) -> Protection:
    """Only backups of this cluster count: a database of the same name on another server is another database.

    Raises:
        StoreError: the store cannot be read.
    """
    entries = list_backups(store, lambda _: None)  # backups that cannot be read do not count
    bases = [one for one in entries if _is_base_of(one.manifest, system_identifier)]
    logical = [one for one in entries if _is_dump_of(one.manifest, settings.postgres.database, system_identifier)]
    newest = logical[0] if logical else None
    return Protection(
        base=bases[0].manifest.backup_id if bases else None,
        logical=newest.manifest.backup_id if newest else None,
        verified=newest is not None and newest.verified,
        drilled_at=_drilled_at(store, bases[0].manifest.backup_id) if bases else None,
    )


def _drilled_at(store: ObjectStore, base: str) -> datetime | None:
    """When a drill of this base backup, or of an incremental on it, passed."""
    from tmi_ops.drill.evidence import list_drills, read_evidence

    for drill in list_drills(store):
        try:
            evidence = read_evidence(store, drill)
        except OpsError:
            continue
        if evidence.outcome == "passed" and base in {one.backup_id for one in evidence.backups}:
            return evidence.started_at
    return None


def _is_base_of(manifest: AnyManifest, system_identifier: str) -> bool:
    return isinstance(manifest, BaseManifest) and manifest.system_identifier == system_identifier


def _is_dump_of(manifest: AnyManifest, database: str, system_identifier: str) -> bool:
    """A dump without a system identifier (its role might not read it) does not count: its cluster is unknown."""
    return (
        isinstance(manifest, Manifest)
        and (manifest.database, manifest.system_identifier) == (database, system_identifier)
        and manifest.format != "schema-only"
    )
