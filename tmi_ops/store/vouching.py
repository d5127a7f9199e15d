"""Sign documents already in the store, on a person's decision: older than the keys, or after a key was stolen."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tmi_ops.error_codes import Code
from tmi_ops.errors import SettingsError
from tmi_ops.store.manifest import BACKUP_ID
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.signed import read_signature, write_signature
from tmi_ops.store.small_objects import get_single, look
from tmi_ops.store.stamped import STAMP, canonical, stamp_again
from tmi_ops.store.trust import Purpose, UntrustedError

_BACKUP = rf"(?:logical|base)/{BACKUP_ID.pattern}"
# The kind of document by object key.
_DOCUMENTS: tuple[tuple[re.Pattern[str], Purpose], ...] = (
    (re.compile(rf"{_BACKUP}/(?:manifest\.json(?:\.age)?|SHA256SUMS)"), "backup"),
    (re.compile(rf"{_BACKUP}/(?:verdict|drill)-[^/]+"), "proof"),
    (re.compile(r"drills/[^/]+"), "proof"),
    (re.compile(rf"{_BACKUP}/hold\.json(?:\.age)?"), "hold"),
    (re.compile(r"restore-points/.+"), "restore point"),
    (re.compile(r"runbooks/[^/]+/[^/]+"), "journal"),
    (re.compile(r"RESTORE\.md"), "guide"),
    # Not the open segment: its receiver rewrites it, signed, every few seconds.
    (re.compile(r"wal/[^/]+/(?!index\.zst|links/|.*\.partial\.).+\.zst"), "WAL"),
)


@dataclass(frozen=True)
class Unsigned:
    """A document that readers with pinned keys refuse, and why."""

    key: str
    purpose: Purpose
    why: str


def purpose_of(key: str) -> Purpose | None:
    """The kind of document that an object is; None if it is not a document, or a signature."""
    if key.endswith(".minisig"):
        return None
    return next((purpose for pattern, purpose in _DOCUMENTS if pattern.fullmatch(key)), None)


def unsigned_documents(store: ObjectStore, beginning: str = "") -> list[Unsigned]:
    """Documents that this host's key may sign and that no trusted key has signed as they are.

    Raises:
        SettingsError: there is no signing key, or no keys are pinned.
        StoreError: the store failed.
    """
    if store.trust.signing is None or not store.trust.is_pinned:
        raise SettingsError(
            "Signing needs TMI_OPS_SIGNING_KEY_FILE and TMI_OPS_TRUSTED_KEYS.",
            hint="create keys with `tmi-ops keys init`",
            code=Code.SIGNING_KEY,
        )
    return list(_unsigned(store, beginning))


def sign_documents(store: ObjectStore, documents: Sequence[Unsigned]) -> None:
    """Sign documents as they are, and the metadata of WAL.

    Raises:
        StoreError: the store failed; documents signed before stay signed.
    """
    for one in documents:
        if one.purpose == "WAL":
            stamp_again(store, one.key, one.purpose)
            continue
        write_signature(store, one.key, get_single(store, one.key)[0], one.purpose)


def _unsigned(store: ObjectStore, beginning: str) -> Iterator[Unsigned]:
    for item in store.list_objects(beginning):
        purpose = purpose_of(item.key)
        if purpose is None or not store.trust.may_sign(purpose):
            continue
        try:
            _check(store, item.key, purpose)
        except UntrustedError as error:
            yield Unsigned(item.key, purpose, error.message.removeprefix(f"{item.key} "))


def _check(store: ObjectStore, key: str, purpose: Purpose) -> None:
    now = datetime.now(UTC)
    if purpose == "WAL":
        head = look(store, key)
        metadata = head.metadata if head else {}
        store.trust.check_stamp(key, canonical(metadata), metadata.get(STAMP), purpose, now)
    else:
        store.trust.check(key, get_single(store, key)[0], read_signature(store, key), purpose, now)
