from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmi_ops.recovery import contents
from tmi_ops.recovery.contents import RowsDifference, differing_rows, hashed_rows

ROWS = st.lists(st.binary(max_size=6).filter(lambda row: b"\n" not in row), max_size=12)


def compared(before: list[bytes], after: list[bytes]) -> RowsDifference:
    def stream(rows: list[bytes]) -> Iterator[bytes]:
        yield b"".join(row + b"\n" for row in rows)

    return differing_rows(lambda: stream(before), lambda: stream(after))


@given(before=ROWS, after=ROWS)
def test_what_differs_is_what_differs_between_multisets(before: list[bytes], after: list[bytes]) -> None:
    found = compared(before, after)
    assert Counter(row.text for row in found.only_in_source) == Counter(before) - Counter(after)
    assert Counter(row.text for row in found.only_in_copy) == Counter(after) - Counter(before)
    assert found.complete
    assert found.equal == (Counter(before) == Counter(after))


@given(ROWS, st.integers(1, 5))
def test_where_pieces_end_does_not_matter(rows: list[bytes], size: int) -> None:
    text = b"".join(row + b"\n" for row in rows)
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert list(hashed_rows(pieces)) == list(hashed_rows([text]))
    assert [row for _, row in hashed_rows(pieces)] == rows


def test_a_row_is_found_by_its_place_in_the_stream() -> None:
    found = compared([b"a", b"b", b"c"], [b"c", b"a", b"B"])
    assert [(row.number, row.text) for row in found.only_in_source] == [(2, b"b")]
    assert [(row.number, row.text) for row in found.only_in_copy] == [(3, b"B")]


def test_of_many_differences_some_are_named_and_it_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "BUCKETS_LOOKED_AT", 3)
    found = compared([str(number).encode() for number in range(50)], [])
    assert not found.complete
    assert 0 < len(found.only_in_source) < 50


def test_long_rows_are_compared_whole_and_kept_in_part() -> None:
    long = b"x" * 200_000
    assert not compared([long + b"1"], [long + b"2"]).equal
    (row,) = compared([long], []).only_in_source
    assert len(row.text) < 100_000
