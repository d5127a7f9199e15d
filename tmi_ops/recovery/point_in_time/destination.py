"""The destination of a recovered cluster: its directory, its tablespaces, and whether there is enough disk space."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tmi_ops.error_codes import Code
from tmi_ops.errors import DiskSpaceError, RecoveryError
from tmi_ops.postgres.base_backup import MANIFEST_NAME
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.recovery.point_in_time.planning import RecoveryPlan
from tmi_ops.store.backup_documents import backup_folder
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.store.objects import ObjectStore
from tmi_ops.text import format_size

# Holds all our files during the work: on the disk of the data directory, and removed as one.
WORK_NAME = ".tmi-ops-recovery"
TABLESPACES = "pg_tblspc"
# For tablespaces without a mapping; the paths in the backup's manifest belong to another machine.
OWN_TABLESPACES = "tablespaces"
# WAL beside the data: prefetched, and kept by the server between two restartpoints (see server.py: max_wal_size).
WAL_ROOM = 5 << 30
# An estimate: replay adds an unknown number of rows.
GROWTH = 1.05
# Segments in addition to those between the start and the end of a base backup: the first, the last, a history.
WAL_SLACK = 4


@dataclass(frozen=True)
class Destination:
    """Where a cluster is restored to.

    Args:
        directory: the data directory; absent or empty. What belongs to root there is given to an unprivileged user.
        tablespaces: new location by old location; each absent or empty. A tablespace created after the base backup may
            be mapped to its old location; the replay may then create it there.
        tablespace_root: parent directory for all other tablespaces, each in a directory named by its oid; None: below
            the data directory.
    """

    directory: Path
    tablespaces: Mapping[str, Path] = field(default_factory=dict)
    tablespace_root: Path | None = None

    @property
    def work(self) -> Path:
        return self.directory / WORK_NAME

    @property
    def lies_together(self) -> bool:
        """Whether everything lies in the data directory or beside it."""
        beside = self.tablespace_root is None or self.tablespace_root.parent == self.directory.parent
        return not self.tablespaces and beside

    def place_of(self, oid: str, location: str) -> Path:
        """The new location of a tablespace."""
        if location in self.tablespaces:
            return self.tablespaces[location]
        return (self.tablespace_root or self.directory / OWN_TABLESPACES) / oid

    def created_later(self, base: BaseManifest) -> set[str]:
        """Where the replay may create tablespaces that the base backup lacks."""
        has = {item.location for item in base.tablespaces}
        return {old for old, new in self.tablespaces.items() if old not in has and Path(old) == new}

    def places(self, base: BaseManifest) -> dict[str, Path]:
        """New locations of a base backup's tablespaces, by oid. In-place tablespaces stay in the data directory."""
        return {
            item.oid: self.place_of(item.oid, item.location)
            for item in base.tablespaces
            if not is_in_place(item.location)
        }


def is_in_place(location: str) -> bool:
    """Whether a tablespace is a directory in pg_tblspc rather than a link (allow_in_place_tablespaces)."""
    return not location.startswith("/")


def require_vacant(plan: RecoveryPlan, destination: Destination) -> None:
    """Require that the destination is empty.

    Raises:
        RecoveryError: the directory or a tablespace's location is not empty, or the mapping names an unknown one.
    """
    places = destination.places(plan.base)
    later = destination.created_later(plan.base)
    unknown = set(destination.tablespaces) - {item.location for item in plan.base.tablespaces} - later
    if unknown:
        has = ", ".join(item.location for item in plan.base.tablespaces) or "none"
        raise RecoveryError(
            f"{plan.base.backup_id} has no tablespace at {', '.join(sorted(unknown))}; its tablespaces: {has}.",
            hint="give the path as it was on the server: --tablespace-mapping OLD=NEW",
        )
    _require_empty(destination.directory, "give another directory with --into, or empty this one")
    mappings = {item.oid: f"--tablespace-mapping {item.location}=NEW" for item in plan.base.tablespaces}
    for oid, place in places.items():
        _require_empty(place, f"give another directory for this tablespace: {mappings[oid]}")
    for location in later:
        _require_empty(Path(location), "make it an empty directory owned by the account that the cluster runs as")
    outside = [place for place in places.values() if not place.is_relative_to(destination.directory / OWN_TABLESPACES)]
    everywhere = [destination.directory, *outside]
    for place in everywhere:
        if any(other != place and _resolved(place).is_relative_to(_resolved(other)) for other in everywhere):
            raise RecoveryError(
                f"{place} lies inside another directory of the same cluster.",
                hint="give each tablespace a directory outside the data directory and the others",
                code=Code.DIRECTORY_TAKEN,
            )


