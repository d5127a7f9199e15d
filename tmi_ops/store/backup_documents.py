"""The documents of one backup: its manifest, written once, and the results of its verifications."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from tmi_ops.error_codes import Code
from tmi_ops.errors import ObjectExistsError, ObjectMissingError, StoreError
from tmi_ops.store.described import read_described, write_described
from tmi_ops.store.folders import (
    CHECKSUMS,
    MANIFEST,
    SEALED,
    VERIFICATION_PREFIX,
    is_verification,
    kind_of,
)
from tmi_ops.store.manifest import (
    BACKUP_ID,
    AnyManifest,
    BrokenRecordError,
    Kind,
    Manifest,
    Verification,
    in_clear,
    parse_listed,
    parse_manifest,
    parse_verification,
    to_json,
    verification_in_clear,
)
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.overview import changing
from tmi_ops.store.signed import read_document, write_once
from tmi_ops.store.small_objects import sealed, unsealed
from tmi_ops.store.trust import CLOCK_TOLERANCE, UntrustedError

_VERIFICATION_NAME = re.compile(rf"{VERIFICATION_PREFIX}(\d{{8}}T\d{{12}}Z)-[0-9a-f]{{4}}\.json")


def new_backup_id(kind: Kind, now: datetime) -> str:
    """A name that sorts by time: `20261123T020000Z-logical-7f3a`. `now` must be timezone-aware."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{kind}-{secrets.token_hex(2)}"


def backup_folder(backup_id: str) -> str:
    """The key of a backup's folder, without a trailing slash.

    Raises:
        StoreError: this is not a backup id.
    """
    match = BACKUP_ID.fullmatch(backup_id)
    if match is None:
        raise StoreError(
            f"{backup_id!r} is not a backup id.", hint="list the ids with `tmi-ops backups`", code=Code.NO_SUCH_BACKUP
        )
    return f"{match[1]}/{backup_id}"


def commit_manifest(store: ObjectStore, manifest: AnyManifest) -> None:
    """Commit a backup. Call it last, when every object is stored.

    In an encrypted store the manifest omits facts about the content; the whole is stored encrypted beside it
    (`whole_manifest`).

    Raises:
        ObjectExistsError: the id is taken; the existing manifest was left unchanged.
    """
    folder = backup_folder(manifest.backup_id)
    lines = [f"{item.sha256}  {item.name}\n" for item in manifest.objects]
    _write_once(store, f"{folder}/{CHECKSUMS}", "".join(lines).encode())
    data = to_json(in_clear(manifest) if store.recipients else manifest)
    if store.recipients:
        write_once(store, f"{folder}/{MANIFEST}{SEALED}", sealed(store, to_json(manifest)), "backup")
    with changing(store, manifest.backup_id):
        write_once(store, f"{folder}/{MANIFEST}", data, "backup")
    manifest.remember_stored(data)


@contextmanager
def discarded_on_failure(store: ObjectStore, backup_id: str) -> Iterator[None]:
    """Remove what a backup has stored so far if the block fails, Ctrl-C included, and raise the failure again.

    If the store itself has failed, the remaining objects have no manifest, so they are no backup, and are swept later.
    """
    try:
        yield
    except BaseException as failure:
        try:
            discard(store, backup_id)
        except StoreError as error:
            failure.add_note(f"Objects of {backup_id} could not be removed: {error.message}")
        raise


def read_manifest(store: ObjectStore, backup_id: str) -> AnyManifest:
    """Read the manifest of one backup.

    Raises:
        ObjectMissingError: the backup does not exist.
        StoreError: the manifest was written by a newer release, or is broken.
    """
    return _manifest(store, backup_id, parse_manifest)


def read_listed_manifest(store: ObjectStore, backup_id: str) -> AnyManifest:
    """As `read_manifest`, without the facts about single tables and sequences.

    Raises:
        ObjectMissingError, StoreError: as `read_manifest`.
    """
    return _manifest(store, backup_id, parse_listed)


def _manifest(store: ObjectStore, backup_id: str, parse: Callable[[bytes, str], AnyManifest]) -> AnyManifest:
    key = f"{backup_folder(backup_id)}/{MANIFEST}"
    manifest = parse(read_document(store, key, "backup"), key)
    if manifest.backup_id != backup_id or manifest.kind != kind_of(backup_id):
        raise BrokenRecordError(
            f"The manifest {key} belongs to another backup, {manifest.backup_id} ({manifest.kind}).",
            hint="find out who copied it there; it does not describe the objects beside it",
            code=Code.MISPLACED,
        )
    _require_own(store, manifest, key)
    return manifest


def require_encrypted(store: ObjectStore, manifest: AnyManifest) -> None:
    """Check that a backup is encrypted if keys are pinned and the store has recipients.

    Raises:
        UntrustedError: it is not.
    """
    if store.trust.is_pinned and store.recipients and not manifest.encrypted:
        raise UntrustedError(
            f"{manifest.backup_id} is not encrypted, but TMI_OPS_AGE_RECIPIENTS says that every backup is.",
            detail="It was not used and not changed.",
            hint="find out who took it; if it was taken before encryption was set up, unset TMI_OPS_AGE_RECIPIENTS "
            "for this command",
            code=Code.NOT_ENCRYPTED,
        )


