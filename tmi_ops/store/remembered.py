"""A cache of what this process has read and parsed of an object, valid as long as the object is the same.

A guard reads every minute what changes a few times a day.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.trust import TrustedKey

# One environment has a handful of such objects.
_MOST = 32
_T = TypeVar("_T")
_lock = threading.Lock()
_known: OrderedDict[tuple[str, str, str, str, tuple[TrustedKey, ...]], tuple[str, Any]] = OrderedDict()


def remembered(store: ObjectStore, key: str, etag: str, read: Callable[[], _T]) -> _T:
    """What `read` returned for an object with this ETag under the same pinned keys. Do not modify the value.

    Args:
        etag: from a current listing; empty if unknown, which reads without caching.
    """
    if not etag:
        return read()
    place = (store.where, store.root, key, store.trust.environment, store.trust.trusted)
    with _lock:
        found = _known.get(place)
        if found is not None and found[0] == etag:
            _known.move_to_end(place)
            return found[1]  # type: ignore[no-any-return]
    value = read()
    with _lock:
        _known[place] = (etag, value)
        while len(_known) > _MOST:
            _known.popitem(last=False)
    return value
