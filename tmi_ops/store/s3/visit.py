"""The doctor's requests to the S3 server, with one small object of our own below `<prefix>/<environment>/.doctor/`."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tmi_ops.errors import StoreError
from tmi_ops.settings import Retain, StoreSettings
from tmi_ops.store.s3.client import connect_store, store_session
from tmi_ops.store.s3.put import NO_ETAG
from tmi_ops.store.s3.refusals import DENIED_CODES, error_code, http_status, refusals_explained

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PROBE = b"tmi-ops doctor writes this object to test what its keys may do, and deletes it again.\n"
UNREACHABLE = "unreachable"
NO_KEYS = "no keys"
NOT_S3 = "not S3"


@dataclass(frozen=True)
class Reply:
    """The server's answer to one request.

    `code`: empty on success, else the server's error code or one of the constants above. `date`: the server's clock;
    `received`: our clock at the same time.
    """

    code: str
    status: int = 0
    said: str = ""
    hint: str = ""
    date: datetime | None = None
    received: datetime = field(default_factory=lambda: datetime.now(UTC))
    content: Any = None

    @property
    def denied(self) -> bool:
        return self.code in DENIED_CODES


@dataclass
class StoreVisit:
    """One environment's part of the bucket. Requests are sent once, with few retries."""

    settings: StoreSettings
    environment: str
    probe_is_there: bool = False

    @property
    def bucket(self) -> str:
        return self.settings.bucket or ""

    @property
    def root(self) -> str:
        return self.settings.root(self.environment)

    @property
    def key(self) -> str:
        """The probe's key: one per host, so that probes that may not be deleted do not accumulate."""
        return f"{self.root}.doctor/{socket.gethostname()}"

    @cached_property
    def client(self) -> S3Client:
        """Raises StoreError: the endpoint is not a URL, or the AWS profile is unknown."""
        return connect_store(store_session(), self.settings, patience_s=0)

    @cached_property
    def listing(self) -> Reply:
        """The first request: it shows any problem on the way to the bucket."""
        answer = self.ask(
            lambda: self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.root, MaxKeys=1),
        )
        if not answer.code and answer.content.get("Name") != self.bucket:
            return Reply(NOT_S3, said="the answer is not a listing", date=answer.date)
        return answer

    def put(self, *, only_if_absent: bool = False) -> Reply:
        """Store the probe. With `only_if_absent`, a server with conditional puts answers 412 if it exists."""
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if only_if_absent else {}
        answer = self.ask(
            lambda: self.client.put_object(Bucket=self.bucket, Key=self.key, Body=PROBE, **condition),
        )
        self.probe_is_there |= not answer.code
        return answer

    def put_over_another(self) -> Reply:
        """Put the probe with an ETag that it cannot have as condition: a server with conditional puts answers 412."""
        return self.ask(
            lambda: self.client.put_object(Bucket=self.bucket, Key=self.key, Body=PROBE, IfMatch=NO_ETAG),
        )

    def get(self) -> Reply:
        """Read the probe back; `content` is its bytes."""

        def read() -> Any:
            found = self.client.get_object(Bucket=self.bucket, Key=self.key)
            return {"ResponseMetadata": found["ResponseMetadata"], "Body": found["Body"].read()}

        answer = self.ask(read)
        return answer if answer.code else Reply("", content=answer.content["Body"], date=answer.date)

    def upload_in_parts(self) -> tuple[str, Reply]:
        """Begin an upload, send a part, list, abort; return the refused right and its reply, or those of the abort."""
        place: dict[str, Any] = {"Bucket": self.bucket, "Key": f"{self.key}.parts"}
        begun = self.ask(lambda: self.client.create_multipart_upload(**place))
        if begun.code:
            return "s3:PutObject", begun
        upload: dict[str, Any] = {**place, "UploadId": begun.content["UploadId"]}
        sent = self.ask(lambda: self.client.upload_part(**upload, PartNumber=1, Body=PROBE))
        listed = self.ask(lambda: self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=place["Key"]))
        aborted = self.ask(lambda: self.client.abort_multipart_upload(**upload))
        if sent.code:
            return "s3:PutObject", sent
        return ("s3:ListBucketMultipartUploads", listed) if listed.code else ("s3:AbortMultipartUpload", aborted)

    def lock_configuration(self) -> Reply:
        """Whether the bucket has Object Lock; `content` is a bool."""
        found = self.ask(lambda: self.client.get_object_lock_configuration(Bucket=self.bucket))
        if found.code:
            return found
        locks = found.content.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"
        return Reply("", content=locks, date=found.date)

    def put_locked(self, retain: Retain, until: datetime) -> Reply:
        """Store a locked object; `content` is its version."""
        put = self.ask(
            lambda: self.client.put_object(
                Bucket=self.bucket,
                Key=self._locked_key,
                Body=b"tmi-ops doctor tries to remove this locked object.\n",
                ObjectLockMode=retain.mode,
                ObjectLockRetainUntilDate=until,
            )
        )
        return put if put.code else Reply("", content=put.content.get("VersionId", ""), date=put.date)

    def delete_locked(self, version: str) -> Reply:
        """Try to delete what `put_locked` stored, with every right that our keys have."""
        return self.ask(
            lambda: self.client.delete_object(
                Bucket=self.bucket, Key=self._locked_key, VersionId=version, BypassGovernanceRetention=True
            )
        )

    @property
    def _locked_key(self) -> str:
        return f"{self.key}.locked"

    def delete(self) -> Reply:
        answer = self.ask(lambda: self.client.delete_object(Bucket=self.bucket, Key=self.key))
        if not answer.code:
            self.probe_is_there = False
        return answer

    def clean_up(self) -> None:
        """Delete the probe if the walk ended early."""
        if self.probe_is_there:
            with suppress(StoreError):
                self.delete()

    def ask(self, request: Callable[[], Any]) -> Reply:
        try:
            with refusals_explained(self.settings.describe()):
                content = request()
        except StoreError as error:
            return _refusal(error)
        return Reply("", 200, date=_date(content), content=content)


def _refusal(error: StoreError) -> Reply:
    from botocore import exceptions

    cause = error.__cause__
    if isinstance(cause, exceptions.ClientError):
        status = http_status(cause)
        code = error_code(cause) or str(status)
        said = str(cause.response.get("Error", {}).get("Message", "")) or code
        return Reply(code, status, said, error.hint, _date(cause.response))
    if isinstance(cause, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return Reply(NO_KEYS, said=error.message, hint=error.hint)
    if isinstance(cause, exceptions.HTTPClientError | exceptions.ConnectionError):
        return Reply(UNREACHABLE, said=error.message, hint=error.hint)
    return Reply(NOT_S3, said=error.message, hint=error.hint)


def _date(response: Any) -> datetime | None:
    said = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return parsedate_to_datetime(said).astimezone(UTC) if said else None
    except ValueError:
        return None
