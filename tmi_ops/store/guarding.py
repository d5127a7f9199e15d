"""What the store itself says about keeping: its clock, Object Lock, and uploads that never ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from tmi_ops.settings import Retain
from tmi_ops.store.client import error_code, refusals_explained
from tmi_ops.store.locking import locked_until_from
from tmi_ops.store.objects import ObjectStore

# The answers of a bucket that was made without Object Lock, and of servers that do not know it.
_NO_LOCK_CODES = {"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration", "NotImplemented", "404"}
# A legal hold has no end.
UNTIL_RELEASED = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class UnfinishedUpload:
    """A multipart upload that was neither completed nor aborted; `begun` is the server's clock."""

    key: str
    upload_id: str
    begun: datetime


def store_clock(store: ObjectStore) -> datetime:
    """What time the server says it is; ours where it says nothing."""
    with refusals_explained(store.where):
        answer = store.client.list_objects_v2(Bucket=store.bucket, Prefix=store.root, MaxKeys=1)
    date = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
    return parsedate_to_datetime(date).astimezone(UTC) if date else datetime.now(UTC)


def has_object_lock(store: ObjectStore) -> bool:
    """Whether the bucket was made with Object Lock.

    Raises:
        StoreError: the store failed, or does not let us ask.
    """
    with refusals_explained(store.where):
        try:
            answer = store.client.get_object_lock_configuration(Bucket=store.bucket)
        except store.client.exceptions.ClientError as error:
            if error_code(error) in _NO_LOCK_CODES:
                return False
            raise
    return answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"


def locked_until(store: ObjectStore, key: str) -> datetime | None:
    """Until when Object Lock keeps an object, `UNTIL_RELEASED` under a legal hold; None where nothing keeps it.

    Raises:
        ObjectMissingError: there is no such object.
        StoreError: the store failed.
    """
    with refusals_explained(store.where, key):
        head: Any = store.client.head_object(Bucket=store.bucket, Key=f"{store.root}{key}")
    if head.get("ObjectLockLegalHoldStatus") == "ON":
        return UNTIL_RELEASED
    until: datetime | None = head.get("ObjectLockRetainUntilDate")
    return until.astimezone(UTC) if until is not None else None


def extend_lock(store: ObjectStore, key: str, retain: Retain, now: datetime) -> None:
    """Have Object Lock keep an object for the whole period from now on. It never shortens.

    Raises:
        ObjectMissingError: there is no such object.
        StoreError: the store failed, or our key may not (s3:PutObjectRetention).
    """
    until = locked_until_from(retain, now)
    with refusals_explained(store.where, key):
        store.client.put_object_retention(
            Bucket=store.bucket, Key=f"{store.root}{key}", Retention={"Mode": retain.mode, "RetainUntilDate": until}
        )


def set_legal_hold(store: ObjectStore, key: str, *, on: bool) -> None:
    """Have the store itself keep an object until the hold is taken off; only where the bucket has Object Lock.

    Raises:
        StoreError: the store failed, or our key may not (s3:PutObjectLegalHold).
    """
    with refusals_explained(store.where, key):
        store.client.put_object_legal_hold(
            Bucket=store.bucket, Key=f"{store.root}{key}", LegalHold={"Status": "ON" if on else "OFF"}
        )


def unfinished_uploads(store: ObjectStore) -> list[UnfinishedUpload]:
    """All of the environment, by key."""
    pages = store.client.get_paginator("list_multipart_uploads").paginate(Bucket=store.bucket, Prefix=store.root)
    with refusals_explained(store.where):
        return [
            UnfinishedUpload(
                upload["Key"].removeprefix(store.root), upload["UploadId"], upload["Initiated"].astimezone(UTC)
            )
            for page in pages
            for upload in page.get("Uploads", ())
        ]


def abort_upload(store: ObjectStore, upload: UnfinishedUpload) -> None:
    """End one unfinished upload; one that ended meanwhile is no error."""
    with refusals_explained(store.where, upload.key):
        try:
            store.client.abort_multipart_upload(
                Bucket=store.bucket, Key=f"{store.root}{upload.key}", UploadId=upload.upload_id
            )
        except store.client.exceptions.ClientError as error:
            if error_code(error) != "NoSuchUpload":
                raise
