"""`tmi-ops wal gaps` on a real archive, intact and with each kind of damage."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tmi_ops.settings import Settings
from tmi_ops_tests.commands import command
from tmi_ops_tests.raw_s3 import delete_raw, raw_client, read_raw, write_raw
from tmi_ops_tests.recovery.point_in_time.conftest import Past
from tmi_ops_tests.recovery.point_in_time.restoring import copy_of_store, wal_keys
from tmi_ops_tests.variables import variables_of


@pytest.fixture
def damaged(past: Past) -> Settings:
    """A copy of the store, to be damaged."""
    return copy_of_store(past)


def _gaps(settings: Settings, directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return command("wal", "gaps", "--quiet", *words, env={**variables_of(settings), "COLUMNS": "200"}, cwd=directory)


def _name(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(".zst")


def _needed(past: Past, store_keys: list[str]) -> list[str]:
    """Whole segments after the first base, of which there is a later one."""
    stop = past.full.stop_lsn.rpartition("/")[2]
    after = f"{int(stop, 16) >> 24:08X}"
    return [key for key in store_keys if _name(key)[16:] > after and ".partial" not in key]


def test_a_whole_archive_is_proven_whole_and_every_base_is_named(past: Past, tmp_path: Path) -> None:
    done = _gaps(past.settings, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for base in (past.full, past.incremental, past.second_incremental):
        assert base.backup_id in done.stdout
    assert "No gap." in done.stdout
    assert "headers checked" in done.stdout or "links" in done.stdout


def test_the_whole_content_is_read_when_asked_for(past: Past, tmp_path: Path) -> None:
    done = _gaps(past.settings, tmp_path, "--deep", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    segments = {_name(key).partition(".")[0] for key in wal_keys(past.settings.store)}
    assert answer["checked"]["contents"] == len(segments) == answer["segments"]
    assert answer["whole"]


def test_a_missing_segment_is_named(past: Past, damaged: Settings, tmp_path: Path) -> None:
    key = _needed(past, wal_keys(damaged.store))[0]
    delete_raw(damaged.store, key)
    done = _gaps(damaged, tmp_path)
    assert done.returncode == 1
    assert f"Gap      {_name(key)}: 1 segment missing" in done.stdout
    assert "tmi-ops wal push" in done.stdout


def test_a_segment_under_anothers_name_is_found_by_its_header(past: Past, damaged: Settings, tmp_path: Path) -> None:
    keys = wal_keys(damaged.store)
    wrong = _needed(past, keys)[0]
    other = next(key for key in keys if key != wrong)
    raw_client(damaged.store).copy_object(
        Bucket=damaged.store.bucket, Key=wrong, CopySource={"Bucket": damaged.store.bucket, "Key": other}
    )
    done = _gaps(damaged, tmp_path, "--json")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert f"contains the WAL of {_name(other).partition('.')[0]}" in answer["damaged"][_name(wrong)]
    assert [hole["first"] for base in answer["bases"] for hole in base["holes"]]


@pytest.mark.slow
def test_a_cut_off_object_is_found_by_its_header_and_a_flipped_byte_by_reading_all(
    past: Past, damaged: Settings, tmp_path: Path
) -> None:
    empty, flipped = _needed(past, wal_keys(damaged.store))[:2]
    write_raw(damaged.store, empty, b"")
    content = bytearray(read_raw(damaged.store, flipped))
    content[-5] ^= 0x01
    write_raw(damaged.store, flipped, bytes(content))
    quick = json.loads(_gaps(damaged, tmp_path, "--json").stdout)
    deep = json.loads(_gaps(damaged, tmp_path, "--json", "--deep").stdout)
    assert set(quick["damaged"]) == {_name(empty)}
    assert set(deep["damaged"]) == {_name(empty), _name(flipped)}


def test_a_store_without_a_base_backup_says_what_to_do(past: Past, tmp_path: Path) -> None:
    store = past.settings.store.model_copy(update={"prefix": "nothing-here"})
    done = _gaps(past.settings.model_copy(update={"store": store}), tmp_path)
    assert done.returncode == 2
    assert "no base backup" in done.stderr
