"""A derived object that is rewritten under one name: zstd, with the digest of the stored bytes signed in its metadata.

Anyone who can write to the bucket could put anything there, so nothing is decompressed before its signature is checked,
and never more than such an object may hold: some kilobytes of zstd can decompress to gigabytes.
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
from tmi_ops.store.small_objects import get_single
from tmi_ops.store.stamped import check_note, put_note
from tmi_ops.store.trust import Purpose

ZSTD_LEVEL = 3
# The reader allocates as much as it is asked to read, so it never reads the whole limit at once.
_CHUNK = 1 << 20
_PURPOSE: Purpose = "catalogue"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Limits:
    """Maximum size in bytes, as stored and decompressed."""

    stored: int
    plain: int


def pack(plain: bytes) -> bytes:
    """The bytes to store."""
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compress(plain)


def unpack(data: bytes, limit: int) -> bytes | None:
    """Decompress up to `limit` bytes, whatever the header says; None if it is not zstd, or is larger."""
    plain = io.BytesIO()  # its value needs no second copy
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
    """What `understand` returns for an object, and its ETag; None if there is no trusted object.

    Args:
        etag: from a listing; empty if unknown.

    Raises:
        StoreError: the store failed.
    """
    return remembered(store, key, etag, lambda: _read(store, key, limits, understand))


def write_packed(store: ObjectStore, key: str, data: bytes, etag: str | None) -> str:
    """Replace the object that had this ETag; None: there was none.

    Raises:
        ObjectExistsError: another writer changed it meanwhile.
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
