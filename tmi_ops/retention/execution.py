"""Executes a plan. After a crash at any step, everything that was to be kept can still be restored.

1. Backups that depend on a backup are removed before it. Its manifest is removed first: the backup then no longer
   exists, and what a crash leaves of it is removed like any half-made backup.
2. WAL is removed last, oldest first, so that no existing backup lacks WAL. It is taken out of the archive's index
   before.
3. New backups are looked for before the first removal, holds and locks before each removal. A backup that has a new
   hold or lock, or on which a new backup depends, stays, with its chain and the cluster's WAL.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tmi_ops.errors import ObjectMissingError
from tmi_ops.progress import Phase, Report
from tmi_ops.retention.facts import Backup, HalfMade, WalFile
from tmi_ops.retention.holds import hold_key
from tmi_ops.retention.plan import RetentionPlan, WalDecision
from tmi_ops.store.backup_documents import backup_folder, discard, read_manifest
from tmi_ops.store.folders import MANIFEST, kind_of
from tmi_ops.store.guarding import abort_upload, locked_until
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.store.objects import DELETE_BATCH, ObjectStore
from tmi_ops.store.overview import changing
from tmi_ops.wal.index import withdraw


@dataclass(frozen=True)
class Spared:
    """Something that the plan removes but that was kept, and why."""

    what: str
    because: str


@dataclass
class RetentionResult:
    """What was removed. `freed` is in bytes. `spared` is what was kept although the plan removes it."""

    backups: int = 0
    wal_files: int = 0
    half_made: int = 0
    uploads: int = 0
    freed: int = 0
    spared: list[Spared] = field(default_factory=list)


def execute_retention(plan: RetentionPlan, store: ObjectStore, report: Report) -> RetentionResult:
    """Remove what the plan says. May be repeated, including after a crash.

    Raises:
        StoreError: the store failed; what was not removed yet is intact.
    """
    result = RetentionResult()
    standing = _built_upon_since(plan, store)
    clusters_to_leave: set[str] = set()
    steps = len(plan.removed) + len(plan.half_made)
    goes = [decision.backup.backup_id for decision in plan.removed]
    with report.phase("Removing backups", total=steps, unit="steps") as phase, changing(store, *goes):
        for decision in plan.removed:
            backup = decision.backup
            kept_by = standing.get(backup.backup_id) or _kept_by(store, backup, plan.has_object_lock)
            if kept_by is None:
                _remove_backup(store, backup, result, plan.has_object_lock)
            else:
                result.spared.append(Spared(backup.backup_id, kept_by))
                standing |= dict.fromkeys(backup.chain, f"{backup.backup_id} depends on it")
                clusters_to_leave.add(backup.system_identifier)
            phase.advance(1)
        for half in plan.half_made:
            _sweep(store, half, result, plan.has_object_lock)
            phase.advance(1)
    for upload in plan.uploads:
        abort_upload(store, upload)
        result.uploads += 1
    for wal in plan.wal:
        with report.phase("Removing WAL", total=len(wal.removed), unit="objects") as phase:
            if wal.system_identifier in clusters_to_leave:
                result.spared.append(Spared(f"WAL of {wal.system_identifier}", "a base backup that may need it stays"))
            else:
                _remove_wal(store, wal, result, phase, locking=plan.has_object_lock)
    return result


def _built_upon_since(plan: RetentionPlan, store: ObjectStore) -> dict[str, str]:
    """The backups on which a backup taken after the plan was made depends, each with the reason to keep it."""
    known = {decision.backup.backup_id for decision in (*plan.kept, *plan.removed)}
    standing: dict[str, str] = {}
    if not any(decision.backup.kind == "base" for decision in plan.removed):
        return standing
    for name in store.list_folders("base"):
        if name in known or kind_of(name) != "base":
            continue
        try:
            manifest = read_manifest(store, name)
        except ObjectMissingError:
            continue
        if isinstance(manifest, BaseManifest):
            standing |= dict.fromkeys(manifest.chain, f"{name}, taken after the plan was made, depends on it")
    return standing


def _kept_by(store: ObjectStore, backup: Backup, locking: bool) -> str | None:
    if _exists(store, hold_key(backup.backup_id)):
        return "put under a hold after the plan was made"
    return _lock_on(store, f"{backup_folder(backup.backup_id)}/{MANIFEST}") if locking else None


def _lock_on(store: ObjectStore, key: str) -> str | None:
    try:
        until = locked_until(store, key)
    except ObjectMissingError:
        return None
    return None if until is None else f"Object Lock until {until:%Y-%m-%d %H:%M} UTC"


def _remove_backup(store: ObjectStore, backup: Backup, result: RetentionResult, locking: bool) -> None:
    folder = f"{backup_folder(backup.backup_id)}/"
    store.delete([f"{folder}{MANIFEST}"])
    _delete_unlocked(store, (item.key for item in store.list_objects(folder)), result, locking)
    result.backups += 1
    result.freed += backup.size


def _delete_unlocked(store: ObjectStore, keys: Iterable[str], result: RetentionResult, locking: bool) -> None:
    free = []
    for key in keys:
        because = _lock_on(store, key) if locking else None
        if because is None:
            free.append(key)
        else:
            result.spared.append(Spared(key, because))
    store.delete(free)


def _sweep(store: ObjectStore, half: HalfMade, result: RetentionResult, locking: bool) -> None:
    folder = f"{backup_folder(half.backup_id)}/"
    locks = (_lock_on(store, item.key) for item in store.list_objects(folder)) if locking else iter(())
    because = next((lock for lock in locks if lock is not None), None)
    if _exists(store, f"{folder}{MANIFEST}"):
        because = "it was finished after the plan was made"
    if because is not None:
        result.spared.append(Spared(half.backup_id, because))
        return
    discard(store, half.backup_id)
    result.half_made += 1
    result.freed += half.size


def _exists(store: ObjectStore, key: str) -> bool:
    try:
        store.size(key)
    except ObjectMissingError:
        return False
    return True


def _remove_wal(store: ObjectStore, wal: WalDecision, result: RetentionResult, phase: Phase, *, locking: bool) -> None:
    if wal.removed:
        gone = [file.segment for file in wal.removed if file.is_whole]
        withdraw(store, wal.system_identifier, gone)
    for start in range(0, len(wal.removed), DELETE_BATCH):
        files: list[WalFile] = []
        for file in wal.removed[start : start + DELETE_BATCH]:
            because = _lock_on(store, file.key) if locking else None
            if because is None:
                files.append(file)
            else:
                result.spared.append(Spared(file.key, because))
        store.delete(file.key for file in files)
        result.wal_files += len(files)
        result.freed += sum(file.size for file in files)
        phase.advance(min(DELETE_BATCH, len(wal.removed) - start))
