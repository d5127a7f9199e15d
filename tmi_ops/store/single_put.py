"""Objects that fit in memory, read whole and checked; they are put by `ObjectStore.put`.

What is encrypted is recognised by its first bytes, so an object needs no manifest to be read.
"""

from __future__ import annotations

import hashlib

from tmi_ops.store.backend import CHECKSUM, ObjectHead
from tmi_ops.store.digest import damaged
from tmi_ops.store.encryption import decrypted, parse_recipients, read_identities
from tmi_ops.store.objects import ObjectStore

AGE_MAGIC = b"age-encryption.org/v1\n"


def look(store: ObjectStore, key: str) -> ObjectHead | None:
    """The head of an object; None where there is none.

    Raises:
        StoreError: the store failed.
    """
    return store.backend.head(key)


def get_single(store: ObjectStore, key: str, *, limit: int | None = None) -> tuple[bytes, ObjectHead]:
    """Read an object whole and check it against the SHA-256 in its metadata, where it has one.

    Args:
        limit: the most bytes that it may have; no more are read.

    Raises:
        ObjectMissingError: there is none.
        IntegrityError: it is not what was stored, or larger than `limit`.
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
    """Encrypted for the store's recipients; the same bytes where it has none.

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
    """The plain bytes of what `sealed` made, or was given in an unencrypted store.

    Raises:
        StoreError: it is encrypted, and the private key is missing or another's.
        IntegrityError: it cannot be decrypted.
    """
    if not is_sealed(body):
        return body
    return b"".join(decrypted(iter([body]), read_identities(store.identity_file), key))