def whole_manifest(store: ObjectStore, manifest: Manifest) -> Manifest:
    """The manifest with its facts about the content, if they are encrypted and this host has the private key.

    Raises:
        UntrustedError: the encrypted manifest belongs to something else.
        StoreError: the store failed, or the manifest cannot be decrypted.
    """
    key = f"{backup_folder(manifest.backup_id)}/{MANIFEST}{SEALED}"
    if store.identity_file is None or not manifest.recipients:
        return manifest
    try:
        whole = parse_manifest(unsealed(store, key, read_document(store, key, "backup")), key)
    except ObjectMissingError:
        return manifest
    if not isinstance(whole, Manifest) or in_clear(whole).model_dump() != manifest.model_dump():
        raise UntrustedError(
            f"{key} does not match the manifest beside it.", hint="find out who put it there", code=Code.MISPLACED
        )
    whole.remember_stored_as(manifest)
    return whole


def read_newest_verification(store: ObjectStore, manifest: AnyManifest, keys: Iterable[str]) -> Verification | None:
    """The result of a backup's newest verification; None if it was never verified.

    Args:
        keys: of objects beside the backup; other objects than verification results are ignored. Their names begin with
            their time.

    Raises:
        BrokenRecordError: the result cannot be read, was renamed or copied, or, if keys are pinned, was not signed by a
            trusted prover for this manifest. Older results are not consulted then.
    """
    newest = max((key for key in keys if is_verification(key.rpartition("/")[2])), default=None)
    return None if newest is None else _read_verification(store, manifest, newest)


def record_verification(store: ObjectStore, verification: Verification) -> None:
    """Record the result of a verification beside the backup. Results accumulate; none is replaced."""
    name = f"{VERIFICATION_PREFIX}{_verification_time(verification)}-{secrets.token_hex(2)}.json"
    key = f"{backup_folder(verification.backup_id)}/{name}"
    with changing(store, verification.backup_id):
        write_described(store, key, to_json(verification_in_clear(verification)), to_json(verification), "proof")


def discard(store: ObjectStore, backup_id: str) -> None:
    """Remove an uncommitted backup: its unfinished uploads and its objects. May be repeated.

    Raises:
        StoreError: it has a manifest, so it is a backup; nothing was deleted.
    """
    folder = f"{backup_folder(backup_id)}/"
    if is_committed(store, backup_id):
        raise StoreError(
            f"{backup_id} has a manifest: it is a complete backup, not an unfinished one.",
            detail="Nothing was deleted.",
            hint="leave its removal to `tmi-ops prune`",
        )
    store.abort_stale_uploads(folder, older_than=timedelta(0))
    store.delete(item.key for item in store.list_objects(folder))


def _write_once(store: ObjectStore, key: str, data: bytes) -> None:
    """Like `write_once`, but accepts an existing object with the same bytes."""
    try:
        write_once(store, key, data, "backup")
    except ObjectExistsError:
        if store.get_bytes(key) != data:
            raise


def is_committed(store: ObjectStore, backup_id: str) -> bool:
    try:
        store.size(f"{backup_folder(backup_id)}/{MANIFEST}")
    except ObjectMissingError:
        return False
    return True


def _require_own(store: ObjectStore, manifest: AnyManifest, key: str) -> None:
    """Check that the manifest belongs to this environment and is not from the future, if keys are pinned."""
    if not store.trust.is_pinned:
        return
    if manifest.environment != store.trust.environment:
        raise UntrustedError(
            f"The manifest {key} is of the environment {manifest.environment!r}, not of {store.trust.environment!r}.",
            hint="find out who copied it there; to restore it, set TMI_ENV to its own environment",
            code=Code.MISPLACED,
        )
    taken = datetime.strptime(manifest.backup_id[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    now = datetime.now(UTC)
    if taken > now + CLOCK_TOLERANCE:
        raise UntrustedError(
            f"The backup {manifest.backup_id} has a time in the future: this machine's clock says "
            f"{now:%Y-%m-%d %H:%M} UTC.",
            hint="correct this machine's clock; if it is right, find out who wrote the backup",
        )


def _read_verification(store: ObjectStore, manifest: AnyManifest, key: str) -> Verification:
    verification = parse_verification(read_described(store, key, "proof"), key)
    name = key.rpartition("/")[2]
    match = _VERIFICATION_NAME.fullmatch(name)
    if verification.backup_id != manifest.backup_id or match is None or match[1] != _verification_time(verification):
        raise UntrustedError(
            f"The verification result {key} was copied or renamed: its content is of {verification.backup_id}, "
            f"verified at {verification.verified_at:%Y-%m-%d %H:%M:%S} UTC.",
            hint=f"find out who put it there, remove it, then run `tmi-ops verify {manifest.backup_id}`",
            code=Code.MISPLACED,
        )
    if store.trust.is_pinned and verification.manifest_sha256 != manifest.stored_sha256:
        raise UntrustedError(
            f"The verification result {key} belongs to another manifest of this backup.",
            hint=f"verify the backup as it is now: `tmi-ops verify {manifest.backup_id}`",
            code=Code.MISPLACED,
        )
    return verification


def _verification_time(verification: Verification) -> str:
    return f"{verification.verified_at.astimezone(UTC):%Y%m%dT%H%M%S%fZ}"
