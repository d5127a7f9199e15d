"""The only put of an object in one request: with metadata, a checksum that the server enforces, and a condition.

A condition makes the put atomic against other writers: `IfAbsent`, or `IfUnchanged` since an ETag was read. Some S3
servers reject conditions, and some ignore them: they return 200 and overwrite. Each kind of condition is tried once per
process and store, on an object of our own. If the server does not honour it, the object's head is read before the put,
with a warning, and of two writers at the same instant both may believe that they won.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import threading
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tmi_ops.errors import ObjectMissingError, StoreError
from tmi_ops.settings import Retain
from tmi_ops.store.backend import CHECKSUM, Condition, IfAbsent, IfUnchanged, Put, holds, refused
from tmi_ops.store.locking import lock_request
from tmi_ops.store.s3.quick_put import QuickPuts
from tmi_ops.store.s3.refusals import arrived_damaged, http_status, refusals_explained

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PROBE_KEY = ".conditional-put"
PROBE = b"tmi_ops asks with this object whether the store refuses to overwrite (If-None-Match: *, If-Match).\n"
# An ETag that no object has: it is not the MD5 of anything that we store.
NO_ETAG = '"00000000000000000000000000000000"'
_PRECONDITION_FAILED = 412
_NOT_FOUND = 404
_CONFLICT = 409
_CONDITIONS_UNKNOWN = {400, 501}
# Attempts for a put that meets another writer at the same instant (409), or whose body arrives damaged.
_SENDINGS = 5
_log = logging.getLogger(__name__)
# Conditions that a server honours, by its address, the bucket and our root in it.
_HONOURED: dict[tuple[str, str, str], dict[type[IfAbsent | IfUnchanged], bool]] = {}


class Puts:
    """Puts into one environment's part of a bucket, from any thread. Remembers which conditions the server honours."""

    def __init__(self, client: S3Client, bucket: str, root: str, where: str, retain: Retain | None = None) -> None:
        self._client = client
        self._bucket = bucket
        self._root = root
        self._where = where
        self._retain = retain
        self._honoured = _HONOURED.setdefault((where, bucket, root), {})
        self._probing = threading.Lock()
        self._quick = QuickPuts(client, bucket)

    def put(
        self,
        key: str,
        body: bytes,
        metadata: Mapping[str, str] | None = None,
        condition: Condition = None,
        *,
        quick: bool = False,
    ) -> Put:
        """Store an object whole, with the SHA-256 of the body in its metadata.

        Args:
            quick: use as little CPU as possible; see `quick_put.py`.

        Raises:
            ObjectExistsError: the condition was `IfAbsent` and the object exists.
            ObjectChangedError: the condition was `IfUnchanged` and the object has changed or is gone.
            StoreError: the store failed.
        """
        if condition is not None and not self.honours(type(condition)):
            found = self._look(key)
            if not holds(condition, found["ETag"] if found else None):
                raise refused(key, condition)
            condition = None
        stored = self._send(key, body, metadata or {}, condition, quick=quick)
        if stored is None:
            raise refused(key, condition)
        return stored

    def honours(self, kind: type[IfAbsent | IfUnchanged]) -> bool:
        """Whether the server honours conditions of this kind; tested once, with a warning if it does not.

        Raises:
            StoreError: the store failed, or our keys may not write the probe object.
        """
        with self._probing:
            if kind not in self._honoured:
                self._honoured[kind] = self._refuses_to_overwrite(kind)
                if not self._honoured[kind]:
                    _warn(self._where, kind)
            return self._honoured[kind]

    def _refuses_to_overwrite(self, kind: type[IfAbsent | IfUnchanged]) -> bool:
        """The first put ensures that our object exists, so the second, whose condition does not hold, must fail."""
        try:
            if self._send(PROBE_KEY, PROBE, {}, IfAbsent()) is None and kind is IfAbsent:
                return True
            condition = IfAbsent() if kind is IfAbsent else IfUnchanged(NO_ETAG)
            return self._send(PROBE_KEY, PROBE, {}, condition, may_be_ours=False) is None
        except StoreError as error:
            if error.__cause__ is None or http_status(error.__cause__) not in _CONDITIONS_UNKNOWN:
                raise
            return False

    def _send(
        self,
        key: str,
        body: bytes,
        metadata: Mapping[str, str],
        condition: Condition,
        *,
        may_be_ours: bool = True,
        quick: bool = False,
    ) -> Put | None:
        """None if the condition does not hold."""
        digest = hashlib.sha256(body)
        request: dict[str, Any] = {
            "Bucket": self._bucket,
            "Key": f"{self._root}{key}",
            "Body": body,
            "ChecksumSHA256": base64.b64encode(digest.digest()).decode(),
            "Metadata": {**metadata, CHECKSUM: digest.hexdigest()},
            **lock_request(self._retain, key, datetime.now(UTC)),
        }
        if isinstance(condition, IfAbsent):
            request["IfNoneMatch"] = "*"
        elif isinstance(condition, IfUnchanged):
            request["IfMatch"] = condition.etag
        sent_before = False
        if quick and self._quick.takes(request):
            try:
                if (answer := self._quick.put(request)) is not None:
                    return _put(answer)
            except Exception:  # noqa: BLE001 - the normal put finds out what it was
                sent_before = True
        for attempt in range(1, _SENDINGS + 1):
            with refusals_explained(self._where, key):
                try:
                    return self._confirmed(key, self._client.put_object(**request))
                except self._client.exceptions.ClientError as error:
                    status = http_status(error)
                    gone = isinstance(condition, IfUnchanged) and status == _NOT_FOUND
                    if condition is not None and (status == _PRECONDITION_FAILED or gone):
                        sent_before |= attempt > 1 or error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0
                        return self._ours(key, digest.hexdigest()) if sent_before and may_be_ours else None
                    if not _is_worth_another(error, status) or attempt == _SENDINGS:
                        raise
        raise AssertionError

    def _confirmed(self, key: str, answer: Any) -> Put:
        if not answer.get("ETag"):
            raise StoreError(
                f"What answers for {self._where} confirmed {key} without an ETag, as no S3 server does.",
                detail="It does not count as stored.",
                hint="see what is between here and the S3 server: a proxy or a web page may answer in its place",
                transient=True,
            )
        return _put(answer)

    def _ours(self, key: str, sha256: str) -> Put | None:
        """A retried put may find the object that its own first attempt stored before the response was lost."""
        found = self._look(key)
        return _put(found) if found and found.get("Metadata", {}).get(CHECKSUM) == sha256 else None

    def _look(self, key: str) -> Any:
        try:
            with refusals_explained(self._where, key):
                return self._client.head_object(Bucket=self._bucket, Key=f"{self._root}{key}")
        except ObjectMissingError:
            return None


def _put(answer: Any) -> Put:
    return Put(str(answer.get("ETag", "")), answer.get("VersionId"))


def _warn(where: str, kind: type[IfAbsent | IfUnchanged]) -> None:
    header = "If-None-Match" if kind is IfAbsent else "If-Match"
    message = (
        f"The store {where} has no conditional put ({header}), so tmi_ops checks for the object before it writes it. "
        "Let only one tmi_ops at a time write backups there, and only one receiver write WAL."
    )
    warnings.warn(message, RuntimeWarning, stacklevel=5)
    _log.warning(message)


def _is_worth_another(error: Any, status: int) -> bool:
    return status == _CONFLICT or arrived_damaged(error)
