"""What of a database's protection is there already: read from the server and the store, kept nowhere else."""

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
    """Newest first where there are several.

    Attributes:
        base: the newest base backup of the server's cluster.
        logical: the newest logical backup of the database.
        proven: whether a restore has proven `logical`.
        drilled_at: when the newest passed drill began.
    """

    base: str | None = None
    logical: str | None = None
    proven: bool = False
    drilled_at: datetime | None = None


def read_protection(settings: Settings, store: ObjectStore, system_identifier: str) -> Protection:
    """Raises StoreError: the store does not answer."""
    entries = list_backups(store)
    bases = [one for one in entries if _is_base_of(one.manifest, system_identifier)]
    logical = [one for one in entries if _is_dump_of(one.manifest, settings.postgres.database)]
    newest = logical[0] if logical else None
    return Protection(
        base=bases[0].manifest.backup_id if bases else None,
        logical=newest.manifest.backup_id if newest else None,
        proven=bool(newest and newest.verdict and newest.verdict.outcome == "proven"),
        drilled_at=_drilled_at(store),
    )


def _drilled_at(store: ObjectStore) -> datetime | None:
    from tmi_ops.drill.evidence import list_drills, read_evidence

    for drill in list_drills(store):
        try:
            evidence = read_evidence(store, drill)
        except OpsError:
            continue
        if evidence.outcome == "passed":
            return evidence.started_at
    return None


def _is_base_of(manifest: AnyManifest, system_identifier: str) -> bool:
    return isinstance(manifest, BaseManifest) and manifest.system_identifier == system_identifier


def _is_dump_of(manifest: AnyManifest, database: str) -> bool:
    return isinstance(manifest, Manifest) and manifest.database == database and manifest.format != "schema-only"
