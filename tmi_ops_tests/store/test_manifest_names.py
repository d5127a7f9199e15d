"""The attack by a manifest: names that leave the directory, sizes that fill the disk, numbers that hang a reader."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tmi_ops.store.manifest import BrokenRecordError, parse_manifest

SHA = "0" * 64
OBJECT = {"name": "base.tar.zst", "size": 10, "sha256": SHA, "plain_size": 10, "plain_sha256": SHA, "encrypted": False}
TIME = "2026-11-27T20:00:00Z"
MANIFEST: dict[str, Any] = {
    "format_version": 1,
    "kind": "base",
    "backup_id": "20261127T200000Z-base-0000",
    "environment": "production",
    "server_version": "17.1",
    "server_version_num": 170001,
    "started_at": TIME,
    "finished_at": TIME,
    "duration_seconds": 1.0,
    "tmi_ops_version": "0",
    "format": "full",
    "system_identifier": "7000000000000000000",
    "timeline": 1,
    "start_lsn": "0/2000028",
    "stop_lsn": "0/2000120",
    "consistent_at": TIME,
    "wal_segment_size": 16 << 20,
    "data_checksums": True,
    "cluster_size": 100,
    "role": "postgres",
    "tablespaces": [{"oid": "16384", "location": "/srv/fast", "object_name": "16384.tar.zst"}],
    "objects": [OBJECT, {**OBJECT, "name": "16384.tar.zst"}],
}


def refused(**changes: Any) -> str:
    with pytest.raises(BrokenRecordError) as error:
        parse_manifest(json.dumps({**MANIFEST, **changes}).encode(), "it")
    return error.value.message


def test_a_manifest_as_we_write_it_is_read() -> None:
    manifest = parse_manifest(json.dumps(MANIFEST).encode(), "it")
    assert [item.name for item in manifest.objects] == ["base.tar.zst", "16384.tar.zst"]
    assert parse_manifest(json.dumps({**MANIFEST, "a_field_of_tomorrow": 1}).encode(), "it").kind == "base"


@pytest.mark.parametrize("name", ["database.dump", "database.dir/toc.dat", "database.dir/3456.dat.gz", "roles.json"])
def test_names_of_objects_as_we_make_them_are_read(name: str) -> None:
    parse_manifest(json.dumps({**MANIFEST, "objects": [{**OBJECT, "name": name}]}).encode(), "it")


@pytest.mark.parametrize(
    "name",
    [
        "", "..", "../../etc/cron.d/evil", "/etc/passwd", "a/../b", "a//b", "a/b/c", ".hidden", "a/.ssh", "a\nb",
        "a\x00",
        "a\\b", "C:evil", "-rf", "a/-rf", "x" * 300, "manifest.json", "MANIFEST.json", "hold.json", "SHA256SUMS",
        "verdict-20261127T200000000000Z-0000.json", "drill-x.json", "base.tar.zst.minisig", "a b", "$(id)", "`id`",
    ],
)  # fmt: skip
def test_a_name_that_is_a_path_a_command_or_ours_is_refused(name: str) -> None:
    assert "objects.0.name" in refused(objects=[{**OBJECT, "name": name}])
    assert "object_name" in refused(tablespaces=[{"oid": "1", "location": "/srv", "object_name": name}])


def test_two_objects_of_one_name_are_refused() -> None:
    assert "two objects have the same name" in refused(objects=[OBJECT, OBJECT])


@pytest.mark.parametrize(
    "change",
    [
        {"size": -1}, {"plain_size": -1}, {"size": 6 << 40}, {"sha256": "x" * 64}, {"sha256": "0" * 63},
        {"plain_size": 629_000_000}, {"plain_size": 11, "encrypted": True}, {"plain_size": 9},
    ],
)  # fmt: skip
def test_sizes_that_the_stored_bytes_cannot_have_are_refused(change: dict[str, Any]) -> None:
    refused(objects=[{**OBJECT, **change}])


@pytest.mark.parametrize("oid", ["../1", "1/2", "", "x", "-1", "1" * 11, "1\n"])
def test_a_tablespaces_oid_is_digits(oid: str) -> None:
    assert "oid" in refused(tablespaces=[{"oid": oid, "location": "/srv", "object_name": "a"}])


@pytest.mark.parametrize(
    "change",
    [
        {"backup_id": "../../x"}, {"parent": "a/b"}, {"chain": ["20261127T200000Z-base-0000", ".."]},
        {"system_identifier": "../7"}, {"start_lsn": "0/2'; --"}, {"stop_lsn": "x"}, {"timeline": -1},
        {"cluster_size": -1}, {"tablespaces": [{"oid": "1", "location": "/srv\n2 /etc", "object_name": "a"}]},
        {"wal_segment_size": 0}, {"wal_segment_size": 3 << 20}, {"wal_segment_size": 1 << 50},
    ],
)  # fmt: skip
def test_what_becomes_a_path_a_line_or_a_length_is_checked(change: dict[str, Any]) -> None:
    refused(**change)
