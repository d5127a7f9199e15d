"""Object Lock, and the rights of our access keys, tested with requests that change nothing on the server.

Each such request names something that does not exist. If the server denies it, the keys lack the right; if it deletes
something that does not exist, they have it. Some servers look for the upload or object before they check the right, so
an answer that it does not exist shows nothing. An answer about one object shows nothing about others that a policy
treats separately.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tmi_ops.settings import Retain
from tmi_ops.store.backend import UNTIL_RELEASED
from tmi_ops.store.locking import locked_until_from
from tmi_ops.store.s3.refusals import DENIED_CODES, error_code, refusals_explained

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

NOWHERE = ".doctor/nothing-is-here"
_NO_UPLOAD = "0" * 32
# The responses of a bucket that was created without Object Lock, and of servers that do not support it.
_NO_LOCK_CODES = {"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration", "NotImplemented", "404"}


@dataclass(frozen=True)
class S3Guard:
    """The `Guard` of one environment's part of a bucket."""

    client: S3Client = field(repr=False)
    bucket: str
    root: str
    where: str

    def has_lock(self) -> bool:
        with refusals_explained(self.where):
            try:
                answer = self.client.get_object_lock_configuration(Bucket=self.bucket)
            except self.client.exceptions.ClientError as error:
                if error_code(error) in _NO_LOCK_CODES:
                    return False
                raise
        return answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"

    def locked_until(self, key: str) -> datetime | None:
        with refusals_explained(self.where, key):
            head: Any = self.client.head_object(Bucket=self.bucket, Key=f"{self.root}{key}")
        if head.get("ObjectLockLegalHoldStatus") == "ON":
            return UNTIL_RELEASED
        until: datetime | None = head.get("ObjectLockRetainUntilDate")
        return until.astimezone(UTC) if until is not None else None

    def extend_lock(self, key: str, retain: Retain, now: datetime) -> None:
        with refusals_explained(self.where, key):
            self._put_retention(key, retain, now)

    def set_legal_hold(self, key: str, *, on: bool) -> None:
        with refusals_explained(self.where, key):
            self.client.put_object_legal_hold(
                Bucket=self.bucket, Key=f"{self.root}{key}", LegalHold={"Status": "ON" if on else "OFF"}
            )

    def may_delete(self) -> bool | None:
        """Do not call it for a bucket that keeps versions, which would record the test as a deletion."""
        return self._asked(
            lambda: self.client.delete_object(Bucket=self.bucket, Key=f"{self.root}{NOWHERE}"), obeyed=True
        )

    def may_abort_uploads(self) -> bool | None:
        return self._asked(
            lambda: self.client.abort_multipart_upload(
                Bucket=self.bucket, Key=f"{self.root}{NOWHERE}", UploadId=_NO_UPLOAD
            )
        )

    def may_extend_locks(self, retain: Retain, now: datetime) -> bool | None:
        return self._asked(lambda: self._put_retention(NOWHERE, retain, now))

    def _put_retention(self, key: str, retain: Retain, now: datetime) -> object:
        wanted: Any = {"Mode": retain.mode, "RetainUntilDate": locked_until_from(retain, now)}
        return self.client.put_object_retention(Bucket=self.bucket, Key=f"{self.root}{key}", Retention=wanted)

    def _asked(self, ask: Callable[[], object], obeyed: bool | None = None) -> bool | None:
        """Send a test request: False if it is denied, None if the answer shows nothing.

        Args:
            obeyed: the result if the server carries it out.
        """
        with refusals_explained(self.where):
            try:
                ask()
            except self.client.exceptions.ClientError as error:
                return False if error_code(error) in DENIED_CODES else None
        return obeyed
