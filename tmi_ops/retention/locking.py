"""Extends Object Lock on what retention keeps, including chains and WAL, before it ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from tmi_ops.errors import ObjectMissingError
from tmi_ops.progress import Report
from tmi_ops.retention.facts import RetentionFacts
from tmi_ops.retention.plan import RetentionPlan
from tmi_ops.settings import Retain
from tmi_ops.store.backup_documents import backup_folder
from tmi_ops.store.guarding import extend_lock, locked_until
from tmi_ops.store.locking import is_locked_kind, needs_longer
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.overview import READERS

LOCK_REASON = "Object Lock until "


def wanted_backups(plan: RetentionPlan) -> tuple[str, ...]:
    """The backups that are kept by more than their lock. Only their locks are extended."""
    return tuple(
        decision.backup.backup_id
        for decision in plan.kept
        if any(not reason.startswith(LOCK_REASON) for reason in decision.reasons)
    )


def wanted_wal(facts: RetentionFacts, plan: RetentionPlan, retain: Retain, now: datetime) -> tuple[str, ...]:
    """The keys of WAL that is kept and was stored more than half of the lock's period ago."""
    goes = {file.key for wal in plan.wal for file in wal.removed}
    return tuple(
        file.key
        for cluster in facts.wal
        for file in cluster.files
        if file.key not in goes and is_locked_kind(file.key) and now - file.stored_at > retain.period / 2
    )


def extend_locks(store: ObjectStore, facts: RetentionFacts, plan: RetentionPlan, report: Report, now: datetime) -> int:
    """Extend the locks on everything that is kept if less than half of their period is left.

    Returns:
        The number of locks that were extended.

    Raises:
        StoreError: the store failed, or our key may not extend locks; locks extended before that stay extended.
    """
    retain = store.retain
    if retain is None:
        return 0
    keys = [*_objects(store, wanted_backups(plan), retain, now), *wanted_wal(facts, plan, retain, now)]
    with (
        report.phase("Extending locks", total=len(keys), unit="objects") as phase,
        ThreadPoolExecutor(READERS, thread_name_prefix="lock") as pool,
    ):
        extended = 0
        for done in pool.map(lambda key: _extend(store, key, retain, now), keys):
            extended += done
            phase.advance(1)
    return extended


def _objects(store: ObjectStore, backups: Iterable[str], retain: Retain, now: datetime) -> Iterator[str]:
    for backup_id in backups:
        for item in store.list_objects(f"{backup_folder(backup_id)}/"):
            if is_locked_kind(item.key) and now - item.modified > retain.period / 2:
                yield item.key


def _extend(store: ObjectStore, key: str, retain: Retain, now: datetime) -> bool:
    try:
        if not needs_longer(retain, locked_until(store, key), now):
            return False
        extend_lock(store, key, retain, now)
    except ObjectMissingError:
        return False
    return True
