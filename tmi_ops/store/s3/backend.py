"""The contract of `tmi_ops/store/backend.py` on an S3 server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tmi_ops.error_codes import Code
from tmi_ops.errors import ObjectMissingError, StoreError
from tmi_ops.settings import Retain, StoreSettings, without_credentials
from tmi_ops.store.backend import Condition, Kept, ListedObject, ObjectHead, Put, Stream, UnfinishedUpload
from tmi_ops.store.locking import lock_request
from tmi_ops.store.s3.client import PATIENCE_S, connect_store, store_session
from tmi_ops.store.s3.download import Source, read_object
from tmi_ops.store.s3.guard import S3Guard
from tmi_ops.store.s3.guide import CONNECT
from tmi_ops.store.s3.kept import kept_clients, make_clients
from tmi_ops.store.s3.put import Puts
from tmi_ops.store.s3.refusals import error_code, refusals_explained
from tmi_ops.store.s3.upload import Upload

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ABSENT = ("NoSuchKey", "NoSuchVersion")
_READINGS = 5


@dataclass(frozen=True)
class S3Backend:
    """One environment's part of a bucket. Thread-safe; holds no state but its connections."""

    client: S3Client = field(repr=False)
    bucket: str
    root: str
    where: str
    retain: Retain | None = None

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.root}"

    def guide_values(self) -> dict[str, str]:
        endpoint = without_credentials(self.client.meta.endpoint_url)
        return {
            "CONNECT": CONNECT,
            "ROOT": self.url.rstrip("/"),
            "ENDPOINT": endpoint,
            "REGION": self.client.meta.region_name,
        }

    @property
    def guard(self) -> S3Guard:
        return S3Guard(self.client, self.bucket, self.root, self.where)

    @cached_property
    def puts(self) -> Puts:
        return Puts(self.client, self.bucket, self.root, self.where, self.retain)

    def head(self, key: str) -> ObjectHead | None:
        try:
            return _head(self._look(key))
        except ObjectMissingError:
            return None

    def get(self, key: str, *, limit: int | None = None) -> tuple[bytes, ObjectHead]:
        from botocore.exceptions import BotoCoreError

        with refusals_explained(self.where, key):
            for attempt in range(1, _READINGS + 1):
                answer: Any = self.client.get_object(Bucket=self.bucket, Key=self._full(key))
                try:
                    body = bytes(answer["Body"].read(limit))
                    break
                except (BotoCoreError, OSError):
                    if attempt == _READINGS:
                        raise
        if limit is not None and answer["ContentLength"] > limit:
            answer["Body"].close()
        return body, _head(answer)

    def get_beginning(self, key: str, size: int) -> bytes:
        with refusals_explained(self.where, key):
            answer: Any = self.client.get_object(Bucket=self.bucket, Key=self._full(key), Range=f"bytes=0-{size - 1}")
            return bytes(answer["Body"].read())

    def stream(self, key: str) -> Stream:
        found = self._look(key)
        size = found["ContentLength"]
        return Stream(
            size, read_object(Source(self.client, self.bucket, self._full(key), size, found["ETag"], self.where))
        )

    def objects(self, prefix: str, *, after: str = "") -> Iterator[ListedObject]:
        request: Any = {"StartAfter": self._full(after)} if after else {}
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self._full(prefix), **request
        )
        with refusals_explained(self.where):
            for page in pages:
                for item in page.get("Contents", ()):
                    yield self._listed(item)

    def level(self, folder: str, *, after: str = "") -> tuple[list[ListedObject], list[str]]:
        full = self._full(folder)
        request: Any = {"StartAfter": self._full(after)} if after else {}
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=full, Delimiter="/", **request
        )
        objects: list[ListedObject] = []
        folders: list[str] = []
        with refusals_explained(self.where):
            for page in pages:
                objects += [self._listed(item) for item in page.get("Contents", ())]
                folders += [item["Prefix"].removeprefix(full).rstrip("/") for item in page.get("CommonPrefixes", ())]
        return objects, sorted(folders)

    def put(
        self,
        key: str,
        body: bytes,
        metadata: Mapping[str, str] | None = None,
        condition: Condition = None,
        *,
        quick: bool = False,
    ) -> Put:
        return self.puts.put(key, body, metadata, condition, quick=quick)

    def upload(self, key: str) -> Upload:
        return Upload(
            self.client,
            self.bucket,
            self._full(key),
            self.where,
            lambda body: self.put(key, body),
            lock_request(self.retain, key, datetime.now(UTC)),
        )

    def restamp(self, key: str, metadata: Mapping[str, str], etag: str) -> None:
        with refusals_explained(self.where, key):
            self.client.copy_object(
                Bucket=self.bucket,
                Key=self._full(key),
                CopySource={"Bucket": self.bucket, "Key": self._full(key)},
                CopySourceIfMatch=etag,
                MetadataDirective="REPLACE",
                Metadata=metadata,
                **lock_request(self.retain, key, datetime.now(UTC)),
            )

    def delete(self, stored: Sequence[tuple[str, str | None]]) -> list[Kept]:
        wanted: Any = [
            {"Key": self._full(key), **({} if version is None else {"VersionId": version})} for key, version in stored
        ]
        with refusals_explained(self.where):
            answer = self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": wanted, "Quiet": True})
        return [
            Kept(error.get("Key", "").removeprefix(self.root), error.get("Message") or error.get("Code", ""))
            for error in answer.get("Errors", ())
            if error.get("Code") not in _ABSENT
        ]

    def unfinished(self, prefix: str) -> Iterator[UnfinishedUpload]:
        pages = self.client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.bucket, Prefix=self._full(prefix)
        )
        with refusals_explained(self.where):
            for page in pages:
                now = _time_of(page)
                for upload in page.get("Uploads", ()):
                    begun = upload["Initiated"].astimezone(UTC)
                    yield UnfinishedUpload(
                        upload["Key"].removeprefix(self.root), upload["UploadId"], begun, (now - begun).total_seconds()
                    )

    def abort(self, upload: UnfinishedUpload) -> None:
        with refusals_explained(self.where, upload.key):
            try:
                self.client.abort_multipart_upload(
                    Bucket=self.bucket, Key=self._full(upload.key), UploadId=upload.upload_id
                )
            except self.client.exceptions.ClientError as error:
                if error_code(error) != "NoSuchUpload":
                    raise

    def clock(self) -> datetime:
        with refusals_explained(self.where):
            return _time_of(self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.root, MaxKeys=1))

    def watch(self, note: Callable[[str], None]) -> Callable[[], None]:
        def count(model: Any, **_: object) -> None:
            note(str(model.name))

        events: Any = self.client.meta.events
        events.register("before-call.s3", count, unique_id=str(id(count)))
        return lambda: events.unregister("before-call.s3", count, unique_id=str(id(count)))

    def _full(self, key: str) -> str:
        return f"{self.root}{key}"

    def _look(self, key: str) -> Any:
        with refusals_explained(self.where, key):
            return self.client.head_object(Bucket=self.bucket, Key=self._full(key))

    def _listed(self, item: Any) -> ListedObject:
        key = item["Key"].removeprefix(self.root)
        return ListedObject(key, item["Size"], item["LastModified"].astimezone(UTC), item.get("ETag", ""))


