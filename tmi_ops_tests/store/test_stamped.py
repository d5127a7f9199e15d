"""Attacks on archived WAL by who can write the bucket, each on the real store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tmi_ops.errors import IntegrityError
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.continuity.reading import Reading, read_contents, read_links
from tmi_ops.store.minisign import new_secret_key
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.stamped import STAMP, canonical
from tmi_ops.store.trust import Trust, TrustedKey, UntrustedError
from tmi_ops.store.vouching import sign_documents, unsigned_documents
from tmi_ops.wal.archive import archive_of
from tmi_ops.wal.stored_file import load, store_once
from tmi_ops_tests.store.conftest import ENVIRONMENT, AgeKeys, RawBucket

CLUSTER, NAME, OTHER = "7", "000000010000000000000001", "000000010000000000000002"
CONTENT = b"WAL" * 1000


@pytest.fixture
def signing(store: ObjectStore) -> ObjectStore:
    key = new_secret_key()
    return replace(store, trust=Trust(ENVIRONMENT, key, (TrustedKey(key.public, ("writer",)),)))


def put(store: ObjectStore, name: str = NAME, **links: str) -> str:
    store_once(store, CLUSTER, name, CONTENT, None, links or {"prev": "0/28", "chain": "0" * 64})
    return next(item.key for item in store.list_objects(f"wal/{CLUSTER}/") if name in item.key)


def tampered(raw: RawBucket, key: str, change: Callable[[dict[str, str]], dict[str, str]], to: str = "") -> None:
    """The object with other metadata, as who can write the bucket leaves it."""
    where = {"Bucket": raw.bucket, "Key": raw.root + key}
    found: Any = raw.client.get_object(**where)
    raw.client.put_object(
        Bucket=raw.bucket, Key=raw.root + (to or key), Body=found["Body"].read(), Metadata=change(found["Metadata"])
    )


def test_what_was_archived_is_read_back(signing: ObjectStore) -> None:
    put(signing)
    assert load(signing, CLUSTER, NAME)[0] == CONTENT


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda metadata: {**metadata, "chain": "1" * 64}, "was altered"),
        (lambda metadata: {**metadata, "prev": "0/30"}, "was altered"),
        (lambda metadata: {**metadata, "lastcommit": "2026-11-27T20:00:00+00:00"}, "was altered"),
        (lambda metadata: {name: value for name, value in metadata.items() if name != "chain"}, "was altered"),
        (lambda metadata: {name: value for name, value in metadata.items() if name != STAMP}, "is not signed"),
    ],
    ids=["another segment before", "another record before", "another commit time", "no chain", "no signature"],
)
def test_a_segment_whose_metadata_says_something_else_is_refused(
    signing: ObjectStore, raw: RawBucket, change: Callable[[dict[str, str]], dict[str, str]], said: str
) -> None:
    tampered(raw, put(signing), change)
    with pytest.raises(UntrustedError, match=said):
        load(signing, CLUSTER, NAME)


def test_a_segment_in_the_place_of_another_is_refused(signing: ObjectStore, raw: RawBucket) -> None:
    key = put(signing)
    tampered(raw, key, dict, key.replace(NAME, OTHER))
    with pytest.raises(UntrustedError, match="and copied from there"):
        load(signing, CLUSTER, OTHER)


def test_other_bytes_under_a_good_signature_are_refused(signing: ObjectStore, raw: RawBucket) -> None:
    first, second = put(signing), put(signing, OTHER)
    metadata = raw.client.head_object(Bucket=raw.bucket, Key=raw.root + first)["Metadata"]
    store_once(signing, "8", NAME, b"evil", None)
    evil = raw.read(next(item.key for item in signing.list_objects("wal/8/")))
    raw.client.put_object(Bucket=raw.bucket, Key=raw.root + first, Body=evil, Metadata=metadata)
    with pytest.raises(IntegrityError):
        load(signing, CLUSTER, NAME)
    assert second


def test_what_a_strangers_receiver_archived_is_refused(signing: ObjectStore, store: ObjectStore) -> None:
    put(replace(store, trust=Trust(ENVIRONMENT, new_secret_key(), ())))
    with pytest.raises(UntrustedError, match="not trusted here"):
        load(signing, CLUSTER, NAME)


def test_plain_wal_where_everything_is_encrypted_is_refused(
    signing: ObjectStore, encrypting_store: ObjectStore, age_keys: AgeKeys
) -> None:
    put(signing)
    expecting = replace(encrypting_store, trust=signing.trust)
    with pytest.raises(UntrustedError, match="is not encrypted"):
        load(expecting, CLUSTER, NAME)


@pytest.mark.parametrize("read", [read_links, read_contents])
def test_wal_gaps_names_what_nobody_trusted_has_signed(
    signing: ObjectStore, store: ObjectStore, read: Callable[..., Reading]
) -> None:
    put(store)
    archive = archive_of(signing, CLUSTER, signing.list_objects(f"wal/{CLUSTER}/"))
    assert "is not signed" in read(signing, archive, SilentReport()).damaged[NAME]


def test_wal_from_before_the_keys_is_signed_on_a_persons_word(signing: ObjectStore, store: ObjectStore) -> None:
    key = put(store)
    with pytest.raises(UntrustedError, match="is not signed"):
        load(signing, CLUSTER, NAME)
    (found,) = unsigned_documents(signing, "wal/")
    assert found.key == key
    sign_documents(signing, [found])
    plain, facts = load(signing, CLUSTER, NAME)
    assert (plain, facts.size) == (CONTENT, len(CONTENT))
    assert unsigned_documents(signing, "wal/") == []


def test_what_is_signed_is_everything_but_the_signature_and_the_transports_checksum() -> None:
    metadata = {"b": "2", "a": "1", STAMP: "x", "stored-sha256": "y"}
    assert canonical(metadata) == b"a=1\nb=2\n"


def test_without_keys_wal_is_read_as_before(store: ObjectStore, tmp_path: Path) -> None:
    put(store)
    assert load(store, CLUSTER, NAME)[0] == CONTENT
