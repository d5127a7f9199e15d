"""Proving an archive with a request for many segments, and believing nothing that has changed since."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tmi_ops.postgres.wal_files import Segment
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.continuity.reading import Reading, read_links
from tmi_ops.settings import StoreSettings
from tmi_ops.store.minisign import new_secret_key
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.store.trust import Trust, TrustedKey
from tmi_ops.wal import chapters
from tmi_ops.wal.archive import list_wal
from tmi_ops.wal.chapters import ChapterPlace, ends_a_chapter, parse_chapter, place_of, seen_as, write_chapter
from tmi_ops.wal.description import describe_archive
from tmi_ops.wal.layout import file_key
from tmi_ops.wal.links import Links
from tmi_ops.wal.stored_file import store_once
from tmi_ops_tests.raw_s3 import s3_of

CLUSTER, SIZE, FEW = "7", 1 << 20, 4


def test_a_chapter_is_found_by_its_segments_and_tells_of_which() -> None:
    whole = ChapterPlace(1, 2)
    first, *_, last = whole.segments(SIZE)
    assert (place_of(first), place_of(last), place_of(last.next)) == (whole, whole, ChapterPlace(1, 3))
    assert [ends_a_chapter(one) for one in (first, last)] == [False, True]
    name = whole.key(CLUSTER).rpartition("/")[2].removesuffix(".zst")
    assert parse_chapter(name, SIZE) == (1, first.start, last.end)
    for other in (first.name, "lease", "00000001-000000000", "0000000X-0000000000"):
        assert parse_chapter(other, SIZE) is None


def test_an_object_is_known_again_though_a_listing_tells_fractions_of_its_second() -> None:
    at = datetime(2026, 1, 1, 0, 0, 7, 250000, tzinfo=UTC)
    assert seen_as('"a"', 5, at) == seen_as('"a"', 5, at.replace(microsecond=0))
    others = {
        seen_as('"a"', 5, at),
        seen_as('"b"', 5, at),
        seen_as('"a"', 6, at),
        seen_as('"a"', 5, at.replace(second=8)),
    }
    assert len(others) == 4


@pytest.fixture
def store(store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.setattr(chapters, "SEGMENTS", FEW)
    key = new_secret_key()
    trust = Trust("development", key, (TrustedKey(key.public, ("writer",)),))
    opened = replace(open_store(store_settings, "development"), trust=trust)
    describe_archive(opened, CLUSTER, SIZE)
    for number in range(1, 3 * FEW + 2):
        put(opened, number)
    return opened


def put(store: ObjectStore, number: int) -> Segment:
    one = Segment(1, number * SIZE, SIZE)
    links = Links(first=one.start + 0x28, prev=one.start - 0x40, last=one.end - 0x40)
    store_once(store, CLUSTER, one.name, f"{number}".encode(), one.end, links.metadata())
    return one


@contextmanager
def asked(store: ObjectStore) -> Iterator[Counter[str]]:
    requests: Counter[str] = Counter()

    end = store.backend.watch(lambda operation: requests.update([operation]))
    try:
        yield requests
    finally:
        end()


def read(store: ObjectStore) -> tuple[Reading, Counter[str]]:
    archive = list_wal(store, CLUSTER, whole=True)
    with asked(store) as requests:
        return read_links(store, archive, SilentReport()), requests


def test_what_was_read_once_takes_a_request_for_each_chapter_and_is_the_same(store: ObjectStore) -> None:
    first, cost = read(store)
    assert cost["HeadObject"] >= 3 * FEW + 1
    again, cost = read(store)
    assert again == first
    # Two chapters are whole; of the first and the last there are some segments.
    assert cost == {"ListObjectsV2": 1, "GetObject": 2, "HeadObject": 3 * FEW + 1 - 2 * FEW}


def test_a_chapter_of_the_receivers_is_believed_and_a_stranger_s_is_not(store: ObjectStore) -> None:
    stranger = replace(store, trust=Trust("development", new_secret_key(), ()))
    write_chapter(stranger, CLUSTER, ChapterPlace(1, 1), SIZE)
    write_chapter(store, CLUSTER, ChapterPlace(1, 2), SIZE)
    found, cost = read(store)
    looked_at = 3 * FEW + 1 - FEW
    assert (cost["GetObject"], cost["HeadObject"]) == (2, looked_at + 1), "and one before the chapter is written anew"
    assert not found.damaged


def test_a_segment_that_was_replaced_since_is_looked_at(store: ObjectStore) -> None:
    read(store)
    time.sleep(1.1)  # the store tells seconds
    victim = Segment(1, (FEW + 1) * SIZE, SIZE)
    where = {"Bucket": s3_of(store).bucket, "Key": f"{store.root}{file_key(CLUSTER, victim.name)}"}
    found: Any = s3_of(store).client.get_object(**where)
    s3_of(store).client.put_object(**where, Body=found["Body"].read(), Metadata={**found["Metadata"], "prev": "0/30"})
    reading, _ = read(store)
    assert "was altered" in reading.damaged[victim.name]


def test_a_segment_that_is_gone_is_missing_whatever_its_chapter_says(store: ObjectStore) -> None:
    read(store)
    victim = Segment(1, (FEW + 1) * SIZE, SIZE)
    store.delete([file_key(CLUSTER, victim.name)])
    assert victim.name not in read(store)[0].links
