"""Size and SHA-256 of a stream, computed while it passes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tmi_ops.errors import IntegrityError

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Digest:
    """The digest of a stream of bytes: `size` in bytes, `sha256` in hexadecimal."""

    size: int
    sha256: str


class RunningDigest:
    """The digest of the stream so far."""

    def __init__(self) -> None:
        self._size = 0
        self._hash = hashlib.sha256()

    def update(self, chunk: Bytes) -> None:
        self._size += len(chunk)
        self._hash.update(chunk)

    def result(self) -> Digest:
        return Digest(self._size, self._hash.hexdigest())


def checked(chunks: Iterable[bytes], expected: Digest, what: str) -> Iterator[bytes]:
    """Pass chunks on, the last one only after the whole has matched the expected digest.

    Args:
        what: the stream, for the message.

    Raises:
        IntegrityError: size or SHA-256 differs.
    """
    digest = RunningDigest()
    held = b""
    for chunk in chunks:
        digest.update(chunk)
        if held:
            yield held
        held = chunk
    require_equal(digest.result(), expected, what)
    if held:
        yield held


def require_equal(found: Digest, expected: Digest, what: str) -> None:
    """Raise IntegrityError, naming the difference, unless both are equal."""
    if found.size != expected.size:
        how = "is truncated" if found.size < expected.size else "is too long"
        raise damaged(f"{what} {how}: {found.size} bytes, the manifest says {expected.size}")
    if found.sha256 != expected.sha256:
        raise damaged(f"{what} was altered: its SHA-256 is {found.sha256}, the manifest says {expected.sha256}")


def damaged(problem: str) -> IntegrityError:
    """The error for bytes that differ from what was written."""
    return IntegrityError(
        f"{problem}.",
        detail="It was not used.",
        hint="use another backup (`tmi-ops backups`), or restore an old version of the object if the bucket keeps "
        "versions",
    )
