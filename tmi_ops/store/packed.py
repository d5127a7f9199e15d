"""A derived object that is written anew under one name: zstd, with the digest of what is stored signed in its metadata.

Whoever can write the bucket could put anything there, so nothing is unpacked before its signature was checked, and
nothing is unpacked beyond what such an object may hold: some kilobytes of zstd unpack to gigabytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import zstandard

from tmi_ops.errors import OpsError
from tmi_ops.store.backend import IfAbsent, IfUnchanged
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.remembered import remembered
from tmi_ops.store.single_put import get_single
from tmi_ops.store.stamped import check_note, put_note
from tmi_ops.store.trust import Purpose

ZSTD_LEVEL = 3
# The reader allocates what it is asked for, so it is not asked for the limit.
_CHUNK = 1 << 20
_PURPOSE: Purpose = "catalogue"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Limits:
    """The most bytes, as stored and unpacked."""

    stored: int
    plain: int


def pack(plain: bytes) -> bytes:
    """As it is stored."""
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compress(plain)


def unpack(data: bytes, limit: int) -> bytes | None:
    """None where it is not zstd, or holds more than `limit` bytes; no more are unpacked, whatever its header says."""
    plain = io.BytesIO()  # whose value is no second copy
    try:
        with zstandard.ZstdDecompressor().stream_reader(data) as reader:
            while plain.tell() <= limit and (chunk := reader.read(min(limit + 1 - plain.tell(), _CHUNK))):
                plain.write(chunk)
    except zstandard.ZstdError:
        return None
    return plain.getvalue() if plain.tell() <= limit else None


def read_packed(
    store: ObjectStore, key: str, etag: str, limits: Limits, understand: Callable[[bytes], _T | None]
) -> tuple[_T, str] | None:
    """What `understand` makes of an object, and its ETag; None where there is none that is to be believed.

    Args:
        etag: as a listing says; empty: not known.

    Raises:
        StoreError: the store failed.
    """
    return remembered(store, key, etag, lambda: _read(store, key, limits, understand))


def write_packed(store: ObjectStore, key: str, data: bytes, etag: str | None) -> str:
    """Replace the object that had this ETag; None: there was none.

    Raises:
        ObjectExistsError: somebody else wrote it meanwhile.
        UntrustedError: keys are pinned, and this host has none that may sign it.
        StoreError: the store failed, or our key may not write it.
    """
    return put_note(store, key, data, IfUnchanged(etag) if etag else IfAbsent(), _PURPOSE).etag


def _read(
    store: ObjectStore, key: str, limits: Limits, understand: Callable[[bytes], _T | None]
) -> tuple[_T, str] | None:
    try:
        data, head = get_single(store, key, limit=limits.stored)
        check_note(store, key, head.metadata, data, _PURPOSE)
    except OpsError as error:
        if error.transient:
            raise
        return None
    plain = unpack(data, limits.plain)
    found = None if plain is None else understand(plain)
    return None if found is None else (found, head.etag)
