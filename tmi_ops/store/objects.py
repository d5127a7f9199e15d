"""The store: one environment's part of an S3 bucket, and the verbs on its objects.

Every key is relative to `<prefix>/<environment>/`. A missing object is an ObjectMissingError, whatever the verb; any
other refusal is a StoreError that names the next step. What the server answers is durable.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tmi_ops.errors import ObjectExistsError, ObjectMissingError, StoreError
from tmi_ops.progress import Phase
from tmi_ops.settings import StoreSettings
from tmi_ops.store.client import READ_TIMEOUT_S, connect_store, http_status, refusals_explained, store_session
from tmi_ops.store.digest import Digest, RunningDigest, checked, require_equal
from tmi_ops.store.download import Source, read_object
from tmi_ops.store.encryption import ByteSink, EncryptingSink, decrypted, parse_recipients, read_identities
from tmi_ops.store.manifest import StoredObject
from tmi_ops.store.upload import Upload

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DELETE_BATCH = 1000
HURRIED_READ_TIMEOUT_S = 5
# A writer that meets another one at the same instant (409) is asked to try again.
CONDITIONAL_ATTEMPTS = 5
_CONFLICT = 409
_PRECONDITION_FAILED = 412
_CONDITIONS_UNKNOWN = {400, 501}
_PROBE_KEY = ".conditional-put"
_PROBE = b"tmi_ops asks with this object whether the store refuses to overwrite (If-None-Match: *).\n"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ListedObject:
    """One object of a listing. `size` in bytes; `modified` is the server's clock, aware."""

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class ObjectStore:
    """A handle on one environment's objects. Usable from several threads; holds no state but its connections."""

    client: S3Client = field(repr=False)
    bucket: str
    root: str
    where: str
    recipients: tuple[str, ...] = ()
    identity_file: Path | None = None

    def upload(self, key: str, chunks: Iterable[bytes], *, phase: Phase | None = None) -> StoredObject:
        """Stream an object of any length into the store, encrypted when recipients are configured.

        The object appears whole or not at all; an older one of that key is replaced. Memory stays bounded (see
        `upload.py`). On any failure, Ctrl-C and an exception of `chunks` included, nothing is left behind and the
        failure passes on.

        Args:
            phase: advanced by plain bytes as they are taken in.

        Returns:
            Sizes and digests, counted while streaming. Its name is the key below `<kind>/<backup id>/`.
        """
        upload = Upload(self.client, self.bucket, self._full(key), self.where)
        sink: ByteSink = EncryptingSink(upload, self.recipients) if self.recipients else upload
        plain = RunningDigest() if self.recipients else None
        try:
            for chunk in chunks:
                sink.write(chunk)
                if plain is not None:
                    plain.update(chunk)
                if phase is not None:
                    phase.advance(len(chunk))
            stored = sink.finish()
        except BaseException:
            sink.abort()
            raise
        return _stored_object(key, stored, plain.result() if plain is not None else None)

    def download(self, key: str, expected: StoredObject | None = None) -> Iterator[bytes]:
        """Stream an object out of the store, reading ahead within bounded memory.

        With `expected`, the stored bytes are checked against it, decrypted when it says so, and the plain bytes are
        checked too; the last chunk comes only after all that. Without, stored bytes come as they are, unchecked.
        Closing the iterator early stops the reading.

        Raises:
            ObjectMissingError: there is no such object (raised by the call itself).
            IntegrityError: truncated, too long, altered or undecryptable; the message says which.
            StoreError: the store failed, or the private key is missing or another's.
        """
        identities = read_identities(self.identity_file) if expected and expected.encrypted else []
        source = self._source(key)
        stored = read_object(source)
        if expected is None:
            return stored
        found = Digest(source.size, expected.sha256)
        require_equal(found, Digest(expected.size, expected.sha256), key)
        stored = checked(stored, Digest(expected.size, expected.sha256), key)
        if not expected.encrypted:
            return stored
        plain = decrypted(stored, identities, key)
        return checked(plain, Digest(expected.plain_size, expected.plain_sha256), f"{key}, decrypted,")

    def put_bytes(self, key: str, data: bytes) -> None:
        """Store a small object, unencrypted. Replaces an older one; may be repeated."""
        with refusals_explained(self.where, key):
            self.client.put_object(Bucket=self.bucket, Key=self._full(key), Body=data)

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Store a small object, unencrypted, unless there is one of that key: of two writers one wins.

        A server that cannot do so atomically is recognised once per handle; then a look precedes the put, with a
        warning, and two writers at the same instant may both believe that they won.

        Raises:
            ObjectExistsError: there is one; it was left as it is.
        """
        if not self._has_conditional_puts:
            if self._exists(key):
                raise _exists_already(key)
            self.put_bytes(key, data)
        elif not self._put_if_none_match(key, data):
            raise _exists_already(key)

    def get_bytes(self, key: str) -> bytes:
        """Read a small object whole, as it is stored."""
        return b"".join(self.download(key))

    def size(self, key: str) -> int:
        """The stored bytes of an object."""
        return self._source(key).size

    def list_objects(self, prefix: str) -> Iterator[ListedObject]:
        """All objects whose key begins with `prefix`, by key. An empty listing is not an error."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._full(prefix))
        with refusals_explained(self.where):
            for page in pages:
                for item in page.get("Contents", ()):
                    key = item["Key"].removeprefix(self.root)
                    yield ListedObject(key, item["Size"], item["LastModified"].astimezone(UTC))

    def list_folders(self, prefix: str) -> list[str]:
        """The names directly below the folder `prefix` that hold objects, sorted; without the prefix and slashes."""
        folder = self._full(f"{prefix.rstrip('/')}/" if prefix else "")
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=folder, Delimiter="/")
        with refusals_explained(self.where):
            found = [item["Prefix"] for page in pages for item in page.get("CommonPrefixes", ())]
        return sorted(name.removeprefix(folder).rstrip("/") for name in found)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; an absent one counts as deleted, so this may be repeated.

        Raises:
            StoreError: the store kept one, for example under a hold; those deleted before stay deleted.
        """
        waiting = iter(keys)
        while batch := list(islice(waiting, DELETE_BATCH)):
            with refusals_explained(self.where):
                answer = self.client.delete_objects(
                    Bucket=self.bucket, Delete={"Objects": [{"Key": self._full(key)} for key in batch], "Quiet": True}
                )
            kept = [error for error in answer.get("Errors", ()) if error.get("Code") != "NoSuchKey"]
            if kept:
                raise StoreError(
                    f"The store kept {len(kept)} objects that were to be deleted; the first: "
                    f"{kept[0].get('Key')}: {kept[0].get('Message') or kept[0].get('Code')}.",
                    kept="What it kept is whole.",
                    next_step="allow s3:DeleteObject to these keys, or wait until the hold on it ends",
                )

    def abort_stale_uploads(self, prefix: str, older_than: timedelta) -> int:
        """Abort unfinished multipart uploads below `prefix` that began more than `older_than` ago.

        Ages are by the server's clock. Zero aborts all: only where no upload can be running.

        Returns:
            How many were aborted.
        """
        pages = self.client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.bucket, Prefix=self._full(prefix)
        )
        aborted = 0
        with refusals_explained(self.where):
            for page in pages:
                now = _server_time(page["ResponseMetadata"]["HTTPHeaders"])
                for upload in page.get("Uploads", ()):
                    if older_than and now - upload["Initiated"] <= older_than:
                        continue
                    self.client.abort_multipart_upload(
                        Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
                    aborted += 1
        return aborted

    def _full(self, key: str) -> str:
        return f"{self.root}{key}"

    def _source(self, key: str) -> Source:
        with refusals_explained(self.where, key):
            found = self.client.head_object(Bucket=self.bucket, Key=self._full(key))
        return Source(self.client, self.bucket, self._full(key), found["ContentLength"], found["ETag"], self.where)

    def _exists(self, key: str) -> bool:
        try:
            self.size(key)
        except ObjectMissingError:
            return False
        return True

    @cached_property
    def _has_conditional_puts(self) -> bool:
        """Whether the server refuses to overwrite: the probe is there after the first put, so the second must fail."""
        try:
            supported = not (
                self._put_if_none_match(_PROBE_KEY, _PROBE) and self._put_if_none_match(_PROBE_KEY, _PROBE)
            )
        except StoreError as error:
            if error.__cause__ is None or http_status(error.__cause__) not in _CONDITIONS_UNKNOWN:
                raise
            supported = False
        if not supported:
            message = (
                f"The store {self.where} has no conditional put (If-None-Match). tmi_ops looks before it writes "
                "instead; let only one tmi_ops at a time write backups there."
            )
            warnings.warn(message, RuntimeWarning, stacklevel=4)
            _log.warning(message)
        return supported

    def _put_if_none_match(self, key: str, data: bytes) -> bool:
        """Put unless the key exists; False when it does."""
        for attempt in range(1, CONDITIONAL_ATTEMPTS + 1):
            with refusals_explained(self.where, key):
                try:
                    self.client.put_object(Bucket=self.bucket, Key=self._full(key), Body=data, IfNoneMatch="*")
                except self.client.exceptions.ClientError as error:
                    if http_status(error) == _PRECONDITION_FAILED:
                        return self._was_ours(error.response["ResponseMetadata"]["RetryAttempts"], key, data)
                    if http_status(error) != _CONFLICT or attempt == CONDITIONAL_ATTEMPTS:
                        raise
                else:
                    return True
        raise AssertionError

    def _was_ours(self, retries: int, key: str, data: bytes) -> bool:
        """A retried put may have met the object that its own first attempt stored before the answer was lost."""
        return retries > 0 and self.get_bytes(key) == data


def open_store(settings: StoreSettings, environment: str, *, hurried: bool = False) -> ObjectStore:
    """Reach the store and see that the bucket answers to our keys. Quick to fail.

    Args:
        hurried: stay quick to fail with every request after that, for what has something else to fall back on.

    Raises:
        StoreError: no bucket is configured or it does not exist, the endpoint or the keys are wrong, or a recipient
            is not an age public key; the message names the next step.
    """
    if not settings.bucket:
        raise StoreError(
            "No bucket is configured for the backups.",
            next_step="set TMI_OPS_S3_BUCKET (and TMI_OPS_S3_ENDPOINT_URL for a server other than AWS), or run "
            "`tmi-ops up` for the embedded stack",
        )
    if settings.age_recipients:
        parse_recipients(settings.age_recipients)
    root = "/".join(part for part in (settings.prefix.strip("/"), environment) if part) + "/"
    session = store_session()
    silence_s = HURRIED_READ_TIMEOUT_S if hurried else READ_TIMEOUT_S
    impatient = connect_store(session, settings, patience_s=0, read_timeout_s=silence_s)
    with refusals_explained(settings.describe()):
        # A listing, not HeadBucket: only an answer with a body says whether bucket or keys are wrong.
        answer = impatient.list_objects_v2(Bucket=settings.bucket, Prefix=root, MaxKeys=1)
    if answer.get("Name") != settings.bucket:
        raise StoreError(
            f"What answers at {settings.endpoint_url} is not an S3 server.",
            next_step="correct TMI_OPS_S3_ENDPOINT_URL: it is the S3 server's API, not its web page",
        )
    return ObjectStore(
        client=impatient if hurried else connect_store(session, settings),
        bucket=settings.bucket,
        root=root,
        where=settings.describe(),
        recipients=settings.age_recipients,
        identity_file=settings.age_identity_file,
    )


def _stored_object(key: str, stored: Digest, plain: Digest | None) -> StoredObject:
    original = plain or stored
    return StoredObject(
        name=key.split("/", 2)[-1],
        size=stored.size,
        sha256=stored.sha256,
        plain_size=original.size,
        plain_sha256=original.sha256,
        encrypted=plain is not None,
    )


def _exists_already(key: str) -> ObjectExistsError:
    return ObjectExistsError(
        f"The store already has {key}.",
        kept="It was left as it is.",
        next_step="see whether another tmi_ops wrote it: `tmi-ops backups`",
    )


def _server_time(headers: dict[str, str]) -> datetime:
    from email.utils import parsedate_to_datetime

    return parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
