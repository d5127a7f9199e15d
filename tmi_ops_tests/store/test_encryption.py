from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmi_ops.errors import IntegrityError, StoreError
from tmi_ops.settings import StoreSettings
from tmi_ops.store.digest import Bytes, Digest, RunningDigest
from tmi_ops.store.encryption import EncryptingSink, decrypted, parse_recipients, read_identities
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops_tests.store.conftest import ENVIRONMENT, AgeKeys, RawBucket, make_age_keys, with_age

KEY = "logical/20260101T020000Z-logical-0000/database.dump"
AGE_CHUNK = 64 << 10


class Collected:
    """A sink in memory."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.digest = RunningDigest()
        self.aborted = False

    def write(self, chunk: Bytes) -> None:
        self.content += chunk
        self.digest.update(chunk)

    def finish(self) -> Digest:
        return self.digest.result()

    def abort(self) -> None:
        self.aborted = True


class Full(Collected):
    """A sink that takes no more than its first chunks."""

    def write(self, chunk: Bytes) -> None:
        if len(self.content) > 2 * AGE_CHUNK:
            raise StoreError("The disk of the S3 server is full.")
        super().write(chunk)


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1, AGE_CHUNK, 20_000_000])
def test_an_encrypted_object_comes_back_plain_and_its_record_tells_both_sides(
    encrypting_store: ObjectStore, raw: RawBucket, age_keys: AgeKeys, size: int
) -> None:
    data = os.urandom(size)

    stored = encrypting_store.upload(KEY, [data])

    lying_there = raw.read(KEY)
    assert stored.encrypted
    assert (stored.plain_size, stored.plain_sha256) == (size, hashlib.sha256(data).hexdigest())
    assert (stored.size, stored.sha256) == (len(lying_there), hashlib.sha256(lying_there).hexdigest())
    assert b"".join(encrypting_store.download(KEY, stored)) == data
    assert lying_there.startswith(b"age-encryption.org/v1")
    assert pyrage.decrypt(lying_there, read_identities(age_keys.identity_file)) == data


def test_stored_bytes_are_not_plain(encrypting_store: ObjectStore, raw: RawBucket) -> None:
    secret = b"threat model of the payment service " * 1000

    encrypting_store.upload(KEY, [secret])

    assert b"payment" not in raw.read(KEY)


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 3 * AGE_CHUNK), max_size=12),
    size=st.integers(0, 3 * AGE_CHUNK) | st.sampled_from([AGE_CHUNK - 1, AGE_CHUNK, AGE_CHUNK + 1, 2 * AGE_CHUNK]),
    piece=st.integers(1, AGE_CHUNK),
)
def test_chunks_may_end_anywhere_relative_to_those_of_age(cuts: list[int], size: int, piece: int) -> None:
    identity = pyrage.x25519.Identity.generate()
    data = os.urandom(size)
    ends = [0, *sorted(min(cut, size) for cut in cuts), size]
    sink = Collected()
    encrypting = EncryptingSink(sink, [str(identity.to_public())])
    for start, end in itertools.pairwise(ends):
        encrypting.write(data[start:end])
    encrypting.finish()

    pieces = (bytes(sink.content[at : at + piece]) for at in range(0, len(sink.content), piece))

    assert b"".join(decrypted(pieces, [identity], KEY)) == data


def test_several_recipients_can_each_decrypt(store_settings: StoreSettings, tmp_path: Path) -> None:
    keys = [make_age_keys(tmp_path / name) for name in ("ours", "escrow")]
    both = store_settings.model_copy(update={"age_recipients": tuple(key.recipient for key in keys)})
    stored = open_store(both, ENVIRONMENT).upload(KEY, [b"content"])

    for key in keys:
        reader = open_store(both.model_copy(update={"age_identity_file": key.identity_file}), ENVIRONMENT)
        assert b"".join(reader.download(KEY, stored)) == b"content"


def test_the_key_of_somebody_else_is_named_as_the_cause_not_damage(
    encrypting_store: ObjectStore, store_settings: StoreSettings, tmp_path: Path
) -> None:
    stored = encrypting_store.upload(KEY, [b"content"])
    stranger = open_store(with_age(store_settings, make_age_keys(tmp_path / "other")), ENVIRONMENT)

    with pytest.raises(StoreError, match="encrypted for other keys") as caught:
        list(stranger.download(KEY, stored))

    assert not isinstance(caught.value, IntegrityError)


@pytest.mark.parametrize("content", [None, "", "# only a comment\n", "AGE-SECRET-KEY-1NOTAKEY", "\x80binary"])
def test_an_identity_file_without_a_key_is_named_before_anything_is_fetched(
    encrypting_store: ObjectStore, store_settings: StoreSettings, tmp_path: Path, content: str | None
) -> None:
    stored = encrypting_store.upload(KEY, [b"content"])
    file = tmp_path / "identity"
    if content is not None:
        file.write_bytes(content.encode("latin-1"))
    reader = open_store(store_settings.model_copy(update={"age_identity_file": file}), ENVIRONMENT)

    with pytest.raises(StoreError, match="TMI_OPS_AGE_IDENTITY_FILE") as caught:
        reader.download(KEY, stored)

    assert "NOTAKEY" not in str(caught.value)


def test_no_identity_file_is_needed_to_write_and_its_absence_is_named_when_reading(
    store_settings: StoreSettings, age_keys: AgeKeys
) -> None:
    writer = open_store(store_settings.model_copy(update={"age_recipients": (age_keys.recipient,)}), ENVIRONMENT)
    stored = writer.upload(KEY, [b"content"])

    with pytest.raises(StoreError, match="no private key is configured"):
        writer.download(KEY, stored)


def test_a_flipped_byte_in_an_encrypted_object_is_caught(encrypting_store: ObjectStore, raw: RawBucket) -> None:
    stored = encrypting_store.upload(KEY, [os.urandom(3_000_000)])
    data = bytearray(raw.read(KEY))
    data[len(data) // 2] ^= 1
    raw.write(KEY, bytes(data))

    with pytest.raises(IntegrityError, match=KEY):
        list(encrypting_store.download(KEY, stored))


def test_age_itself_catches_a_cut_stream() -> None:
    identity = pyrage.x25519.Identity.generate()
    stored = pyrage.encrypt(os.urandom(3 * AGE_CHUNK), [identity.to_public()])

    with pytest.raises(IntegrityError, match="cannot be decrypted"):
        list(decrypted(iter([stored[: 2 * AGE_CHUNK]]), [identity], KEY))


def test_a_failure_of_the_source_passes_through_decryption_unchanged() -> None:
    identity = pyrage.x25519.Identity.generate()
    stored = pyrage.encrypt(os.urandom(3 * AGE_CHUNK), [identity.to_public()])
    failure = StoreError("The connection broke.")

    def breaking() -> Iterator[bytes]:
        yield stored[:AGE_CHUNK]
        raise failure

    with pytest.raises(StoreError) as caught:
        list(decrypted(breaking(), [identity], KEY))

    assert caught.value is failure


@pytest.mark.parametrize("size", [3 * AGE_CHUNK, 30_000_000])
def test_a_failure_of_the_sink_passes_through_encryption_unchanged(age_keys: AgeKeys, size: int) -> None:
    encrypting = EncryptingSink(Full(), [age_keys.recipient])

    with pytest.raises(StoreError, match="disk of the S3 server is full"):
        for _ in range(size // AGE_CHUNK):
            encrypting.write(bytes(AGE_CHUNK))
        encrypting.finish()
    encrypting.abort()


def test_ssh_keys_are_recipients_and_identities_too(tmp_path: Path) -> None:
    ssh_keygen = shutil.which("ssh-keygen")
    if ssh_keygen is None:
        pytest.skip("ssh-keygen is not installed")
    file = tmp_path / "id_ed25519"
    subprocess.run([ssh_keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    recipient = file.with_suffix(".pub").read_text().strip()

    stored = pyrage.encrypt(b"content", parse_recipients([recipient]))

    assert b"".join(decrypted(iter([stored]), read_identities(file), KEY)) == b"content"
