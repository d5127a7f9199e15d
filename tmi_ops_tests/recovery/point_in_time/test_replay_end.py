"""Detects from bytes whether a finished replay left WAL unreplayed, and that such a restore fails."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.wal_files import format_lsn, segment_at
from tmi_ops.recovery.point_in_time.replay_end import Wal, end_of_record, what_follows
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.store.objects import open_store
from tmi_ops.wal.archive import list_clusters
from tmi_ops.wal.partials import list_open, load_open
from tmi_ops_tests.archiving import archive_open
from tmi_ops_tests.recovery.point_in_time.conftest import Past
from tmi_ops_tests.recovery.point_in_time.restoring import copy_of_store, restore

PAGE, SEGMENT = 8192, 4 * 8192
BEGIN = 10 * SEGMENT
MAGIC = 0xD116


class Written:
    """WAL of one segment and the next, record by record, as a server writes it."""

    def __init__(self) -> None:
        self.content = bytearray(2 * SEGMENT)
        self.place, self.last = BEGIN, BEGIN - 100
        self.previous = self.last

    def record(self, size: int, *, previous: int | None = None, switch: bool = False) -> int:
        self.previous, begins = self.last, -1
        data = struct.pack("<IIQBB6x", size, 1, self.last if previous is None else previous, 0x40 * switch, 0)
        data = data.ljust(size, b"\xaa")
        while data:
            if self.place % PAGE == 0:
                self._header(continues=begins >= 0)
            if begins < 0:
                begins = self.place
            part = min(len(data), PAGE - self.place % PAGE)
            at = self.place - BEGIN
            self.content[at : at + part] = data[:part]
            self.place, data = self.place + part, data[part:]
        self.place = -(-self.place // 8) * 8
        if switch:
            self.place += -self.place % SEGMENT
        self.last = begins
        return begins

    def _header(self, *, continues: bool) -> None:
        long = self.place % SEGMENT == 0
        info = (0x0002 if long else 0) | (0x0001 if continues else 0)
        header = struct.pack("<HHIQI4x", MAGIC, info, 1, self.place, 0)
        if long:
            header += struct.pack("<QII", 7, SEGMENT, PAGE)
        at = self.place - BEGIN
        self.content[at : at + len(header)] = header
        self.place += len(header)

    def wal(self, end: int | None = None) -> Wal:
        end = BEGIN + 2 * SEGMENT if end is None else end
        return Wal(bytes(self.content), BEGIN, end, SEGMENT)


def test_at_the_end_of_what_was_written_nothing_follows() -> None:
    written = Written()
    for size in (100, 30, 9000, 57):
        written.record(size)
    assert what_follows(written.wal(), written.place, written.last) == "nothing"
    assert what_follows(written.wal(written.place), written.place, written.last) == "nothing"
    assert end_of_record(written.wal(), written.last) == written.place


def test_a_whole_record_that_was_not_replayed_is_more() -> None:
    written = Written()
    last = written.record(100)
    place = written.place
    written.record(50)
    assert what_follows(written.wal(), place, last) == "more"
    assert what_follows(written.wal(), place, None) == "more"


def test_a_record_that_goes_on_beyond_the_end_is_unfinished() -> None:
    written = Written()
    last = written.record(100)
    place = written.place
    written.record(20000)
    assert what_follows(written.wal(place + PAGE), place, last) == "unfinished"
    assert what_follows(written.wal(place + 4), place, last) in ("nothing", "unfinished")
    assert what_follows(written.wal(written.place), place, last) == "more"


def test_a_record_of_another_history_is_more_even_where_it_is_cut() -> None:
    written = Written()
    last = written.record(100)
    place = written.place
    written.record(20000, previous=last - 8)
    assert what_follows(written.wal(place + PAGE), place, last) == "more"


def test_a_segment_of_another_history_after_a_whole_one_is_more() -> None:
    written = Written()
    last = written.record(64, switch=True)
    place = written.place
    assert place == BEGIN + SEGMENT == end_of_record(written.wal(), last)
    assert what_follows(written.wal(), place, last) == "nothing"
    written.record(50, previous=last - 8)
    assert what_follows(written.wal(), place, last) == "more"


def test_a_page_that_goes_on_with_a_record_which_nobody_began_is_more() -> None:
    written = Written()
    last = written.record(64, switch=True)
    written.record(50)
    written.content[SEGMENT + 2] |= 1
    assert what_follows(written.wal(), BEGIN + SEGMENT, last) == "more"


def test_pages_of_a_recycled_file_are_nothing_and_pages_of_this_place_are_more() -> None:
    written = Written()
    last = written.record(100)
    place = written.place
    stale = struct.pack("<HHIQI4x", MAGIC, 0, 1, 3 * PAGE, 0)
    written.content[PAGE : PAGE + len(stale)] = stale
    assert what_follows(written.wal(), place, last) == "nothing"
    later = struct.pack("<HHIQI4x", MAGIC, 0, 1, BEGIN + 2 * PAGE, 0)
    written.content[2 * PAGE : 2 * PAGE + len(later)] = later
    assert what_follows(written.wal(), place, last) == "more"


@pytest.mark.slow
@pytest.mark.parametrize("to_a_time", [False, True])
def test_an_archive_of_two_histories_is_no_success_and_says_where_the_first_one_ends(
    past: Past, directory: Path, to_a_time: bool
) -> None:
    settings = copy_of_store(past)
    store = open_store(settings.store, settings.environment)
    (cluster,) = list_clusters(store)
    segment = segment_at(1, past.end)
    content = bytearray(load_open(store, cluster, segment.name)[0][: past.end - segment.start])
    first = 40  # after the header of a segment that the one before did not reach into
    assert struct.unpack_from("<I", content, 16)[0] == 0
    before = struct.unpack_from("<Q", content, first + 8)[0]
    struct.pack_into("<Q", content, first + 8, before - 64)
    store.delete([item.key for item in list_open(store, cluster, segment)])
    archive_open(store, cluster, segment, bytes(content))
    begins = segment.start
    target = Target(time=past.second_incremental.started_at) if to_a_time else Target()
    with pytest.raises(RecoveryError, match=f"The replay ended at {format_lsn(begins)}") as caught:
        restore(settings, target, directory, base=past.full.backup_id)
    assert "incorrect prev-link" in caught.value.message
    assert f"--to-lsn {format_lsn(begins)}" in caught.value.hint
    assert not directory.exists()
    before_it = restore(settings, Target(lsn=begins), directory, base=past.full.backup_id)
    assert before_it.lsn == begins
