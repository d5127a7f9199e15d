"""Stream one object of unknown length into S3.

1. The first part is gathered in memory. If the stream ends within it, one PUT stores the object.
2. Otherwise a multipart upload begins. A few workers send full parts while the next one is gathered.
3. S3 allows 10,000 parts, so parts grow once a stream proves long (`part_size`): 5 TiB fit.
4. The server is sent the SHA-256 of every part and refuses a part that arrived damaged.
5. An upload that fails to finish is aborted: no object and no hidden parts remain.

Memory: at most `IN_FLIGHT` bytes of parts being sent (or one part, if that is larger) and the one being gathered. That
is 80 MiB for a stream of up to 31 GiB, 2 x 0.3 GiB at 300 GiB and 2 x 1.3 GiB at 5 TiB: S3 requires a part's length and
checksum before its first byte, so the largest part sets the bound.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tmi_ops.store.digest import Bytes, Digest, RunningDigest
from tmi_ops.store.s3.refusals import arrived_damaged, error_code, refusals_explained

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

MIB = 1 << 20
PART_SIZE = 16 * MIB
# 2,000 parts of 16 MiB and 8,000 growing by 170 KiB each sum up to 5.2 TiB; S3's largest part is 5 GiB.
STEADY_PARTS = 2000
PART_GROWTH = 170 << 10
WORKERS = 4
IN_FLIGHT = WORKERS * PART_SIZE
# A part that arrived damaged is sent again; the client itself retries other failures.
SENDINGS = 4


def part_size(number: int) -> int:
    """The size in bytes of part `number` (from 1)."""
    return PART_SIZE + max(0, number - STEADY_PARTS) * PART_GROWTH


_Answer = TypeVar("_Answer")


class Upload:
    """An object being uploaded: write chunks, then finish or abort. For one thread at a time."""

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        key: str,
        where: str,
        put_whole: Callable[[bytes], object],
        lock: Mapping[str, Any],
    ) -> None:
        """Begin an object; nothing is sent yet.

        Args:
            put_whole: stores the object in one request.
            lock: lock parameters for the first request of a multipart upload.
        """
        self._put_whole = put_whole
        self._client = client
        self._bucket = bucket
        self._key = key
        self._where = where
        self._lock = lock
        self._digest = RunningDigest()
        self._number = 1
        self._part = _Part(part_size(1))
        self._upload_id: str | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._sending: dict[Future[CompletedPartTypeDef], int] = {}
        self._sent: list[CompletedPartTypeDef] = []
        self._aborted = threading.Event()

    def write(self, chunk: Bytes) -> None:
        """Write a chunk of any size; blocks while too many bytes are in flight.

        Raises:
            StoreError: a part could not be stored. Abort then.
        """
        self._digest.update(chunk)
        rest = memoryview(chunk)
        while rest:
            if self._part.full:
                self._send_part()
            rest = rest[self._part.take(rest) :]

    def finish(self) -> Digest:
        """Make the object visible, whole, and return the digest of its bytes.

        Raises:
            StoreError: it could not be stored. Abort then.
        """
        if self._upload_id is None:
            self._put_whole(_sendable(self._part.content()))
        else:
            self._send_part()
            self._wait_for_room(IN_FLIGHT)
            self._complete(self._upload_id)
            self._close_pool()
        return self._digest.result()

    def abort(self) -> None:
        """Leave nothing behind. Safe to call at any time; what an unreachable server keeps is left to the sweep."""
        self._aborted.set()
        self._close_pool()
        if self._upload_id is not None:
            with contextlib.suppress(Exception):
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=self._key, UploadId=self._upload_id)

    def _send_part(self) -> None:
        pool = self._pool or self._begin_multipart()
        body = self._part.content()
        self._wait_for_room(len(body))
        self._sending[pool.submit(self._store_part, self._number, body)] = len(body)
        self._number += 1
        self._part = _Part(part_size(self._number))

    def _begin_multipart(self) -> ThreadPoolExecutor:
        with refusals_explained(self._where, self._key):
            begun = self._client.create_multipart_upload(
                Bucket=self._bucket, Key=self._key, ChecksumAlgorithm="SHA256", **self._lock
            )
        self._upload_id = begun["UploadId"]
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="upload")
        return self._pool

    def _store_part(self, number: int, body: bytearray) -> CompletedPartTypeDef:
        upload_id = self._upload_id or ""
        checksum = _checksum(body)
        answer = self._insist(
            lambda: self._client.upload_part(
                Bucket=self._bucket,
                Key=self._key,
                UploadId=upload_id,
                PartNumber=number,
                Body=_sendable(body),
                ChecksumSHA256=checksum,
            )
        )
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}

    def _wait_for_room(self, size: int) -> None:
        """Collect finished parts until `size` more bytes may be in flight, or none are."""
        while self._sending and sum(self._sending.values()) + size > IN_FLIGHT:
            done, _ = wait(self._sending, return_when=FIRST_COMPLETED)
            for future in done:
                del self._sending[future]
                self._sent.append(future.result())

    def _complete(self, upload_id: str) -> None:
        parts = sorted(self._sent, key=lambda part: part["PartNumber"])
        with refusals_explained(self._where, self._key):
            try:
                self._client.complete_multipart_upload(
                    Bucket=self._bucket, Key=self._key, UploadId=upload_id, MultipartUpload={"Parts": parts}
                )
            except self._client.exceptions.ClientError as error:
                # The response to a first, successful attempt may have been lost.
                if error_code(error) != "NoSuchUpload" or not self._is_stored():
                    raise

    def _is_stored(self) -> bool:
        try:
            found = self._client.head_object(Bucket=self._bucket, Key=self._key)
        except self._client.exceptions.ClientError:
            return False
        return found["ContentLength"] == self._digest.result().size

    def _insist(self, send: Callable[[], _Answer]) -> _Answer:
        """Send a body, and again if the server says that it arrived damaged."""
        sendings = 0
        while True:
            sendings += 1
            with refusals_explained(self._where, self._key):
                try:
                    return send()
                except self._client.exceptions.ClientError as error:
                    if not arrived_damaged(error) or sendings == SENDINGS or self._aborted.is_set():
                        raise

    def _close_pool(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


class _Part:
    """A part being gathered. Its memory is touched only as far as it is filled."""

    def __init__(self, size: int) -> None:
        self._buffer = bytearray(size)
        self._space = memoryview(self._buffer)
        self._filled = 0

    @property
    def full(self) -> bool:
        return self._filled == len(self._buffer)

    def take(self, chunk: memoryview) -> int:
        """Copy in as much of the chunk as fits, and return how many bytes that was."""
        size = min(len(chunk), len(self._buffer) - self._filled)
        self._space[self._filled : self._filled + size] = chunk[:size]
        self._filled += size
        return size

    def content(self) -> bytearray:
        """The gathered bytes. The part must not be used afterwards."""
        self._space.release()
        del self._buffer[self._filled :]
        return self._buffer


def _sendable(body: bytearray) -> bytes:
    """The same object, cast for the type checker: botocore accepts a bytearray, and would copy bytes before sending."""
    return cast("bytes", body)


def _checksum(body: bytearray) -> str:
    """The value of the header x-amz-checksum-sha256."""
    return base64.b64encode(hashlib.sha256(body).digest()).decode()
