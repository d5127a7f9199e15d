"""Reads the facts for retention, completely or not at all: every backup with its newest verification, and all WAL.

Manifests are reduced as they arrive, so memory grows by a few hundred bytes per object.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice

from tmi_ops.errors import ObjectMissingError, OpsError, StoreError
from tmi_ops.postgres.wal_files import (
    DEFAULT_SEGMENT_SIZE,
    HISTORY_NAME,
    SEGMENT_NAME,
    parse_lsn,
    parse_segment_name,
)
from tmi_ops.retention.facts import Backup, ClusterWal, HalfMade, RetentionFacts, VerificationState, WalFile
from tmi_ops.retention.holds import read_hold
from tmi_ops.retention.indexed_wal import wal_by_index
from tmi_ops.store.backup_documents import backup_folder, read_listed_manifest, read_newest_verification
from tmi_ops.store.folders import MANIFEST, Folder, kind_of, lacks_parts
from tmi_ops.store.guarding import has_object_lock, locked_until, store_clock, unfinished_uploads
from tmi_ops.store.manifest import KINDS, AnyManifest, BaseManifest
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.overview import READERS, Overview, keep, overview
from tmi_ops.store.seen import notice
from tmi_ops.wal.archive import list_clusters
from tmi_ops.wal.chapters import parse_chapter
from tmi_ops.wal.description import read_segment_size
from tmi_ops.wal.fetching import read_history
from tmi_ops.wal.index import correct, read_claims
from tmi_ops.wal.layout import SUFFIX, cluster_folder
from tmi_ops.wal.lineage import Lineage, lineage

_SEGMENT_NAME_LENGTH = 24
_AT_ONCE = 512


def read_facts(store: ObjectStore, *, to_look: bool = False, since: datetime | None = None) -> RetentionFacts:
    """Read everything that retention needs to decide.

    Args:
        to_look: the facts are only for display. Older backups are then read from the catalogue.
        since: with `to_look`, when the recovery window begins. Older WAL is then read from the archive's index.

    Raises:
        StoreError: something could not be read or parsed, so nothing may be removed.
    """
    locking = has_object_lock(store)
    # Without signatures, anybody could have changed the catalogue's copies: to remove, read the documents themselves.
    anew = not to_look and not store.trust.is_pinned
    view = overview(store, thoroughness="names" if to_look else "whole", anew=anew)
    if anew and view.etag is not None:
        with suppress(OpsError):  # our key may not write it
            keep(store, view)
    known = view.over(store)
    folders, committed = view.folders.values(), view.committed
    backups = _read_backups(known, view, locking=locking)
    ids = [backup.backup_id for backup in backups]
    for lost in notice(store, {kind: [one for one in ids if kind_of(one) == kind] for kind in KINDS}):
        raise lost
    wal = tuple(_read_wal(store, cluster, since, to_look=to_look) for cluster in list_clusters(store))
    stored = [file.stored_at for cluster in wal for file in cluster.files]
    return RetentionFacts(
        backups=tuple(backups),
        wal=wal,
        half_made=tuple(
            HalfMade(folder.backup_id, folder.size, folder.objects, folder.touched_at)
            for folder in folders
            if folder.manifest_at is None and not folder.held
        ),
        uploads=tuple(unfinished_uploads(store)),
        store_now=store_clock(store),
        newest_at=max([*stored, *(folder.manifest_at for folder in committed if folder.manifest_at)], default=None),
        has_object_lock=locking,
    )


def _read_backups(store: ObjectStore, view: Overview, *, locking: bool) -> list[Backup]:
    """Read the backups in a pool, except those whose documents are already in memory: these need no request."""
    apart = view.committed if locking else [one for one in view.committed if not view.has_at_hand(one)]
    read: dict[str, Backup] = {}
    with ThreadPoolExecutor(READERS, thread_name_prefix="retention") as pool:
        waiting = iter(apart)
        while some := list(islice(waiting, _AT_ONCE)):
            found = pool.map(lambda folder: _read_backup(store, folder, locking), some)
            read |= {one.backup_id: one for one in found}
    return [read.get(one.backup_id) or _read_backup(store, one, locking) for one in view.committed]


def _read_backup(store: ObjectStore, folder: Folder, locking: bool) -> Backup:
    try:
        manifest = read_listed_manifest(store, folder.backup_id)
        verification: VerificationState = "not proven"
        if folder.verification is not None:
            recorded = read_newest_verification(store, manifest, [folder.verification])
            verification = "not proven" if recorded is None else recorded.outcome
        if lacks_parts(folder, manifest):
            verification = "failed"  # despite an earlier result: it must not replace an intact backup
        lock = locked_until(store, f"{backup_folder(folder.backup_id)}/{MANIFEST}") if locking else None
    except ObjectMissingError as error:
        raise StoreError(
            f"The catalogue changed while it was read: {error.message}",
            hint="make sure that no other prune is running, then try again",
            transient=True,
        ) from None
    base = manifest if isinstance(manifest, BaseManifest) else None
    return Backup(
        backup_id=folder.backup_id,
        kind=manifest.kind,
        subject=_subject(manifest),
        taken_at=_taken_at(manifest, folder.manifest_at),
        stored_at=folder.manifest_at,
        size=folder.size,
        objects=folder.objects,
        verification=verification,
        chain=base.chain if base else (),
        hold=read_hold(store, folder.backup_id) if folder.held else None,
        locked_until=lock,
        system_identifier=base.system_identifier if base else "",
        timeline=base.timeline if base else 0,
        start_lsn=parse_lsn(base.start_lsn) if base else 0,
        stop_lsn=parse_lsn(base.stop_lsn) if base else 0,
    )


def _taken_at(manifest: AnyManifest, stored_at: datetime | None) -> datetime:
    """The time of the data, from the manifest, which a copy of the bucket does not change. It is by the database's
    clock. It is limited to the time between the start of the backup, by our clock, and the arrival of its manifest in
    the store, so that a database clock that is slow or fast does not make a backup too old or too young.
    """
    taken = max(manifest.taken_at, manifest.started_at).astimezone(UTC)
    return min(taken, stored_at) if stored_at is not None else taken


def _subject(manifest: AnyManifest) -> str:
    """The subject that the policy counts in. A schema-only dump has its own, so that it does not replace a full one."""
    if isinstance(manifest, BaseManifest):
        return f"the cluster {manifest.system_identifier}"
    without_rows = " (schema only)" if manifest.format == "schema-only" else ""
    return f"the database {manifest.database}{without_rows}"


def _read_wal(store: ObjectStore, cluster: str, since: datetime | None, *, to_look: bool) -> ClusterWal:
    size = read_segment_size(store, cluster) or DEFAULT_SEGMENT_SIZE
    claims = None if to_look else read_claims(store, cluster)
    known = wal_by_index(store, cluster, size, since) if to_look and since is not None else None
    listed, files = known or (store.list_objects(f"{cluster_folder(cluster)}/"), [])
    histories: set[int] = set()
    for item in listed:
        name = item.key.rpartition("/")[2].removesuffix(SUFFIX)
        if HISTORY_NAME.fullmatch(name):
            histories.add(int(name[:8], 16))
        elif SEGMENT_NAME.fullmatch(name[:_SEGMENT_NAME_LENGTH]):
            segment = parse_segment_name(name[:_SEGMENT_NAME_LENGTH], size)
            files.append(WalFile(item.key, item.size, item.modified, segment.timeline, segment.start, segment.end))
        elif chapter := parse_chapter(name, size):
            files.append(WalFile(item.key, item.size, item.modified, *chapter))
    if claims is not None:
        whole = (file for file in files if file.is_whole)
        correct(store, cluster, claims, {file.segment for file in whole})
    lines = {timeline: line for timeline in sorted(histories) if (line := _read_line(store, cluster, timeline))}
    return ClusterWal(cluster, tuple(files), lines)


def _read_line(store: ObjectStore, cluster: str, timeline: int) -> Lineage | None:
    """The line of a timeline. None if its history is encrypted and this host has no private key, as a backup host need
    not."""
    if store.recipients and store.identity_file is None:
        return None
    return lineage(timeline, read_history(store, cluster, timeline))
