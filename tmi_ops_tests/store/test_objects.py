from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tmi_ops.errors import IntegrityError, ObjectMissingError, StoreError
from tmi_ops.settings import StoreSettings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.store.s3 import download, upload
from tmi_ops_tests.conftest import make_bucket
from tmi_ops_tests.raw_s3 import raw_client
from tmi_ops_tests.store.conftest import ENVIRONMENT, RawBucket

MIB = 1 << 20
KEY = "logical/20260101T020000Z-logical-0000/data/database.dump"
SIZES = [0, 1, 1_000_000, upload.PART_SIZE, upload.PART_SIZE + 1, 3 * upload.PART_SIZE + 12_345]


def pieces(data: bytes, size: int = 65_536) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


class Advanced:
    def __init__(self) -> None:
        self.amount = 0.0

    def advance(self, amount: float) -> None:
        self.amount += amount


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_an_object_of_any_size_comes_back_as_it_went_and_its_record_is_true(
    store: ObjectStore, raw: RawBucket, size: int
) -> None:
    data = os.urandom(size)
    phase = Advanced()

    stored = store.upload(KEY, pieces(data), phase=phase)

    assert b"".join(store.download(KEY, stored)) == data
    assert stored.model_dump() == {
        "name": "data/database.dump",
        "size": size,
        "sha256": hashlib.sha256(data).hexdigest(),
        "plain_size": size,
        "plain_sha256": hashlib.sha256(data).hexdigest(),
        "encrypted": False,
    }
    assert phase.amount == size
    assert store.size(KEY) == size
    assert raw.uploads() == []


SMALLEST_PART = 5 * MIB  # what S3 servers accept
TWO_PARTS_AND_A_BIT = os.urandom(2 * SMALLEST_PART + 3)
cuts_near_part_boundaries = st.builds(
    int.__add__, st.sampled_from([0, SMALLEST_PART, 2 * SMALLEST_PART]), st.integers(min_value=-2, max_value=2)
)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(cuts_near_part_boundaries.filter(lambda cut: cut >= 0), max_size=6))
def test_chunks_may_end_anywhere_relative_to_parts(store: ObjectStore, raw: RawBucket, cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(TWO_PARTS_AND_A_BIT)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upload, "part_size", lambda number: SMALLEST_PART)
        stored = store.upload(KEY, (TWO_PARTS_AND_A_BIT[start:end] for start, end in itertools.pairwise(ends)))

    assert stored.size == len(TWO_PARTS_AND_A_BIT)
    assert raw.read(KEY) == TWO_PARTS_AND_A_BIT


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(0, 200), range_size=st.integers(10, 200), read_size=st.integers(1, 200))
def test_ranges_may_end_anywhere_relative_to_the_object(
    store: ObjectStore, size: int, range_size: int, read_size: int
) -> None:
    data = os.urandom(size)
    stored = store.upload(KEY, [data])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "RANGE_SIZE", range_size)
        patch.setattr(download, "READ_SIZE", read_size)

        assert b"".join(store.download(KEY, stored)) == data


def test_an_unencrypted_object_is_stored_byte_for_byte_so_that_any_client_can_read_it(
    store: ObjectStore, raw: RawBucket
) -> None:
    data = os.urandom(2 * upload.PART_SIZE + 7)

    store.upload(KEY, pieces(data))

    assert raw.read(KEY) == data


def test_parts_grow_so_that_five_tebibytes_of_unknown_length_fit_ten_thousand_parts() -> None:
    sizes = [upload.part_size(number) for number in range(1, 10_001)]

    assert sum(sizes) >= 5 << 40
    assert max(sizes) < 1.5 * (1 << 30)  # S3 allows 5 GiB; memory is what matters
    assert min(sizes) >= 5 * MIB  # S3 refuses smaller ones
    assert sizes == sorted(sizes)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1000, 2 * upload.PART_SIZE])
def test_a_flipped_byte_is_caught_before_the_last_chunk_is_handed_out(
    store: ObjectStore, raw: RawBucket, size: int
) -> None:
    stored = store.upload(KEY, pieces(os.urandom(size)))
    data = bytearray(raw.read(KEY))
    data[-1] ^= 1
    raw.write(KEY, bytes(data))

    received = 0
    with pytest.raises(IntegrityError, match=f"{KEY} was altered: its SHA-256"):
        for chunk in store.download(KEY, stored):
            received += len(chunk)

    assert received < size


