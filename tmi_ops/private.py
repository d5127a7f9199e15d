"""Files and directories that only their owner can read."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# A larger log is renamed when its server starts; one old log is kept.
LOG_LIMIT_BYTES = 10_000_000


def write_private(file: Path, text: str) -> None:
    """Write `file` atomically; from its first byte on only its owner can read it."""
    write_durably(file, text.encode())


def write_durably(file: Path, data: bytes, mode: int = 0o600) -> None:
    """Write `file` atomically and durably: after a power failure it is either unchanged or complete."""
    # mkstemp creates the file with mode 0600
    descriptor, temporary = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as output:
            output.write(data)
            output.flush()
            os.fchmod(output.fileno(), mode)
            os.fsync(output.fileno())
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def no_link(path: str, flags: int) -> int:
    """An `opener` for a file in a directory that others may write to: a symbolic link there is an error."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def make_directory(directory: Path, mode: int = 0o700) -> None:
    """Create `directory` (and its parents) with `mode`, or change the mode of an existing one."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(mode)


@contextmanager
def held_alone(file: Path, refusal: Exception) -> Iterator[None]:
    """Lock `file` exclusively; it is created if missing. The lock ends with the process.

    Raises:
        Exception: the `refusal`, if another process holds the lock.
    """
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        yield


@contextmanager
def open_log(file: Path) -> Iterator[IO[bytes]]:
    """Open a log with mode 0600 for appending; a large one is renamed first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and file.stat().st_size > LOG_LIMIT_BYTES:
        file.replace(file.with_name(f"{file.name}.1"))
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        yield output
