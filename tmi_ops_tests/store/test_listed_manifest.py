"""A manifest as lists of backups read it: as everybody does, but for what it says of single tables and sequences."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from benchmarks.cost.history import _base, _logical
from tmi_ops.store.manifest import (
    BrokenRecordError,
    Manifest,
    SequenceRange,
    parse_listed,
    parse_manifest,
    parse_verification,
    to_json,
)

TAKEN = datetime(2026, 11, 27, 2, tzinfo=UTC)


@pytest.fixture
def dump() -> Manifest:
    made = _logical("20261127T020000Z-logical-0001", TAKEN)
    return made.model_copy(update={"sequences": {"public.s": SequenceRange(before=1, after=2)}})


def altered(manifest: Manifest, **fields: Any) -> bytes:
    return json.dumps({**json.loads(to_json(manifest)), **fields}).encode()


def test_it_is_the_manifest_without_what_it_says_of_each_table(dump: Manifest) -> None:
    listed = parse_listed(to_json(dump), "here")
    assert listed == dump.model_copy(update={"fingerprints": {}, "sequences": {}})
    assert listed.stored_sha256 == parse_manifest(to_json(dump), "here").stored_sha256
    base = _base("20261127T020000Z-base-0001", TAKEN, 0, 1, 5)
    assert parse_listed(to_json(base), "here") == base


def test_another_copy_of_it_changes_no_other(dump: Manifest) -> None:
    first, second = (parse_listed(to_json(dump), "here") for _ in range(2))
    assert first.model_copy(update={"database": "other"}) != second
    assert second.model_dump(exclude_unset=True) == {}
    assert second.model_dump() == first.model_dump()


@pytest.mark.parametrize(
    "fields",
    [
        {"format_version": 2},
        {"fingerprints": {"public.t": {"rows": "many", "digest": "0"}}},
        {"fingerprints": {"public.t": {"rows": 1}}},
        {"fingerprints": None},
        {"sequences": {"public.s": {"before": 1}}},
        {"sequences": [1]},
        {"database_size": -1},
        {"kind": "other"},
    ],
)
def test_what_cannot_be_read_is_told_in_the_same_words(dump: Manifest, fields: dict[str, Any]) -> None:
    data = altered(dump, **fields)
    with pytest.raises(BrokenRecordError) as whole:
        parse_manifest(data, "here")
    with pytest.raises(BrokenRecordError) as listed:
        parse_listed(data, "here")
    assert listed.value.message == whole.value.message


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{}", b"\xff", b'{"format_version": 2}'])
def test_what_is_no_manifest_is_broken(data: bytes) -> None:
    for parse in (parse_manifest, parse_listed, parse_verification):
        with pytest.raises(BrokenRecordError):
            parse(data, "here")


def test_a_number_that_another_writer_put_in_quotes_is_read_too(dump: Manifest) -> None:
    data = altered(dump, fingerprints={"public.t": {"rows": "7", "digest": "0"}})
    listed = parse_listed(data, "here")
    assert isinstance(listed, Manifest)
    assert listed.fingerprints == {}
