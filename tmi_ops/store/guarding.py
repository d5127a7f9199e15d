"""What the store itself says about keeping: its clock, Object Lock, what our keys may do, and uploads that never ended.

A store without locks and accounts, such as a directory, locks nothing and tells nothing of rights.
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
    """What time it is by the store's clock; by ours where it has none."""
    return store.backend.clock()


def has_object_lock(store: ObjectStore) -> bool:
    """Whether the store locks objects on our word.

    Raises:
        StoreError: the store failed, or does not let us ask.
    """
    guard = store.backend.guard
    return guard is not None and guard.has_lock()


def locked_until(store: ObjectStore, key: str) -> datetime | None:
    """Until when Object Lock keeps an object, `UNTIL_RELEASED` under a legal hold; None where nothing keeps it.

    Raises:
        ObjectMissingError: there is no such object.
        StoreError: the store failed.
    """
    guard = store.backend.guard
    if guard is not None:
        return guard.locked_until(key)
    if store.backend.head(key) is None:
        raise missing(key)
    return None


def extend_lock(store: ObjectStore, key: str, retain: Retain, now: datetime) -> None:
    """Have Object Lock keep an object for the whole period from now on. It never shortens.

    Raises:
        ObjectMissingError: there is no such object.
        StoreError: the store failed or has no locks, or our key may not (s3:PutObjectRetention).
    """
    _locks(store).extend_lock(key, retain, now)


def set_legal_hold(store: ObjectStore, key: str, *, on: bool) -> None:
    """Have the store itself keep an object until the hold is taken off; only where it has Object Lock.

    Raises:
        StoreError: the store failed or has no locks, or our key may not (s3:PutObjectLegalHold).
    """
    _locks(store).set_legal_hold(key, on=on)


def may_delete(store: ObjectStore) -> bool | None:
    """Whether our keys may delete objects; None: nothing tells. Not for a bucket that keeps versions: it would note the
    question as a deletion.

    Raises:
        StoreError: the store could not be reached.
    """
    guard = store.backend.guard
    return None if guard is None else guard.may_delete()


def may_abort_uploads(store: ObjectStore) -> bool | None:
    """False: our keys may not end unfinished uploads; None: nothing tells.

    Raises:
        StoreError: the store could not be reached.
    """
    guard = store.backend.guard
    return None if guard is None else guard.may_abort_uploads()


def may_extend_locks(store: ObjectStore, retain: Retain, now: datetime) -> bool | None:
    """False: our keys may not lock objects for longer; None: nothing tells.

    Raises:
        StoreError: the store could not be reached.
    """
    guard = store.backend.guard
    return None if guard is None else guard.may_extend_locks(retain, now)


def unfinished_uploads(store: ObjectStore) -> list[UnfinishedUpload]:
    """All of the environment, by key."""
    return list(store.backend.unfinished(""))


def abort_upload(store: ObjectStore, upload: UnfinishedUpload) -> None:
    """End one unfinished upload; one that ended meanwhile is no error."""
    store.backend.abort(upload)


def _locks(store: ObjectStore) -> Guard:
    if store.backend.guard is None:
        raise StoreError(
            f"The store {store.where} cannot lock objects.",
            hint="use a bucket with Object Lock",
            code=Code.STORE_ADDRESS,
        )
    return store.backend.guard
