"""The only way to write and read documents in the store: signed, and checked against pinned keys.

A document's signature is stored beside it as `<key>.minisig`; the standard `minisign` program checks it. The signature
is stored first, so that a document never exists without it. Without a signing key none is written; without pinned keys
(TMI_OPS_TRUSTED_KEYS) none is required.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from datetime import UTC, datetime

from tmi_ops.errors import ObjectExistsError, ObjectMissingError
from tmi_ops.store.backend import IfAbsent, IfUnchanged
from tmi_ops.store.folders import SIGNATURE
from tmi_ops.store.minisign import LONGEST_SIGNATURE
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.small_objects import get_single, look
from tmi_ops.store.trust import Purpose, Signed, TrustedKey, UntrustedError

# Far above the manifest of ten thousand tables.
LARGEST_DOCUMENT = 64 << 20
# If a signature has no document, its writer died, or is about to write the document.
_ABANDONED_S = 60.0
# The new signature of a document is written before the document itself; a reader in between reads again.
_READINGS = 4
_PAUSE_S = 0.3
# Checked signatures, by bytes, keys and purpose.
_CHECKED: dict[tuple[bytes, str, tuple[TrustedKey, ...]], Signed] = {}
_MOST_CHECKED = 65536


def write_once(store: ObjectStore, key: str, data: bytes, purpose: Purpose) -> None:
    """Store a document unless one has that key.

    Raises:
        ObjectExistsError: one exists; it was left unchanged.
        UntrustedError: keys are pinned, and ours may not sign this; nothing was written.
        StoreError: the store failed.
    """
    signature = _signature(store, key, data, purpose)
    if signature is not None:
        _reserve(store, key, signature)
    store.put_if_absent(key, data)


def write_over(store: ObjectStore, key: str, data: bytes, purpose: Purpose) -> None:
    """Store a document, replacing an older one. May be repeated.

    Raises:
        UntrustedError: keys are pinned, and ours may not sign this; nothing was written.
        StoreError: the store failed.
    """
    write_signature(store, key, data, purpose)
    store.put_bytes(key, data)


def write_signature(store: ObjectStore, key: str, data: bytes, purpose: Purpose) -> None:
    """Store only the signature of a document, if there is a signing key.

    Raises:
        UntrustedError: keys are pinned, and ours may not sign this; nothing was written.
        StoreError: the store failed.
    """
    signature = _signature(store, key, data, purpose)
    if signature is not None:
        store.put_bytes(f"{key}{SIGNATURE}", signature)


def read_document(store: ObjectStore, key: str, purpose: Purpose) -> bytes:
    """Read a document and, if keys are pinned, check that a trusted key signed it.

    Raises:
        ObjectMissingError: the document does not exist.
        UntrustedError: it is unsigned, altered, moved, or signed by a key that lacks the role.
        IntegrityError: it is larger than any document of ours.
        StoreError: the store failed.
    """
    return read_signed(store, key, purpose)[0]


def read_signed(store: ObjectStore, key: str, purpose: Purpose) -> tuple[bytes, Signed | None]:
    """As `read_document`, also returning who signed it; None if no keys are pinned."""
    for attempt in range(1, _READINGS + 1):
        data = _whole(store, key, LARGEST_DOCUMENT)
        if not store.trust.is_pinned:
            return data, None
        try:
            return data, _check(store, key, data, purpose)
        except UntrustedError:
            if attempt == _READINGS or not _is_new(store, key):
                raise
        store = replace(store, at_hand=None)
        time.sleep(_PAUSE_S)
    raise AssertionError


def read_signature(store: ObjectStore, key: str) -> bytes | None:
    """The signature file of a document; None if it has none."""
    try:
        return _whole(store, f"{key}{SIGNATURE}", LONGEST_SIGNATURE)
    except ObjectMissingError:
        return None


def _signature(store: ObjectStore, key: str, data: bytes, purpose: Purpose) -> bytes | None:
    now = datetime.now(UTC)
    signature = store.trust.sign(key, data, now)
    if store.trust.is_pinned:
        store.trust.check(key, data, signature, purpose, now)
    return signature


def _reserve(store: ObjectStore, key: str, signature: bytes) -> None:
    """Store a signature before its document; of two writers one continues."""
    name = f"{key}{SIGNATURE}"
    try:
        store.put(name, signature, condition=IfAbsent())
    except ObjectExistsError as error:
        found = look(store, name)
        if found is None or look(store, key) is not None or found.age_s < _ABANDONED_S:
            raise ObjectExistsError(
                f"{key} already exists in the store, or is being written.",
                detail=error.detail,
                hint="see what is there with `tmi-ops backups`",
            ) from None
        store.put(name, signature, condition=IfUnchanged(found.etag))


def _is_new(store: ObjectStore, key: str) -> bool:
    found = look(store, f"{key}{SIGNATURE}") or look(store, key)
    return found is not None and found.age_s < _ABANDONED_S


def _whole(store: ObjectStore, key: str, limit: int) -> bytes:
    if store.at_hand is not None:
        try:
            known = store.at_hand(key)
        except LookupError:
            pass
        else:
            if known is None:
                raise ObjectMissingError(f"The store {store.where} has no object {key}.")
            return known
    return get_single(store, key, limit=limit)[0]


def _check(store: ObjectStore, key: str, data: bytes, purpose: Purpose) -> Signed:
    """As `Trust.check`, once for the same bytes under the same keys: a guard reads them every minute."""
    signature = read_signature(store, key)
    digest = hashlib.sha256(f"{purpose} {key}\n{len(data)}\n".encode())
    digest.update(data)
    digest.update(signature or b"")
    place = (digest.digest(), store.trust.environment, store.trust.trusted)
    known = _CHECKED.get(place)
    if known is None:
        known = store.trust.check(key, data, signature, purpose, datetime.now(UTC))
        if len(_CHECKED) >= _MOST_CHECKED:
            _CHECKED.clear()
        _CHECKED[place] = known
    return known
