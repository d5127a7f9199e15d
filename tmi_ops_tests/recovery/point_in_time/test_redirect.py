"""The record that creates a tablespace, changed so that it creates it in place: no other byte, and a right checksum."""

from __future__ import annotations

import struct

from tmi_ops.recovery.point_in_time.redirect import crc32c, emptied_place
from tmi_ops.recovery.point_in_time.replay_end import Wal
from tmi_ops_tests.recovery.point_in_time.test_replay_end import BEGIN, SEGMENT, Written

OID, PLACE = 16400, b"/srv/fast\0"


def a_creation(written: Written, filler: int = 40) -> int:
    """Write a record like xl_tblspc_create_rec behind one of `filler` bytes, with its checksum."""
    written.record(filler)
    data = struct.pack("<BBI", 255, 4 + len(PLACE), OID) + PLACE
    begins = written.record(24 + len(data))
    wal = written.wal()
    places = wal.places(begins, 24 + len(data))
    for place, byte in zip(places[24:], data, strict=True):
        written.content[place - BEGIN] = byte
    record, _ = written.wal().take(begins, 24 + len(data))
    checksum = crc32c(record[24:] + record[:20]).to_bytes(4, "little")
    for place, byte in zip(places[20:24], checksum, strict=True):
        written.content[place - BEGIN] = byte
    return begins


def test_the_checksum_is_that_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_the_place_is_emptied_and_the_checksum_is_right_again_wherever_the_record_lies() -> None:
    for filler in (40, 8192 - 40 - 24, 8192 - 40 - 16, SEGMENT - 3 * 24 - 40 - 32):
        written = Written()
        begins = a_creation(written, filler)
        edits = emptied_place(written.wal(), begins, OID)
        assert edits is not None
        assert 1 < len(edits) <= 5
        for lsn, byte in edits.items():
            written.content[lsn - BEGIN] = byte
        record, _ = written.wal().take(begins, 40)
        assert record[30:40] == b"\0" + PLACE[1:]
        assert int.from_bytes(record[20:24], "little") == crc32c(record[24:] + record[:20])


def test_another_record_and_one_that_is_cut_or_damaged_are_left_alone() -> None:
    written = Written()
    begins = a_creation(written)
    wal = written.wal()
    assert emptied_place(wal, begins, OID + 1) is None
    assert emptied_place(Wal(wal.content, BEGIN, begins + 30, SEGMENT), begins, OID) is None
    written.content[begins - BEGIN + 35] ^= 1
    assert emptied_place(written.wal(), begins, OID) is None
