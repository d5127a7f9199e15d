"""Holds: an object in a backup's folder that keeps the backup until a person releases it, with the reason.

In an encrypted store the reason is in a second, encrypted object; retention needs only the hold itself and its time. If
the bucket has Object Lock, every object of the backup and its chain is also put under a legal hold, so that no program
with our keys can delete it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from tmi_ops.error_codes import Code
from tmi_ops.errors import ObjectExistsError, ObjectMissingError, StoreError
from tmi_ops.retention.facts import Hold
from tmi_ops.store.backup_documents import backup_folder, read_manifest
from tmi_ops.store.described import read_described
from tmi_ops.store.folders import HOLD, SEALED, SIGNATURE
from tmi_ops.store.guarding import has_object_lock, set_legal_hold
from tmi_ops.store.manifest import AnyManifest, BaseManifest
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.overview import changing, overview
from tmi_ops.store.signed import read_document, write_once, write_over
from tmi_ops.store.small_objects import sealed

SEALED_REASON = "(encrypted: read it on a host with the private key)"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: int = 1
    backup_id: str
    reason: str
    since: AwareDatetime


def hold_key(backup_id: str) -> str:
    return f"{backup_folder(backup_id)}/{HOLD}"


def hold_backup(store: ObjectStore, backup_id: str, reason: str) -> Hold:
    """Keep a backup and its chain until it is released.

    Raises:
        ObjectMissingError: there is no such backup.
        ObjectExistsError: it is already held; that hold was left as it is.
        StoreError: the store failed. If the hold itself was written, it is in force.
    """
    manifest = read_manifest(store, backup_id)
    record = _Record(backup_id=backup_id, reason=reason.strip(), since=datetime.now(UTC))
    clear = record.model_copy(update={"reason": SEALED_REASON}) if store.recipients else record
    try:
        with changing(store, backup_id):
            write_once(store, hold_key(backup_id), _to_json(clear), "hold")
            if store.recipients:
                write_over(store, f"{hold_key(backup_id)}{SEALED}", sealed(store, _to_json(record)), "hold")
    except ObjectExistsError:
        held = read_hold(store, backup_id)
        raise ObjectExistsError(
            f"{backup_id} is already held{f', since {held.since:%Y-%m-%d}: {held.reason}' if held else ''}.",
            detail="That hold was not changed.",
            hint=f"to change the reason, run `tmi-ops release {backup_id}`, then hold it again",
            code=Code.HOLD_EXISTS,
        ) from None
    if has_object_lock(store):
        for key in _objects_of(store, manifest):
            set_legal_hold(store, key, on=True)
    return Hold(backup_id, record.reason, record.since)


def release_backup(store: ObjectStore, backup_id: str) -> Hold:
    """Release a hold. The policy then decides about the backup again.

    Returns:
        The hold that was released.

    Raises:
        ObjectMissingError: it is not held.
        StoreError: the store failed; the hold stays, and releasing may be repeated.
    """
    held = read_hold(store, backup_id)
    if held is None:
        raise ObjectMissingError(f"{backup_id} is not held.", hint="see `tmi-ops holds`", code=Code.NOT_HELD)
    if has_object_lock(store):
        others = [hold.backup_id for hold in list_holds(store) if hold.backup_id != backup_id]
        still_held = {key for other in others for key in _objects_of(store, read_manifest(store, other))}
        for key in _objects_of(store, read_manifest(store, backup_id)):
            if key not in still_held:
                set_legal_hold(store, key, on=False)
    with changing(store, backup_id):
        # The unencrypted part last: while it exists, the backup is held.
        store.delete([f"{hold_key(backup_id)}{SEALED}", f"{hold_key(backup_id)}{SEALED}{SIGNATURE}"])
        store.delete([hold_key(backup_id), f"{hold_key(backup_id)}{SIGNATURE}"])
    return held


def _objects_of(store: ObjectStore, manifest: AnyManifest) -> Iterator[str]:
    """The keys of the objects of a backup and its chain, except the holds."""
    chain = manifest.chain if isinstance(manifest, BaseManifest) else ()
    for backup_id in (*chain, manifest.backup_id):
        for item in store.list_objects(f"{backup_folder(backup_id)}/"):
            if not item.key.startswith(hold_key(backup_id)):
                yield item.key


def _to_json(record: _Record) -> bytes:
    return record.model_dump_json(indent=2).encode() + b"\n"


def list_holds(store: ObjectStore) -> list[Hold]:
    """All holds, newest first.

    Raises:
        StoreError: one of them cannot be parsed, or the store failed.
    """
    view = overview(store)
    known = view.over(store)
    found = [read_hold(known, folder.backup_id) for folder in view.folders.values() if folder.held]
    held = [hold for hold in found if hold is not None]
    return sorted(held, key=lambda hold: hold.since, reverse=True)


def read_hold(store: ObjectStore, backup_id: str) -> Hold | None:
    """The hold on a backup. None if there is none.

    Raises:
        StoreError: the hold exists and cannot be parsed, or the store failed.
    """
    key = hold_key(backup_id)
    try:
        # The unencrypted part is the hold. An encrypted reason that is left over without it holds nothing.
        clear = read_document(store, key, "hold")
        record = _Record.model_validate_json(
            clear if store.identity_file is None else read_described(store, key, "hold")
        )
    except ObjectMissingError:
        return None
    except ValidationError:
        raise StoreError(
            f"The hold {key} cannot be read.",
            detail="It counts as a hold. Nothing was deleted.",
            hint=f"delete this object, then hold the backup again: `tmi-ops hold {backup_id} --reason ...`",
        ) from None
    return Hold(backup_id, record.reason, record.since)
