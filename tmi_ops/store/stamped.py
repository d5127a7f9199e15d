"""Objects with their signature in their own metadata: one request stores both, so neither exists without the other.

For WAL, of which an object is stored every few seconds. The signature covers the object's key and all other metadata:
the plain file's size and SHA-256, its links, and the SHA-256 of the previous segment. So the segments of a timeline
form a chain of which no link can be moved or replaced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime

from tmi_ops.error_codes import Code
from tmi_ops.store.backend import CHECKSUM, Condition, Put, missing
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.small_objects import is_sealed
from tmi_ops.store.trust import Purpose, UntrustedError

STAMP = "signature"
BODY = "sha256"


def put_stamped(
    store: ObjectStore,
    key: str,
    body: bytes,
    metadata: Mapping[str, str],
    condition: Condition,
    purpose: Purpose,
    *,
    quick: bool = False,
) -> Put:
    """As `ObjectStore.put`, with a signature of the metadata if there is a signing key.

    Raises:
        UntrustedError: keys are pinned, and ours may not sign this; nothing was written.
        ObjectExistsError, ObjectChangedError, StoreError: as `ObjectStore.put`.
    """
    content = canonical(metadata)
    stamp = store.trust.stamp(key, content)
    if store.trust.is_pinned:
        store.trust.check_stamp(key, content, stamp, purpose, datetime.now(UTC))
    return store.put(key, body, {**metadata, **({STAMP: stamp} if stamp else {})}, condition, quick=quick)


def require_stamp(
    store: ObjectStore, key: str, metadata: Mapping[str, str], body: bytes | None, purpose: Purpose
) -> None:
    """Check that a trusted key signed the metadata, and that the body is encrypted if the store has recipients.

    Args:
        body: as stored; None if only the metadata was read.

    Raises:
        UntrustedError: the message says what is wrong.
    """
    if not store.trust.is_pinned:
        return
    store.trust.check_stamp(key, canonical(metadata), metadata.get(STAMP), purpose, datetime.now(UTC))
    if body is not None and store.recipients and not is_sealed(body):
        raise UntrustedError(
            f"{key} is not encrypted, but TMI_OPS_AGE_RECIPIENTS says that everything is.",
            hint="find out who wrote it; if it was written before encryption was set up, unset TMI_OPS_AGE_RECIPIENTS "
            "for this command",
            code=Code.NOT_ENCRYPTED,
        )


def put_note(store: ObjectStore, key: str, body: bytes, condition: Condition, purpose: Purpose) -> Put:
    """As `put_stamped`, for a small document that is rewritten under one name: its digest is signed."""
    return put_stamped(store, key, body, {BODY: hashlib.sha256(body).hexdigest()}, condition, purpose)


def check_note(store: ObjectStore, key: str, metadata: Mapping[str, str], body: bytes, purpose: Purpose) -> None:
    """Check that a trusted key signed what `put_note` wrote.

    Raises:
        UntrustedError: the message says what is wrong.
    """
    require_stamp(store, key, metadata, None, purpose)
    if store.trust.is_pinned and metadata.get(BODY) != hashlib.sha256(body).hexdigest():
        raise UntrustedError(f"{key} was altered after it was signed.", hint="find out who wrote it")


def stamp_again(store: ObjectStore, key: str, purpose: Purpose) -> None:
    """Sign the metadata of an existing object, by copying it over itself.

    Raises:
        UntrustedError: keys are pinned, and ours may not sign this; nothing was written.
        ObjectMissingError: the object does not exist.
        StoreError: the store failed, or another writer replaced the object meanwhile.
    """
    found = store.backend.head(key)
    if found is None:
        raise missing(key)
    content = canonical(found.metadata)
    stamp = store.trust.stamp(key, content)
    store.trust.check_stamp(key, content, stamp, purpose, datetime.now(UTC))
    store.backend.restamp(key, {**found.metadata, STAMP: stamp or ""}, found.etag)


def canonical(metadata: Mapping[str, str]) -> bytes:
    """The bytes to sign: a line `name=value` each, sorted by name, without the signature and transport-only entries."""
    return "".join(
        f"{name}={value}\n" for name, value in sorted(metadata.items()) if name not in (STAMP, CHECKSUM)
    ).encode()
