"""Objects that fit in memory, read whole and checked; `ObjectStore.put` writes them.

Encrypted objects are recognized by their first bytes, so reading one requires no manifest.
"""

from __future__ import annotations

import hashlib

from tmi_ops.store.backend import CHECKSUM, ObjectHead
from tmi_ops.store.digest import damaged
from tmi_ops.store.encryption import decrypted, parse_recipients, read_identities
from tmi_ops.store.objects import ObjectStore

AGE_MAGIC = b"age-encryption.org/v1\n"


def look(store: ObjectStore, key: str) -> ObjectHead | None:
    """The head of an object; None if it does not exist.

    Raises:
        StoreError: the store failed.
    """
    return store.backend.head(key)


def get_single(store: ObjectStore, key: str, *, limit: int | None = None) -> tuple[bytes, ObjectHead]:
    """Read an object whole and check it against the SHA-256 in its metadata, if it has one.

    Args:
        limit: maximum size in bytes; no more are read.

    Raises:
        ObjectMissingError: the object does not exist.
        IntegrityError: it differs from what was stored, or is larger than `limit`.
        StoreError: the store failed.
    """
    body, head = store.backend.get(key, limit=None if limit is None else limit + 1)
    if limit is not None and len(body) > limit:
        raise damaged(f"{key} has {head.size} bytes; the limit is {limit}")
    expected = head.metadata.get(CHECKSUM)
    if expected is not None and hashlib.sha256(body).hexdigest() != expected:
        raise damaged(f"{key} was altered: its SHA-256 differs from the one stored with it")
    return body, head


def sealed(store: ObjectStore, plain: bytes) -> bytes:
    """Encrypt for the store's recipients; without recipients, return the same bytes.

    Raises:
        StoreError: a recipient is not an age public key.
    """
    if not store.recipients:
        return plain
    import pyrage

    return bytes(pyrage.encrypt(plain, parse_recipients(store.recipients)))


def is_sealed(body: bytes) -> bool:
    """Whether these stored bytes are an age file."""
    return body.startswith(AGE_MAGIC)


def unsealed(store: ObjectStore, key: str, body: bytes) -> bytes:
    """The plain bytes of what `sealed` returned, encrypted or not.

    Raises:
        StoreError: it is encrypted, and the private key is missing or does not match.
        IntegrityError: it cannot be decrypted.
    """
    if not is_sealed(body):
        return body
    return b"".join(decrypted(iter([body]), read_identities(store.identity_file), key))