def require_room(plan: RecoveryPlan, destination: Destination, store: ObjectStore) -> dict[Path, int]:
    """Require enough free disk space.

    Returns:
        Bytes needed, by directory.

    Raises:
        DiskSpaceError: a disk has too little.
        StoreError: the store failed.
    """
    needs = disk_needed(plan, destination, store)
    by_disk: dict[int, list[Path]] = {}
    for place in needs:
        by_disk.setdefault(_existing(place).stat().st_dev, []).append(place)
    for places in by_disk.values():
        needed, free = sum(needs[place] for place in places), shutil.disk_usage(_existing(places[0])).free
        if needed > free:
            raise DiskSpaceError(
                f"Restoring {plan.base.backup_id} needs {format_size(needed)} of disk in "
                f"{' and '.join(map(str, places))}; {format_size(free)} are free.",
                hint="free some space there, or restore to a larger disk (--into, --tablespace-mapping)",
            )
    return needs


def disk_needed(plan: RecoveryPlan, destination: Destination, store: ObjectStore) -> dict[Path, int]:
    """Bytes that will be written, by directory, from the server's manifests of the chain.

    A chain needs space for each of its backups in addition to the cluster that is combined from them.
    """
    places = destination.places(plan.base)
    sizes = [_sizes(store, link) for link in plan.chain]
    # Files of incremental backups may be small, so no single backup of the chain shows the full size.
    whole = {part: max(size.get(part, 0) for size in sizes) for part in sizes[-1]}
    whole[""] += max(0, plan.base.cluster_size - sum(whole.values()))
    needs = {place: int(whole.get(oid, 0) * GROWTH) for oid, place in places.items()}
    inputs = sum(sum(size.values()) for size in sizes) if len(sizes) > 1 else 0
    wal = min(plan.wal.size, WAL_ROOM)
    needs[destination.directory] = int(whole.get("", 0) * GROWTH) + inputs + wal
    return needs


def server_manifest(store: ObjectStore, base: BaseManifest) -> bytes:
    """The server's own manifest of a base backup, verified."""
    item = next(item for item in base.objects if item.name == MANIFEST_NAME)
    return b"".join(store.download(f"{backup_folder(base.backup_id)}/{MANIFEST_NAME}", item))


def most_bytes(store: ObjectStore, base: BaseManifest) -> dict[str, int]:
    """Upper limit for the size of the files in each object of a base backup, by object name.

    The server's manifest lists all files except WAL, which is in the data directory's archive: as much as was written
    during the backup, in whole segments.
    """
    sizes = _sizes(store, base)
    wal = parse_lsn(base.stop_lsn) - parse_lsn(base.start_lsn) + WAL_SLACK * base.wal_segment_size
    linked = {item.object_name: sizes[item.oid] for item in base.tablespaces if not is_in_place(item.location)}
    # In-place tablespaces are counted with the data directory; the exact split does not matter here.
    in_place = {item.object_name: sizes[""] for item in base.tablespaces if is_in_place(item.location)}
    others = {item.name: sizes[""] + max(0, wal) for item in base.objects}
    return {**others, **linked, **in_place}


def _sizes(store: ObjectStore, base: BaseManifest) -> dict[str, int]:
    """Bytes of files by tablespace oid; the data directory's under the empty name."""
    sizes = {"": 0, **{item.oid: 0 for item in base.tablespaces if not is_in_place(item.location)}}
    for file in json.loads(server_manifest(store, base))["Files"]:
        parts = file.get("Path", "").split("/", 2)
        part = parts[1] if parts[0] == TABLESPACES and len(parts) > 1 and parts[1] in sizes else ""
        sizes[part] += file["Size"]
    return sizes


def _require_empty(directory: Path, hint: str) -> None:
    around = directory
    while not around.exists():
        if around.is_symlink():
            raise RecoveryError(
                f"{around} is a link to {around.readlink()}, which does not exist.",
                hint=hint,
                code=Code.DIRECTORY_TAKEN,
            )
        around = around.parent
    for place in (around.resolve(), *around.resolve().parents):
        if place != directory.resolve() and (place / "PG_VERSION").exists():
            raise RecoveryError(
                f"{directory} lies inside {place}, the data directory of another cluster.",
                detail="Nothing in it was touched.",
                hint=hint,
                code=Code.DIRECTORY_TAKEN,
            )
    try:
        names = [entry.name for entry in directory.iterdir()]
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise RecoveryError(f"{directory} is a file.", hint=hint, code=Code.DIRECTORY_TAKEN) from None
    # The root of an ext4 file system, which may well be the data directory, always has it.
    if [name for name in names if name != "lost+found"]:
        raise RecoveryError(
            f"{directory} is not empty.",
            detail="Nothing in it was touched.",
            hint=hint,
            code=Code.DIRECTORY_TAKEN,
        )


def _existing(place: Path) -> Path:
    while not place.exists():
        place = place.parent
    return place


def _resolved(place: Path) -> Path:
    return place.absolute().resolve()
