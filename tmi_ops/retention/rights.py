"""Which rights a plan needs, and whether the store's keys have them. Checked before anything is removed.

Retention uses only the store, so no database role is involved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tmi_ops.error_codes import Code
from tmi_ops.errors import StoreError
from tmi_ops.retention.plan import RetentionPlan
from tmi_ops.store.guarding import may_abort_uploads, may_delete, may_extend_locks
from tmi_ops.store.objects import ObjectStore

POLICY = "docs/iam/pruner.json"


class Right(StrEnum):
    """A right, by its name in S3."""

    DELETE = "s3:DeleteObject"
    ABORT = "s3:AbortMultipartUpload"
    EXTEND = "s3:PutObjectRetention"


@dataclass(frozen=True)
class KeyRight:
    """A right that a plan needs. `may`: None if it is unknown; `because` then says why."""

    right: Right
    may: bool | None
    because: str = ""

    def describe(self) -> str:
        """A sentence without the full stop."""
        if self.may is None:
            return f"it is unknown whether the store's keys have {self.right}: {self.because}"
        return f"the store's keys {'have' if self.may else 'lack'} {self.right}"


def needed_rights(plan: RetentionPlan, *, extends_locks: bool) -> tuple[Right, ...]:
    """The rights that executing the plan needs. Pure.

    Args:
        extends_locks: locks on what is kept are extended, too.
    """
    deletes = bool(plan.removed or plan.half_made or any(wal.removed for wal in plan.wal))
    wanted = ((Right.DELETE, deletes), (Right.ABORT, bool(plan.uploads)), (Right.EXTEND, extends_locks))
    return tuple(right for right, needed in wanted if needed)


def read_rights(store: ObjectStore, plan: RetentionPlan, now: datetime) -> tuple[KeyRight, ...]:
    """Ask the store about each right that the plan needs. Nothing is changed in the store.

    Raises:
        StoreError: the store could not be reached.
    """
    return tuple(_asked(store, plan, now))


def require_rights(rights: Iterable[KeyRight]) -> None:
    """Raises:
    StoreError: a right is known to be missing.
    """
    missing = [one.right for one in rights if one.may is False]
    if missing:
        raise StoreError(
            f"The store's keys lack {', '.join(missing)}, which this plan needs.",
            detail="Nothing was removed.",
            hint=f"use keys with the policy {POLICY}; TMI_OPS_S3_PURPOSE says what the keys of a host are for",
            code=Code.STORE_RIGHT_MISSING,
        )


def _asked(store: ObjectStore, plan: RetentionPlan, now: datetime) -> Iterator[KeyRight]:
    retain = store.retain
    if store.backend.guard is None:  # a directory has no keys
        return
    for right in needed_rights(plan, extends_locks=retain is not None):
        if right is Right.DELETE and plan.has_object_lock:
            yield KeyRight(right, None, "a bucket with Object Lock would record the request as a deletion")
        elif right is Right.DELETE:
            yield _answered(right, may_delete(store))
        elif right is Right.ABORT:
            yield _answered(right, may_abort_uploads(store))
        elif retain is not None:
            yield _answered(right, may_extend_locks(store, retain, now))


def _answered(right: Right, may: bool | None) -> KeyRight:
    return KeyRight(right, may, "" if may is not None else "the store's answer does not tell")
