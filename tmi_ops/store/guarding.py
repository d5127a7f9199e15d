"""What the store itself reports or enforces: its clock, Object Lock, our access keys' rights, unfinished uploads.

A store without locks and accounts, such as a directory, locks nothing and reports no rights.
"""

from __future__ import annotations

from datetime import datetime

from tmi_ops.error_codes import Code
from tmi_ops.errors import StoreError
from tmi_ops.settings import Retain
from tmi_ops.store.backend import UNTIL_RELEASED, Guard, UnfinishedUpload, missing
from tmi_ops.store.objects import ObjectStore

__all__ = [
    "UNTIL_RELEASED",
    "UnfinishedUpload",
    "abort_upload",
    "extend_lock",
    "has_object_lock",
    "locked_until",
    "may_abort_uploads",
    "may_delete",
    "may_extend_locks",
    "set_legal_hold",
    "store_clock",
    "unfinished_uploads",
]


def store_clock(store: ObjectStore) -> datetime:
    """The time by the store's clock, or by ours if it has none."""
    return store.backend.clock()


def has_object_lock(store: ObjectStore) -> bool:
    """Whether the store can lock objects.

    Raises:
        StoreError: the store failed, or our keys may not read its lock configuration.
    """
    guard = store.backend.guard
    return guard is not None and guard.has_lock()


def locked_until(store: ObjectStore, key: str) -> datetime | None:
    """The time until which Object Lock keeps an object, `UNTIL_RELEASED` under a legal hold; None if it is not locked.

    Raises:
        ObjectMissingError: the object does not exist.
        StoreError: the store failed.
    """
    guard = store.backend.guard
    if guard is not None:
        return guard.locked_until(key)
    if store.backend.head(key) is None:
        raise missing(key)
    return None


def extend_lock(store: ObjectStore, key: str, retain: Retain, now: datetime) -> None:
    """Lock an object for the whole period from now on. It never shortens a lock.

    Raises:
        ObjectMissingError: the object does not exist.
        StoreError: the store failed or has no locks, or our key lacks the right (s3:PutObjectRetention).
    """
    _locks(store).extend_lock(key, retain, now)


def set_legal_hold(store: ObjectStore, key: str, *, on: bool) -> None:
    """Place an object under a legal hold, or release it; requires Object Lock.

    Raises:
        StoreError: the store failed or has no locks, or our key lacks the right (s3:PutObjectLegalHold).
    """
    _locks(store).set_legal_hold(key, on=on)


def may_delete(store: ObjectStore) -> bool | None:
    """Whether our keys may delete objects; None if nothing shows it.

    Do not call it for a bucket that keeps versions, which would record the test as a deletion.

    Raises:
        StoreError: the store could not be reached.
    """
    guard = store.backend.guard
    return None if guard is None else guard.may_delete()


def may_abort_uploads(store: ObjectStore) -> bool | None:
    """False if our keys may not abort unfinished uploads; None if nothing shows it.

    Raises:
        StoreError: the store could not be reached.
    """
    guard = store.backend.guard
    return None if guard is None else guard.may_abort_uploads()


def may_extend_locks(store: ObjectStore, retain: Retain, now: datetime) -> bool | None:
    """False if our keys may not extend locks; None if nothing shows it.

    Raises:
        StoreError: the store could not be reached.
    """
    guard = store.backend.guard
    return None if guard is None else guard.may_extend_locks(retain, now)


def unfinished_uploads(store: ObjectStore) -> list[UnfinishedUpload]:
    """All unfinished uploads of the environment, by key."""
    return list(store.backend.unfinished(""))


def abort_upload(store: ObjectStore, upload: UnfinishedUpload) -> None:
    """Abort one unfinished upload. If it has ended meanwhile, that is not an error."""
    store.backend.abort(upload)


def _locks(store: ObjectStore) -> Guard:
    if store.backend.guard is None:
        raise StoreError(
            f"The store {store.where} cannot lock objects.",
            hint="use a bucket with Object Lock",
            code=Code.STORE_ADDRESS,
        )
    return store.backend.guard
