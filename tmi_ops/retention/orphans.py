"""Finds unfinished uploads and half-made backups from listings alone, cheaply. Retention checks again before it removes
them."""

from __future__ import annotations

from datetime import datetime

from tmi_ops.retention.planning import HALF_MADE_AFTER, UPLOAD_STALE_AFTER
from tmi_ops.store.guarding import unfinished_uploads
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.overview import overview


def find_orphans(store: ObjectStore, now: datetime) -> list[str]:
    """The keys of unfinished uploads and the ids of half-made backups that are too old to be still in progress.

    Raises:
        StoreError: the store failed.
    """
    uploads = unfinished_uploads(store)
    stale = [upload.key for upload in uploads if now - upload.begun > UPLOAD_STALE_AFTER]
    at_work = {part for upload in uploads if upload.key not in stale for part in upload.key.split("/")}
    forgotten = [
        folder.backup_id
        for folder in overview(store).folders.values()
        if folder.manifest_at is None
        and not folder.held
        and now - folder.touched_at > HALF_MADE_AFTER
        and folder.backup_id not in at_work
    ]
    return stale + forgotten
