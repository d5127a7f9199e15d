"""Times that a server's clock showed twice are reported as ambiguous."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.postgres.wal_records import all_commits
from tmi_ops.recovery.point_in_time.overlap import another_reading
from tmi_ops.recovery.point_in_time.replay_end import Wal
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.recovery.point_in_time.waldump import TransactionEnd
from tmi_ops.store.objects import open_store
from tmi_ops.wal.archive import list_wal
from tmi_ops.wal.layout import file_key
from tmi_ops.wal.stored_file import load, store_once
from tmi_ops_tests.recovery.point_in_time.conftest import Past
from tmi_ops_tests.recovery.point_in_time.pasts import minutes
from tmi_ops_tests.recovery.point_in_time.restoring import copy_of_store, restore, rows, started


def ends(*times: float) -> list[TransactionEnd]:
    """One transaction at LSN 100, 200 and so on, so many minutes after noon."""
    return [TransactionEnd(100 * number, minutes(time)) for number, time in enumerate(times, 1)]


def test_times_that_only_go_on_have_one_reading() -> None:
    assert list(another_reading(ends(10, 19, 21, 25, 30), 300, minutes(20))) == []


def test_commits_behind_the_target_that_bear_earlier_times_are_told_with_the_later_place() -> None:
    (said,) = another_reading(ends(10, 19, 21, 30, 15, 19.5, 22), 300, minutes(20))
    assert said.startswith("2026-11-24 12:20:00 UTC is ambiguous: the server's clock was put back. 2 transactions")
    assert "the last one 2026-11-24 12:19:30 UTC" in said
    assert "--to-lsn 0/258" in said


def test_what_lies_before_the_place_that_was_reached_does_not_count() -> None:
    assert list(another_reading(ends(10, 25, 15, 19), 500, minutes(20))) == []


def test_commits_out_of_order_by_less_than_a_second_are_no_clock_put_back() -> None:
    close = [TransactionEnd(300, minutes(20) + timedelta(milliseconds=3)), TransactionEnd(400, minutes(20))]
    assert list(another_reading(close, 300, minutes(20))) == []


def crc32c(content: bytes) -> int:
    """As PostgreSQL checks a record. Source: src/port/pg_crc32c_sb8.c."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def with_clock_ahead(content: bytes, start: int, after: int, until: int, ahead: timedelta) -> tuple[bytes, int]:
    """A segment whose commits between two LSNs bear later times, and how many those are."""
    changed = bytearray(content)
    wal = Wal(content, start, start + len(content), len(content))
    moved = 0
    for record, _ in all_commits(content):
        if not after < record <= until:
            continue
        length = int.from_bytes(wal.take(record, 4)[0], "little")
        places = wal.places(record, length)
        body = bytearray(content[place - start] for place in places)
        assert body[24] == 255, "short main data"
        at = int.from_bytes(body[26:34], "little") + int(ahead / timedelta(microseconds=1))
        body[26:34] = at.to_bytes(8, "little")
        body[20:24] = crc32c(bytes(body[24:] + body[:20])).to_bytes(4, "little")
        for place, byte in zip(places, body, strict=True):
            changed[place - start] = byte
        moved += 1
    return bytes(changed), moved


@pytest.mark.slow
def test_a_restore_to_a_time_that_was_lived_twice_says_so_and_its_advice_leads_to_the_later_place(
    past: Past, directory: Path
) -> None:
    """Between the second backup and the moment `middle` the clock was an hour ahead; then it was put right."""
    settings = copy_of_store(past)
    store = open_store(settings.store, settings.environment)
    moved = 0
    for item in list_wal(store, past.system_identifier).segments[1]:
        content, facts = load(store, past.system_identifier, item.name)
        ahead, count = with_clock_ahead(
            content, item.segment.start, parse_lsn(past.incremental.stop_lsn), past.middle.lsn, timedelta(hours=1)
        )
        moved += count
        if count:
            store.delete([file_key(past.system_identifier, item.name)])
            store_once(store, past.system_identifier, item.name, ahead, facts.end_lsn)
    assert moved >= past.middle.rows - past.early.rows

    recovered = restore(settings, Target(time=past.late.time), directory, base=past.incremental.backup_id)
    (said,) = recovered.notes
    assert "is ambiguous: the server's clock was put back" in said
    with started(directory, past.cluster.address) as copy:
        assert rows(copy.address) == past.early.rows
    advised = parse_lsn(said.rpartition("--to-lsn ")[2].rstrip("."))
    shutil.rmtree(directory)
    restore(settings, Target(lsn=advised), directory, base=past.incremental.backup_id)
    with started(directory, past.cluster.address) as copy:
        assert rows(copy.address) == past.late.rows