def open_bucket(settings: StoreSettings, root: str, *, hurried: bool = False, kept: bool = False) -> S3Backend:
    """Connect to the server, and check that the bucket accepts our keys. Fails fast.

    Args:
        hurried: every later request fails fast too.
        kept: reuse this process's clients, which have checked the bucket recently; see `kept.py`.

    Raises:
        StoreError: the bucket does not exist, or the endpoint or the keys are wrong.
    """
    clients = kept_clients(settings, hurried=hurried) if kept else make_clients(settings, hurried=hurried)
    if clients.must_ask(root):
        _see(clients.impatient, settings, root)
        clients.answered(root)
    return S3Backend(clients.patient, settings.bucket or "", root, settings.describe(), settings.retain)


def _see(client: S3Client, settings: StoreSettings, root: str) -> None:
    """Raises StoreError: as `open_bucket`."""
    bucket = settings.bucket or ""
    with refusals_explained(settings.describe()):
        # A listing, not HeadBucket: only a response with a body shows whether the bucket or the keys are wrong.
        answer = client.list_objects_v2(Bucket=bucket, Prefix=root, MaxKeys=1)
    if answer.get("Name") != bucket:
        raise StoreError(
            f"The server at {settings.public_endpoint} is not an S3 server.",
            hint="set TMI_OPS_S3_ENDPOINT_URL to the S3 API's address, not to the address of its web page",
            code=Code.STORE_ADDRESS,
        )


def bucket_backend(settings: StoreSettings, root: str, patience_s: float = PATIENCE_S) -> S3Backend:
    """A back end that has sent no request yet."""
    client = connect_store(store_session(), settings, patience_s=patience_s)
    return S3Backend(client, settings.bucket or "", root, settings.describe(), settings.retain)


def _head(answer: Any) -> ObjectHead:
    modified = answer["LastModified"].astimezone(UTC)
    return ObjectHead(
        size=answer["ContentLength"],
        etag=answer["ETag"],
        metadata=answer.get("Metadata", {}),
        modified=modified,
        age_s=(_time_of(answer) - modified).total_seconds(),
        version=answer.get("VersionId"),
    )


def _time_of(answer: Any) -> datetime:
    """The server's time, or ours if it does not send it."""
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return parsedate_to_datetime(date).astimezone(UTC) if date else datetime.now(UTC)
