"""What lies packed in the bucket is unpacked only so far, and only once its signature was checked."""

from __future__ import annotations

import resource
from dataclasses import replace

import pytest
import zstandard

from tmi_ops.store.minisign import new_secret_key
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.packed import Limits, pack, read_packed, unpack, write_packed
from tmi_ops.store.trust import Trust, TrustedKey

KEY = "catalogue/backups.zst"
LIMITS = Limits(stored=1 << 20, plain=1 << 16)


@pytest.mark.parametrize("says_its_size", [True, False])
def test_a_few_bytes_that_unpack_to_gigabytes_are_not_unpacked(*, says_its_size: bool) -> None:
    """A decompressor told of a limit ignores it where the frame's header names a size."""
    compressor = zstandard.ZstdCompressor(write_content_size=says_its_size)
    packer = compressor.compressobj(size=1 << 31 if says_its_size else -1)
    bomb = b"".join([*(packer.compress(bytes(1 << 24)) for _ in range(1 << 7)), packer.flush()])
    assert len(bomb) < LIMITS.stored
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert unpack(bomb, LIMITS.plain) is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_what_fits_is_unpacked_and_what_is_none_is_not() -> None:
    assert unpack(pack(b"a" * LIMITS.plain), LIMITS.plain) == b"a" * LIMITS.plain
    assert unpack(pack(b"a" * (LIMITS.plain + 1)), LIMITS.plain) is None
    assert unpack(b"no zstd", LIMITS.plain) is None


def test_what_nobody_trusted_signed_is_not_even_unpacked(store: ObjectStore) -> None:
    ours, theirs = new_secret_key(), new_secret_key()
    trusted = (TrustedKey(ours.public),)
    host = replace(store, trust=Trust("development", ours, trusted))
    stranger = replace(store, trust=Trust("development", theirs, ()))
    understood: list[bytes] = []

    def understand(plain: bytes) -> bytes:
        understood.append(plain)
        return plain

    etag = write_packed(host, KEY, pack(b"ours"), None)
    found = read_packed(host, KEY, etag, LIMITS, understand)
    assert found is not None
    assert found[0] == b"ours"
    for writer in (store, stranger):
        etag = write_packed(writer, KEY, pack(b"theirs"), etag)
        assert read_packed(host, KEY, etag, LIMITS, understand) is None
    assert understood == [b"ours"]