@pytest.mark.parametrize(
    ("change", "words"), [(-1, "is truncated: 999 bytes, the manifest says 1000"), (1, "too long")]
)
def test_a_truncated_or_grown_object_is_caught_before_any_byte_is_handed_out(
    store: ObjectStore, raw: RawBucket, change: int, words: str
) -> None:
    stored = store.upload(KEY, [os.urandom(1000)])
    raw.write(KEY, bytes(1000 + change))

    with pytest.raises(IntegrityError, match=words):
        store.download(KEY, stored)


def test_a_missing_object_is_named_by_every_verb_that_reads(store: ObjectStore, raw: RawBucket) -> None:
    stored = store.upload(KEY, [b"x"])
    raw.remove(KEY)

    with pytest.raises(ObjectMissingError, match=KEY):
        store.download(KEY, stored)
    with pytest.raises(ObjectMissingError, match=KEY):
        store.get_bytes(KEY)
    with pytest.raises(ObjectMissingError, match=KEY):
        store.size(KEY)


@pytest.mark.slow
def test_an_object_replaced_while_it_is_read_is_not_spliced(store: ObjectStore, raw: RawBucket) -> None:
    size = 10 * download.RANGE_SIZE
    store.upload(KEY, pieces(bytes(size), MIB))
    reading = store.download(KEY)
    next(reading)
    raw.write(KEY, bytes(size))

    with pytest.raises(IntegrityError, match="replaced while it was read"):
        list(reading)


@pytest.mark.slow
@pytest.mark.parametrize("failure", [RuntimeError("pg_dump failed"), KeyboardInterrupt()])
@pytest.mark.parametrize("encrypted", [False, True])
def test_a_failing_source_leaves_no_object_and_no_multipart_upload(
    store: ObjectStore, encrypting_store: ObjectStore, raw: RawBucket, failure: BaseException, encrypted: bool
) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield bytes(MIB)
        raise failure

    with pytest.raises(type(failure)) as caught:
        (encrypting_store if encrypted else store).upload(KEY, chunks())

    assert caught.value is failure
    assert raw.keys() == []
    assert raw.uploads() == []


def test_a_download_given_up_early_ends_its_threads(encrypting_store: ObjectStore) -> None:
    import threading

    stored = encrypting_store.upload(KEY, pieces(os.urandom(40 * MIB), MIB))
    before = threading.active_count()
    reading = encrypting_store.download(KEY, stored)
    next(reading)

    reading.close()  # type: ignore[attr-defined]

    assert threading.active_count() <= before


def test_listings_show_keys_below_the_environment_only(store: ObjectStore, raw: RawBucket) -> None:
    for key in ("logical/b/1", "logical/a/1", "logical/a/2", "RESTORE.md"):
        store.put_bytes(key, b"12345")
    raw.client.put_object(Bucket=raw.bucket, Key=f"{raw.prefix}/production/logical/other/1", Body=b"")

    listed = list(store.list_objects("logical/"))

    assert [(item.key, item.size) for item in listed] == [("logical/a/1", 5), ("logical/a/2", 5), ("logical/b/1", 5)]
    assert all(item.modified.tzinfo is not None for item in listed)
    assert store.list_folders("logical") == store.list_folders("logical/") == ["a", "b"]
    assert store.list_folders("") == ["logical"]
    assert store.list_folders("base") == []


def test_stale_uploads_are_aborted_by_age_and_below_the_prefix_only(store: ObjectStore, raw: RawBucket) -> None:
    for key in ("logical/a/dump", "logical/b/dump"):
        raw.client.create_multipart_upload(Bucket=raw.bucket, Key=raw.root + key)

    assert store.abort_stale_uploads("logical/", timedelta(hours=1)) == 0
    assert store.abort_stale_uploads("logical/a/", timedelta(0)) == 1
    assert raw.uploads() == [f"{raw.root}logical/b/dump"]


def test_errors_of_a_store_whose_bucket_vanished_name_the_bucket(s3: StoreSettings) -> None:
    settings = s3.model_copy(update={"bucket": make_bucket(s3)})
    store = open_store(settings, ENVIRONMENT)
    raw_client(s3).delete_bucket(Bucket=settings.bucket)

    with pytest.raises(StoreError, match=f"bucket of s3://{settings.bucket}"):
        store.upload(KEY, [b"x"])
