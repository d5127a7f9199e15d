"""Documents that describe content: an encrypted store holds each encrypted in `<key>.age`, beside a clear part.

The clear part holds what retention and planning need, for hosts without the private key; the whole is for hosts that
have it. A store without recipients has one document, the whole.
"""

from __future__ import annotations

from tmi_ops.errors import ObjectMissingError
from tmi_ops.store.folders import SEALED
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.signed import read_document, write_once
from tmi_ops.store.small_objects import sealed, unsealed
from tmi_ops.store.trust import Purpose


def write_described(store: ObjectStore, key: str, clear: bytes, whole: bytes, purpose: Purpose) -> None:
    """Store a document, once.

    Args:
        clear: the part that everyone with access to the store may read.

    Raises:
        ObjectExistsError, UntrustedError, StoreError: as `write_once`.
    """
    if not store.recipients:
        write_once(store, key, whole, purpose)
        return
    write_once(store, f"{key}{SEALED}", sealed(store, whole), purpose)
    write_once(store, key, clear, purpose)


def read_described(store: ObjectStore, key: str, purpose: Purpose) -> bytes:
    """The whole document if this host has the private key, else the clear part.

    Raises:
        ObjectMissingError: the document does not exist.
        IntegrityError, UntrustedError, StoreError: as `read_document`; also if it cannot be decrypted.
    """
    if store.identity_file is not None:
        try:
            whole = read_document(store, f"{key}{SEALED}", purpose)
        except ObjectMissingError:
            pass
        else:
            return unsealed(store, key, whole)
    return read_document(store, key, purpose)
