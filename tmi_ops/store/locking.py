"""Object Lock set by tmi_ops: which objects are locked when stored, until when, and which locks are extended. Pure.

Only objects that a recovery needs and that never change are locked. Objects that are replaced every few seconds or days
(the open segment, the lease, readings, alerts, journals) are not: each of their versions would stay until its lock
ends. Nor are holds, which a person removes.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from tmi_ops.settings import Retain

# Written once, and never again under the same key. All others are replaced, or removed by a person.
_NEVER_CHANGES = re.compile(
    r"(?:logical|base)/[^/]+/(?!hold\.json)[^/]+(?:/[^/]+)?"
    r"|drills/[^/]+"
    r"|restore-points/.+"
    r"|keys/[0-9a-f]{64}\.signed"
    r"|wal/[^/]+/(?:[^/]+/)?[0-9A-F]{8}(?:[0-9A-F]{16})?(?:\.history|\.[0-9A-F]{8}\.backup)?\.zst"
)


def is_locked_kind(key: str) -> bool:
    """Whether an object of this key, relative to the environment's root, is locked."""
    return _NEVER_CHANGES.fullmatch(key) is not None


def lock_request(retain: Retain | None, key: str, now: datetime) -> dict[str, Any]:
    """The lock parameters of a put of this object; empty if it is not locked."""
    if retain is None or not is_locked_kind(key):
        return {}
    return {"ObjectLockMode": retain.mode, "ObjectLockRetainUntilDate": locked_until_from(retain, now)}


def locked_until_from(retain: Retain, now: datetime) -> datetime:
    """The end of a lock that is set now, in whole seconds."""
    return (now.astimezone(UTC) + retain.period).replace(microsecond=0)


def needs_longer(retain: Retain, until: datetime | None, now: datetime) -> bool:
    """Whether to extend the lock of an object that is kept: less than half of the period is left."""
    return until is None or until < now + retain.period / 2
