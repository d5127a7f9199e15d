"""The newest state that this machine has seen: of each kind of backup, of the WAL, and the cluster they belong to.

It detects a store that went back to an older state, and another cluster in place of the known one.

It is kept with the machine's other notes, never in the store, and only if keys are pinned: else anyone's objects would
count.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from tmi_ops.error_codes import Code
from tmi_ops.private import make_directory, write_private
from tmi_ops.store.manifest import Kind
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.trust import CLOCK_TOLERANCE, UntrustedError


class RolledBackError(UntrustedError):
    """The store lacks the newest backup that this machine has seen in it, and has none that is newer."""

    default_code = Code.ROLLED_BACK


class _Seen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    newest: dict[Kind, str] = Field(default_factory=dict)
    # By system identifier: the newest timeline with WAL, and the LSN up to which it was archived.
    wal: dict[str, tuple[int, int]] = Field(default_factory=dict)
    cluster: str = ""
    # When the newest catalogue was made, by its writer's clock.
    catalogue: AwareDatetime = datetime.min.replace(tzinfo=UTC)


def went_back(newest_seen: Mapping[Kind, str], found: Mapping[Kind, Sequence[str]]) -> list[str]:
    """Backups that were seen and are gone although nothing newer exists. `found`: ids by kind, listed whole."""
    return [seen for kind, seen in newest_seen.items() if kind in found and max(found[kind], default="") < seen]


def notice(store: ObjectStore, found: Mapping[Kind, Sequence[str]]) -> list[RolledBackError]:
    """Compare the store with what was seen before, and remember the newest.

    Args:
        found: ids of trusted backups, by the kinds that were listed.
    """
    if not store.trust.is_pinned or store.seen_file is None:
        return []
    file = store.seen_file
    seen = _read(file)
    lost = went_back(seen.newest, found)
    newest = {kind: max(ids) for kind, ids in found.items() if ids}
    kept = {**newest, **{kind: max(one, newest.get(kind, "")) for kind, one in seen.newest.items()}}
    if kept != seen.newest:
        _write(file, seen.model_copy(update={"newest": kept}))
    return [_rolled_back(backup_id, file) for backup_id in lost]


def wal_went_back(seen: tuple[int, int] | None, ends: Mapping[int, int]) -> bool:
    """Whether WAL that was seen is gone without a reason. Pure.

    Args:
        seen: the newest timeline, and the LSN up to which it was archived.
        ends: the same for every timeline in the store. A newer timeline counts only if it goes at least as far:
            retention drops the old one only when nothing needs it, and then the newer one goes further.
    """
    if seen is None:
        return False
    timeline, lsn = seen
    return max((end for one, end in ends.items() if one >= timeline), default=0) < lsn


def notice_wal(store: ObjectStore, system_identifier: str, ends: Mapping[int, int]) -> tuple[str, ...]:
    """Compare how far a cluster's WAL goes with what was seen before, and remember the newest.

    Args:
        ends: by timeline, the LSN up to which there is WAL.

    Returns:
        A sentence if it went back.
    """
    if not store.trust.is_pinned or store.seen_file is None:
        return ()
    seen = _read(store.seen_file)
    before = seen.wal.get(system_identifier)
    if before is not None and wal_went_back(before, ends):
        return (
            f"The store is in an older state: WAL of timeline {before[0]} that this machine has seen is missing, and "
            f"there is nothing newer. If you removed it, delete {store.seen_file} on this machine.",
        )
    newest = max(ends.items(), default=None)
    if newest is not None and newest != before:
        _write(store.seen_file, seen.model_copy(update={"wal": {**seen.wal, system_identifier: newest}}))
    return ()


def notice_cluster(store: ObjectStore, newest: str, *, chosen: bool) -> tuple[str, ...]:
    """Remember the cluster of the first base backup that was seen, until a person names another one.

    Args:
        newest: the system identifier of the cluster with the newest base backup.
        chosen: whether a person named it.

    Returns:
        A sentence if it is not the known cluster.
    """
    if not store.trust.is_pinned or store.seen_file is None:
        return ()
    seen = _read(store.seen_file)
    if chosen or not seen.cluster:
        if seen.cluster != newest:
            _write(store.seen_file, seen.model_copy(update={"cluster": newest}))
        return ()
    if seen.cluster == newest:
        return ()
    return (
        f"The newest base backup is of cluster {newest}, but this machine knows {seen.cluster} as the environment's "
        f"cluster. If the server was rebuilt, run `tmi-ops wal gaps --cluster {newest}` once. If not, another server "
        "is backed up here; choose the right cluster with --cluster.",
    )


def catalogue_went_back(store: ObjectStore, made_at: datetime) -> bool:
    """Whether the catalogue is older than one that this machine has seen, or from the future; remember the newest.

    An older catalogue that was put back has valid signatures, but lacks what was found since, such as a failed
    verification.
    """
    if not store.trust.is_pinned or store.seen_file is None:
        return False
    if made_at > datetime.now(UTC) + CLOCK_TOLERANCE:
        return True  # if remembered, every later one would be distrusted
    seen = _read(store.seen_file)
    if made_at > seen.catalogue:
        _write(store.seen_file, seen.model_copy(update={"catalogue": made_at}))
    return made_at < seen.catalogue


def newest_catalogue(store: ObjectStore) -> datetime:
    """When the newest catalogue that this machine has seen was made."""
    if not store.trust.is_pinned or store.seen_file is None:
        return _Seen().catalogue
    return _read(store.seen_file).catalogue


def _write(file: Path, seen: _Seen) -> None:
    with contextlib.suppress(OSError):
        make_directory(file.parent)
        write_private(file, seen.model_dump_json(indent=2) + "\n")


def _read(file: Path) -> _Seen:
    try:
        return _Seen.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return _Seen()


def _rolled_back(backup_id: str, file: Path) -> RolledBackError:
    return RolledBackError(
        f"The store is in an older state: {backup_id}, which this machine has seen, is missing, and there is nothing "
        "newer.",
        hint="find out who removed it, and restore its old versions if the bucket keeps versions; if you removed it, "
        f"delete {file} on this machine",
    )
