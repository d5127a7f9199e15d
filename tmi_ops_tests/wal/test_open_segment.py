"""The segment that is being filled."""

from __future__ import annotations

from tmi_ops.postgres.wal_files import Segment
from tmi_ops.wal.open_segment import OpenSegment

SIZE = 1 << 20
SEGMENT = Segment(1, 5 * SIZE, SIZE)


def test_memory_that_was_used_before_shows_nothing_of_what_it_held() -> None:
    first = OpenSegment(SEGMENT)
    first.add(SEGMENT.start, memoryview(b"x" * SIZE))
    used = first.hand_over()
    second = OpenSegment(SEGMENT.next, used=used)
    second.add(SEGMENT.next.start, memoryview(b"yy"))
    assert bytes(second.view()) == b"yy"
    assert (second.part(0, SIZE), second.part(1, 2)) == (b"yy", b"y")
    second.add(SEGMENT.next.start + 2, memoryview(b"z" * (SIZE - 2)))
    assert second.hand_over() is used


def test_memory_of_another_size_is_not_taken() -> None:
    opened = OpenSegment(SEGMENT, used=bytearray(10))
    opened.add(SEGMENT.start, memoryview(b"x" * SIZE))
    assert len(opened.hand_over()) == SIZE
