"""What a key had signed when it was retired: so whoever steals it later cannot date a signature back.

The record lies in the store, a line for each signature; its SHA-256 stands in the pinned word of the retired key, so
nobody who writes the store can add a line. WAL is not in it: each segment names the digest of the one before it, and
the first one of the new key that of the last one of the old.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tmi_ops.errors import IntegrityError, ObjectMissingError
from tmi_ops.store.folders import SIGNATURE
from tmi_ops.store.minisign import PublicKey
from tmi_ops.store.signed import LARGEST_DOCUMENT, read_signature
from tmi_ops.store.single_put import get_single
from tmi_ops.store.trust import Signed, UntrustedError
from tmi_ops.store.vouching import purpose_of

if TYPE_CHECKING:
    from tmi_ops.store.objects import ObjectStore

READERS = 16


def record_key(digest: str) -> str:
    """The key of the object that holds the record of this SHA-256."""
    return f"keys/{digest}.signed"


def keep_record(store: ObjectStore, key: PublicKey) -> str:
    """Store the record of what a key has signed until now, and can be believed.

    Returns:
        Its SHA-256.

    Raises:
        StoreError: the store failed.
    """
    documents = [item.key for item in store.list_objects("") if purpose_of(item.key) not in (None, "WAL")]
    with ThreadPoolExecutor(READERS, thread_name_prefix="keys") as pool:
        found = [line for line in pool.map(lambda name: _line(store, key, name), documents) if line]
    data = "".join(sorted(found)).encode()
    digest = hashlib.sha256(data).hexdigest()
    store.put_bytes(record_key(digest), data)
    return digest


@dataclass
class Records:
    """The records of one store, read when they are first asked for."""

    store: ObjectStore
    _known: dict[str, frozenset[str]] = field(default_factory=dict)

    def __call__(self, digest: str) -> frozenset[str]:
        """Digests of the signatures in a record.

        Raises:
            UntrustedError: the record is gone, or was altered.
            StoreError: the store failed.
        """
        if digest not in self._known:
            self._known[digest] = frozenset(line.split(" ", 1)[0] for line in self._read(digest).splitlines())
        return self._known[digest]

    def _read(self, digest: str) -> str:
        try:
            data = get_single(self.store, record_key(digest), limit=LARGEST_DOCUMENT)[0]
        except (ObjectMissingError, IntegrityError):
            data = b""
        if hashlib.sha256(data).hexdigest() != digest:
            raise UntrustedError(
                f"{record_key(digest)}, the record of what a retired key had signed, is gone or was altered.",
                kept="Nothing was changed.",
                next_step="bring it back if the bucket keeps versions; else sign anew what you know to be good: "
                "`tmi-ops keys sign`",
            )
        return data.decode()


def _line(store: ObjectStore, key: PublicKey, name: str) -> str | None:
    """None: the document was not signed by this key, or is not to be believed."""
    signature = read_signature(store, name)
    purpose = purpose_of(name)
    if signature is None or purpose is None:
        return None
    try:
        data = get_single(store, name, limit=LARGEST_DOCUMENT)[0]
        signed: Signed = store.trust.check(name, data, signature, purpose, datetime.now(UTC))
    except (UntrustedError, ObjectMissingError, IntegrityError):
        return None
    return f"{hashlib.sha256(signature).hexdigest()}  {name}{SIGNATURE}\n" if signed.key == key else None
