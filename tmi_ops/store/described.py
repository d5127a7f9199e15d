"""Documents that describe content: in an encrypted store they lie sealed in `<key>.age`, beside a clear part.

The clear part holds what retention and planning need of it and is read by hosts without the private key; the whole is
read by those that have it. In a store without recipients there is one document, the whole.
"""

from __future__ import annotations

from tmi_ops.errors import ObjectMissingError
from tmi_ops.store.folders import SEALED
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.signed import read_document, write_once
from tmi_ops.store.single_put import sealed, unsealed
from tmi_ops.store.trust import Purpose


def write_described(store: ObjectStore, key: str, clear: bytes, whole: bytes, purpose: Purpose) -> None:
    """Store a document, once.

    Args:
        clear: what may be read by everybody who can read the store.

    Raises:
        ObjectExistsError, UntrustedError, StoreError: as `write_once`.
    """
    if not store.recipients:
        write_once(store, key, whole, purpose)
        return
    write_once(store, f"{key}{SEALED}", sealed(store, whole), purpose)
    write_once(store, key, clear, purpose)


def read_described(store: ObjectStore, key: str, purpose: Purpose) -> bytes:
    """The whole document where this host has the private key, else what is in clear.

    Raises:
        ObjectMissingError: there is none.
        IntegrityError, UntrustedError, StoreError: as `read_document`; also where it cannot be decrypted.
    """
    if store.identity_file is not None:
        try:
            whole = read_document(store, f"{key}{SEALED}", purpose)
        except ObjectMissingError:
            pass
        else:
            return unsealed(store, key, whole)
    return read_document(store, key, purpose)
