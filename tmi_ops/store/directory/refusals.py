"""Explains errors of the operating system."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from tmi_ops.error_codes import Code
from tmi_ops.errors import StoreError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_PATH = (errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST)

# The disk, its server or this machine fails temporarily. A denial is not among them: it does not pass, so callers that
# can do without the object continue without it.
_FAILING = {
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ENOTCONN,
    errno.ESHUTDOWN,
    errno.EREMOTEIO,
    errno.ENODEV,
    errno.ENXIO,
    errno.ENOLCK,
    errno.EAGAIN,
    errno.EBUSY,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
}


@contextmanager
def failures_explained(where: str, key: str = "") -> Iterator[None]:
    """Turn an OSError inside the block into a StoreError that names the next step.

    Args:
        where: the store, for messages.
        key: the object being accessed.
    """
    try:
        yield
    except OSError as error:
        raise _explain(error, where, key) from error


def bad_key(key: str) -> StoreError:
    """The error for a key that no file can have."""
    return StoreError(
        f"{key!r} cannot be a file in a directory.",
        hint="give the object a key without empty parts, `.`, `..` and NUL, whose parts have at most 255 bytes",
    )


def _explain(error: OSError, where: str, key: str) -> StoreError:
    said = error.strerror or str(error)
    of = f" ({key})" if key else ""
    if error.errno in _FULL:
        return StoreError(
            f"The disk of {where} is full{of}.",
            hint="make room there: `tmi-ops prune`, or move the directory to a larger disk",
        )
    if error.errno in _DENIED:
        return StoreError(
            f"The operating system denied access to {where}{of}: {said}.",
            hint="give the directory and everything in it to the account that runs tmi-ops, and mount it writable",
            code=Code.STORE_RIGHT_MISSING,
        )
    if error.errno in _NO_PATH:
        return StoreError(
            f"{key or 'A key'} cannot be stored in {where}: {said}.",
            hint="see whether a file, a folder or a symbolic link of that name is in the way",
        )
    return StoreError(
        f"{where} failed{of}: {said}.",
        hint="check the disk and its mount: `dmesg`, `df`",
        transient=error.errno in _FAILING,
    )
