"""Attacks on what the lease and the records of a WAL archive say, by who can write the bucket; and a store that went
back."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tmi_ops.recovery.wal_end import read_receiver_wal_end
from tmi_ops.store.minisign import new_secret_key
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.seen import notice_cluster, notice_wal, wal_went_back
from tmi_ops.store.trust import Trust, TrustedKey, UntrustedError
from tmi_ops.wal.breaks import Break
from tmi_ops.wal.layout import lease_key, records_key
from tmi_ops.wal.lease import KeptLease, Lease, LeaseHeldError, hold_lease
from tmi_ops.wal.records import ArchiveRecords, known_records, read_records, update_records
from tmi_ops_tests.store.conftest import ENVIRONMENT, RawBucket

CLUSTER = "7"
NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
BREAK = Break(1, 0x5000028, "minimal")


@pytest.fixture
def signing(store: ObjectStore, tmp_path: Path) -> ObjectStore:
    key = new_secret_key()
    trust = Trust(ENVIRONMENT, key, (TrustedKey(key.public, ("writer",)),))
    return replace(store, trust=trust, seen_file=tmp_path / "seen.json")


def receive(store: ObjectStore, lsn: str) -> KeptLease:
    with hold_lease(
        store, CLUSTER, "ours", lambda: {"timeline": 1, "lsn": lsn, "level_at": NOW}, stop=threading.Event(), note=print
    ) as lease:
        assert lease is not None
        return lease


def test_what_a_receiver_signed_is_believed(signing: ObjectStore) -> None:
    receive(signing, "0/5000100")
    seen = read_receiver_wal_end(signing, CLUSTER)
    assert seen is not None
    assert (seen.lsn, seen.at) == (0x5000100, NOW)


def forged_lease(**facts: object) -> bytes:
    told = {"holder": "x", "host": "x", "process": 1, "since": NOW, "written_at": NOW, "slot": "theirs", **facts}
    return Lease.model_validate({**told, "timeline": 1, "lsn": "F/0", "level_at": NOW}).model_dump_json().encode()


def test_a_forged_lease_vouches_for_nothing_and_hands_nothing_on(signing: ObjectStore, raw: RawBucket) -> None:
    raw.write(lease_key(CLUSTER), forged_lease())
    with pytest.raises(UntrustedError, match="not signed"):
        read_receiver_wal_end(signing, CLUSTER)
    with pytest.raises(LeaseHeldError):
        receive(signing, "0/5000100")
    raw.write(lease_key(CLUSTER), forged_lease(ended=True))
    kept = receive(signing, "0/5000100")
    assert kept.before is not None
    assert (kept.before.level_at, kept.before.slot) == (None, "")
    seen = read_receiver_wal_end(signing, CLUSTER)
    assert seen is not None
    assert seen.lsn == 0x5000100


@pytest.mark.parametrize("place", [CLUSTER, "8"], ids=["with other words", "of another cluster"])
def test_a_signature_counts_for_its_own_words_and_place_only(signing: ObjectStore, raw: RawBucket, place: str) -> None:
    receive(signing, "0/5000100")
    body = raw.read(lease_key(CLUSTER))
    metadata = raw.client.head_object(Bucket=raw.bucket, Key=raw.root + lease_key(CLUSTER))["Metadata"]
    altered = body.replace(b"0/5000100", b"0/9000100") if place == CLUSTER else body
    stays = {name: value for name, value in metadata.items() if name in ("sha256", "signature")}
    raw.client.put_object(Bucket=raw.bucket, Key=raw.root + lease_key(place), Body=altered, Metadata=stays)
    with pytest.raises(UntrustedError, match=r"altered after it was signed|copied from there"):
        read_receiver_wal_end(signing, place)


def test_a_forged_word_on_the_line_is_not_believed_and_a_forged_break_allows_nothing(
    signing: ObjectStore, raw: RawBucket
) -> None:
    forged = ArchiveRecords().with_word(2, NOW).with_break(BREAK)
    raw.write(records_key(CLUSTER), forged.model_dump_json().encode())
    with pytest.raises(UntrustedError, match="not signed"):
        read_records(signing, CLUSTER)
    known, problems = known_records(signing, CLUSTER)
    assert (known.followed, known.as_breaks()) == ((), (BREAK,))
    assert "not signed" in problems[0]
    update_records(signing, CLUSTER, lambda records: records.with_followed(1, "here", NOW))
    known, problems = known_records(signing, CLUSTER)
    assert ([item.timeline for item in known.followed], problems) == ([1], ())


def test_without_pinned_keys_lease_and_records_of_earlier_releases_are_read(store: ObjectStore, raw: RawBucket) -> None:
    raw.write(lease_key(CLUSTER), forged_lease())
    raw.write(records_key(CLUSTER), ArchiveRecords().with_word(2, NOW).model_dump_json().encode())
    assert read_receiver_wal_end(store, CLUSTER) is not None
    assert read_records(store, CLUSTER).word is not None


def test_wal_that_was_seen_and_is_gone_is_told_each_time(signing: ObjectStore) -> None:
    assert notice_wal(signing, CLUSTER, {1: 500}) == ()
    assert notice_wal(signing, CLUSTER, {1: 700}) == ()
    for _ in range(2):
        (said,) = notice_wal(signing, CLUSTER, {1: 600})
        assert "The store is in an older state: WAL of timeline 1" in said
    assert notice_wal(signing, "8", {1: 600}) == ()


@pytest.mark.parametrize(
    ("seen", "ends", "gone"),
    [
        (None, {}, False),
        ((1, 700), {1: 700}, False),
        ((1, 700), {1: 699}, True),
        ((1, 700), {}, True),
        ((1, 700), {2: 900}, False),  # retention dropped the old timeline
        ((2, 700), {1: 900}, True),  # the new one is gone
        ((1, 700), {1: 700, 2: 600}, False),  # recovered to an earlier point
    ],
)
def test_wal_went_back_where_nothing_goes_as_far(
    seen: tuple[int, int] | None, ends: dict[int, int], gone: bool
) -> None:
    assert wal_went_back(seen, ends) is gone


def test_another_cluster_in_the_place_of_the_known_one_is_told_until_a_person_names_it(signing: ObjectStore) -> None:
    assert notice_cluster(signing, CLUSTER, chosen=False) == ()
    for _ in range(2):
        (said,) = notice_cluster(signing, "8", chosen=False)
        assert "this machine knows 7 as the environment's" in said
    assert notice_cluster(signing, "8", chosen=True) == ()
    assert notice_cluster(signing, "8", chosen=False) == ()
