"""Stream one object out of S3.

A few workers read ranges of the object ahead; they are returned in order. If a connection breaks, only the missing rest
of its range is requested again. Every request names the ETag seen first, so an object that is replaced meanwhile is
never spliced. Memory: at most `AHEAD` + 1 ranges, 56 MiB.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from tmi_ops.errors import StoreError
from tmi_ops.store.digest import damaged
from tmi_ops.store.s3.refusals import http_status, refusals_explained

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client

MIB = 1 << 20
RANGE_SIZE = 8 * MIB
READ_SIZE = MIB
WORKERS = 4
AHEAD = 6
# Broken connections allowed within one range; the client itself retries refused or failed requests.
BREAKS = 8
LONGEST_PAUSE_S = 5.0
_PRECONDITION_FAILED = 412


@dataclass(frozen=True)
class Source:
    """An object as it was when reading began. `size` in bytes."""

    client: S3Client = field(repr=False)
    bucket: str
    key: str
    size: int
    etag: str
    where: str


def read_object(source: Source) -> Iterator[bytes]:
    """Yield the object's stored bytes in order, in chunks of up to 1 MiB.

    Raises:
        StoreError: a range could not be read.
        IntegrityError: the object was replaced while it was read.
    """
    reader = _RangeReader(source)
    starts = iter(range(0, source.size, RANGE_SIZE))
    if source.size <= RANGE_SIZE:
        for start in starts:
            yield from reader.read(start)
        return
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="download")
    try:
        ahead: deque[Future[list[bytes]]] = deque(pool.submit(reader.read, start) for start in islice(starts, AHEAD))
        while ahead:
            chunks = ahead.popleft().result()
            ahead.extend(pool.submit(reader.read, start) for start in islice(starts, 1))
            yield from chunks
    finally:
        reader.stop()
        pool.shutdown(wait=True, cancel_futures=True)


class _RangeReader:
    """Reads ranges of one object, from any thread."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End running reads at their next chunk; discard what they return."""
        self._stopped.set()

    def read(self, start: int) -> list[bytes]:
        """The range that begins at `start`, across up to `BREAKS` - 1 broken connections."""
        end = min(start + RANGE_SIZE, self._source.size)
        chunks: list[bytes] = []
        breaks = 0
        while start < end and not self._stopped.is_set():
            try:
                for chunk in self._stream(start, end):
                    chunks.append(chunk)
                    start += len(chunk)
            except _BrokenConnectionError as error:
                breaks += 1
                if breaks == BREAKS:
                    raise StoreError(
                        f"The connection to {self._source.where} broke {breaks} times while reading "
                        f"{self._source.key}; last: {error}",
                        hint="check the network and the S3 server, then run the command again",
                    ) from error
                self._stopped.wait(min(LONGEST_PAUSE_S, 0.1 * 2**breaks) * random.random())  # noqa: S311
        return chunks

    def _stream(self, start: int, end: int) -> Iterator[bytes]:
        from botocore.exceptions import BotoCoreError

        body = self._open(start, end)
        try:
            while not self._stopped.is_set() and (chunk := body.read(READ_SIZE)):
                yield chunk
        except (BotoCoreError, OSError) as error:
            raise _BrokenConnectionError(str(error)) from error
        finally:
            body.close()

    def _open(self, start: int, end: int) -> StreamingBody:
        source = self._source
        with refusals_explained(source.where, source.key):
            try:
                answer = source.client.get_object(
                    Bucket=source.bucket, Key=source.key, Range=f"bytes={start}-{end - 1}", IfMatch=source.etag
                )
            except source.client.exceptions.ClientError as error:
                if http_status(error) == _PRECONDITION_FAILED:
                    raise damaged(f"{source.key} was replaced while it was read") from None
                raise
        if answer["ContentLength"] != end - start:
            answer["Body"].close()
            raise damaged(f"{source.key}: asked for {end - start} bytes, the store has {answer['ContentLength']}")
        return answer["Body"]


class _BrokenConnectionError(Exception):
    """The rest of the range is worth another request."""
