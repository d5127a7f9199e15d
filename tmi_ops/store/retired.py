"""What a key had signed when it was retired, so that a thief who steals it later cannot backdate a signature.

The record is in the store, one line per signature. Its SHA-256 is part of the retired key's pinned word, so write
access to the store is not enough to add a line. Of WAL it has the last segment of each timeline: the key has signed
nothing beyond it, and every earlier segment is bound by the digest that the next one has of it.
"""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tmi_ops.errors import IntegrityError, ObjectMissingError
from tmi_ops.store.folders import SIGNATURE
from tmi_ops.store.minisign import PublicKey
from tmi_ops.store.signed import LARGEST_DOCUMENT, read_signature
from tmi_ops.store.small_objects import get_single, look
from tmi_ops.store.stamped import STAMP, canonical
from tmi_ops.store.trust import Purpose, Record, UntrustedError, last_segments, signature_of
from tmi_ops.store.vouching import purpose_of

if TYPE_CHECKING:
    from tmi_ops.store.objects import ObjectStore

READERS = 16
# Objects signed in their metadata that are not soon rewritten anyway.
_STAMPED: tuple[tuple[re.Pattern[str], Purpose], ...] = (
    (re.compile(r"objectives/[^/]+\.json"), "reading"),
    (re.compile(r"wal/[^/]+/(?:[0-9A-F]{8}\.history\.zst|lease\.json|records\.json)"), "WAL"),
)
# Precedes the name of a timeline's last segment.
_UP_TO = "<="


def record_key(digest: str) -> str:
    """The key of the object that holds the record of this SHA-256."""
    return f"keys/{digest}.signed"


def keep_record(store: ObjectStore, key: PublicKey) -> str:
    """Store the record of what a key has validly signed until now.

    Returns:
        Its SHA-256.

    Raises:
        StoreError: the store failed.
    """
    keys = [item.key for item in store.list_objects("")]
    with ThreadPoolExecutor(READERS, thread_name_prefix="keys") as pool:
        found = [line for line in pool.map(lambda name: _line(store, key, name), keys) if line]
    found += [f"{_UP_TO}{name}  {folder}\n" for folder, name in {"wal": "", **last_segments(keys)}.items()]
    data = "".join(sorted(found)).encode()
    digest = hashlib.sha256(data).hexdigest()
    store.put_bytes(record_key(digest), data)
    return digest


@dataclass
class Records:
    """The records of one store, read on first use."""

    store: ObjectStore
    _known: dict[str, Record] = field(default_factory=dict)

    def __call__(self, digest: str) -> Record:
        """The record of this SHA-256.

        Raises:
            UntrustedError: the record is missing, or was altered.
            StoreError: the store failed.
        """
        if digest not in self._known:
            self._known[digest] = _record_of(self._read(digest))
        return self._known[digest]

    def _read(self, digest: str) -> str:
        try:
            data = get_single(self.store, record_key(digest), limit=LARGEST_DOCUMENT)[0]
        except (ObjectMissingError, IntegrityError):
            data = b""
        if hashlib.sha256(data).hexdigest() != digest:
            raise UntrustedError(
                f"{record_key(digest)}, the record of what a retired key had signed, is missing or was altered.",
                hint="restore its old version if the bucket keeps versions; otherwise sign the documents that you know "
                "to be good: `tmi-ops keys sign`",
            )
        return data.decode()


def _record_of(text: str) -> Record:
    parts = [line.split("  ", 1) for line in text.splitlines()]
    segments = {folder: word.removeprefix(_UP_TO) for word, folder in parts if word.startswith(_UP_TO)}
    return Record(frozenset(word for word, _ in parts if not word.startswith(_UP_TO)), segments or None)


def _line(store: ObjectStore, key: PublicKey, name: str) -> str | None:
    """The record's line for an object; None if it was not signed by this key, or is not trusted."""
    signed = _signed(store, name)
    if signed is None:
        return None
    content, signature, purpose, where = signed
    try:
        signer = store.trust.check(name, content, signature, purpose, datetime.now(UTC)).key
    except UntrustedError:
        return None
    return f"{hashlib.sha256(signature).hexdigest()}  {where}\n" if signer == key else None


def _signed(store: ObjectStore, name: str) -> tuple[bytes, bytes, Purpose, str] | None:
    """Signed content, signature, purpose and the signature's location; None if a record does not hold this object."""
    stamped = next((purpose for pattern, purpose in _STAMPED if pattern.fullmatch(name)), None)
    if stamped is not None:
        head = look(store, name)
        stamp = None if head is None else head.metadata.get(STAMP)
        if head is None or stamp is None:
            return None
        return canonical(head.metadata), signature_of(stamp), stamped, name
    purpose = purpose_of(name)
    if purpose is None or purpose == "WAL":
        return None
    signature = read_signature(store, name)
    if signature is None:
        return None
    try:
        return get_single(store, name, limit=LARGEST_DOCUMENT)[0], signature, purpose, f"{name}{SIGNATURE}"
    except (ObjectMissingError, IntegrityError):
        return None
