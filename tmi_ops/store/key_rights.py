"""What our keys may do to the store, asked of the server by requests that change nothing there.

Each names what does not exist. A server that refuses says that the keys may not; one that deletes what is not there
says that they may. Some look for an upload or an object before they look at the right: that nothing is there tells
nothing. Of one object an answer says nothing about others that a policy treats apart.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from tmi_ops.settings import Retain
from tmi_ops.store.client import DENIED_CODES, error_code, refusals_explained
from tmi_ops.store.locking import locked_until_from
from tmi_ops.store.objects import ObjectStore

NOWHERE = ".doctor/nothing-is-here"
_NO_UPLOAD = "0" * 32


def may_delete(store: ObjectStore) -> bool | None:
    """Whether our keys may delete objects; None: the answer does not tell. Not for a bucket that keeps versions: it
    would note the question as a deletion.

    Raises:
        StoreError: the store could not be reached.
    """
    key = f"{store.root}{NOWHERE}"
    return _asked(store, lambda: store.client.delete_object(Bucket=store.bucket, Key=key), True)


def may_abort_uploads(store: ObjectStore) -> bool | None:
    """False: our keys may not end unfinished uploads; None: the answer does not tell.

    Raises:
        StoreError: the store could not be reached.
    """
    key = f"{store.root}{NOWHERE}"
    return _asked(
        store,
        lambda: store.client.abort_multipart_upload(Bucket=store.bucket, Key=key, UploadId=_NO_UPLOAD),
        None,
    )


def may_extend_locks(store: ObjectStore, retain: Retain, now: datetime) -> bool | None:
    """False: our keys may not lock objects for longer; None: the answer does not tell.

    Raises:
        StoreError: the store could not be reached.
    """
    wanted: Any = {"Mode": retain.mode, "RetainUntilDate": locked_until_from(retain, now)}
    key = f"{store.root}{NOWHERE}"
    return _asked(
        store,
        lambda: store.client.put_object_retention(Bucket=store.bucket, Key=key, Retention=wanted),
        None,
    )


def _asked(store: ObjectStore, ask: Callable[[], object], obeyed: bool | None) -> bool | None:
    """Args:
    obeyed: what it tells that the server did as it was asked.
    """
    with refusals_explained(store.where):
        try:
            ask()
        except store.client.exceptions.ClientError as error:
            return False if error_code(error) in DENIED_CODES else None
    return obeyed
