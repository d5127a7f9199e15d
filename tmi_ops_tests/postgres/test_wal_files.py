"""Names and headers of WAL files say where they belong, and a file in the wrong place is recognised."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmi_ops.errors import IntegrityError, OpsError
from tmi_ops.postgres.wal_files import (
    Segment,
    TimelineSwitch,
    check_header,
    format_lsn,
    parse_header,
    parse_history,
    parse_lsn,
    parse_segment_name,
    segment_at,
)

MIB = 1 << 20
SYSTEM = "7315643232131232131"
SEGMENT = Segment(3, 0x1_FF00_0000)


def header(
    segment: Segment = SEGMENT,
    *,
    magic: int = 0xD116,
    info: int = 2,
    timeline: int | None = None,
    order: str = "<",
    system: str = SYSTEM,
) -> bytes:
    """The first 40 bytes of a segment as PostgreSQL lays them out."""
    return struct.pack(
        f"{order}HHIQI4xQII",
        magic,
        info,
        timeline or segment.timeline,
        segment.start,
        0,
        int(system),
        segment.size,
        8192,
    )


def test_a_segment_is_named_as_pg_walfile_name_names_it() -> None:
    assert segment_at(1, parse_lsn("0/16B3740")).name == "000000010000000000000001"
    assert SEGMENT.name == "0000000300000001000000FF"
    assert SEGMENT.next.name == "000000030000000200000000"
    assert segment_at(1, parse_lsn("1/80000000"), 64 * MIB).name == "000000010000000100000020"


@given(
    timeline=st.integers(1, 2**32 - 1),
    lsn=st.integers(0, 2**63),
    size=st.sampled_from([MIB << power for power in range(11)]),
)
def test_a_name_leads_back_to_its_segment_at_every_segment_size(timeline: int, lsn: int, size: int) -> None:
    segment = segment_at(timeline, lsn, size)

    assert parse_segment_name(segment.name, size) == segment
    assert segment.start <= lsn < segment.end
    assert parse_lsn(format_lsn(lsn)) == lsn


@pytest.mark.parametrize(
    "name", ["00000001000000000000000", "000000010000000000000100", "000000000000000000000001", "x"]
)
def test_what_is_no_segments_name_is_refused(name: str) -> None:
    with pytest.raises(OpsError, match="not the name of a WAL segment"):
        parse_segment_name(name)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_header_is_read_from_servers_of_either_byte_order(order: str) -> None:
    read = parse_header(header(order=order), "it")

    assert (read.timeline, read.page_address, read.system_identifier, read.segment_size) == (
        3,
        SEGMENT.start,
        SYSTEM,
        16 * MIB,
    )


@pytest.mark.parametrize(
    ("bytes_", "said"),
    [
        (b"", "does not start like"),
        (bytes(40), "does not start like"),
        (header(info=0), "does not start like"),
        (header(system="12"), "from the cluster 12"),
        (header(SEGMENT.next), "contains the WAL of 000000030000000200000000"),
        (header(timeline=4), "starts on timeline 4"),
        (header(Segment(3, SEGMENT.start, 64 * MIB)), "segments of 67108864 bytes"),
    ],
)
def test_a_header_that_does_not_fit_the_name_is_refused_and_says_why(bytes_: bytes, said: str) -> None:
    with pytest.raises(IntegrityError, match=said):
        check_header(bytes_, SEGMENT, SYSTEM, SEGMENT.name)


def test_the_first_segment_of_a_timeline_may_begin_with_its_parents_pages() -> None:
    assert check_header(header(timeline=2), SEGMENT, SYSTEM, SEGMENT.name).timeline == 2


def test_a_history_tells_the_ancestors_and_where_each_was_left() -> None:
    text = "1\t0/3000148\tno recovery target specified\n\n# a comment\n2\t1/A0\tbefore 2026-01-01 00:00:00+00\n"

    assert parse_history(text, 3) == (
        TimelineSwitch(1, 0x3000148, "no recovery target specified"),
        TimelineSwitch(2, 0x1_000000A0, "before 2026-01-01 00:00:00+00"),
    )


@pytest.mark.parametrize("text", ["nonsense", "2\t0/1\tx\n1\t0/2\ty", "3\t0/1\titself", "1 0-1 x"])
def test_what_is_no_history_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError, match=r"00000003\.history"):
        parse_history(text, 3)
