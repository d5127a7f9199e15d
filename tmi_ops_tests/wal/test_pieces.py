"""The pieces of an open segment, by their names: what holds it, and what is to be folded."""

from __future__ import annotations

import random

import pytest

from tmi_ops.postgres.wal_files import Segment
from tmi_ops.wal.layout import file_key
from tmi_ops.wal.pieces import FOLDED_AT_ONCE, Piece, chain_from, chains, due, parse_piece, piece_name

SEGMENT = Segment(1, 3 << 24)
NAME = SEGMENT.name


def piece(start: int, end: int | None = None) -> Piece:
    found = parse_piece(piece_name(SEGMENT, start, end))
    assert found is not None
    return found[1]


OLDER = Piece(f"{NAME}.partial", 0, is_older_kind=True)


def spans(*pieces: Piece) -> list[list[tuple[int, int | None]]]:
    return [[(one.start, one.end) for one in chain] for chain in chains(pieces)]


def test_names_say_where_a_piece_lies() -> None:
    assert parse_piece(f"{NAME}.partial.0000A000", 7) == (NAME, Piece(f"{NAME}.partial.0000A000", 0xA000, None, 7))
    assert parse_piece(f"{NAME}.partial.00000000-0000A000") == (
        NAME,
        Piece(f"{NAME}.partial.00000000-0000A000", 0, 0xA000),
    )
    assert parse_piece(f"{NAME}.partial") == (NAME, OLDER)
    for name in (NAME, f"{NAME}.partial.xyz", f"{NAME}.partial.", "00000002.history", f"{NAME}.partial.0000A000-"):
        assert parse_piece(name) is None
    assert file_key("7", piece_name(SEGMENT, 10, 20)) == f"wal/7/00000001/{NAME}.partial.0000000A-00000014.zst"


@pytest.mark.parametrize(
    ("pieces", "held"),
    [
        ([], []),
        ([piece(0)], [[(0, None)]]),
        ([piece(0), piece(10), piece(30)], [[(0, 10), (10, 30), (30, None)]]),
        # A fold beside what it holds, and beside some of it.
        ([piece(0), piece(10), piece(30), piece(0, 30)], [[(0, 30), (30, None)]]),
        ([piece(10), piece(0, 30)], [[(0, 30)]]),
        ([piece(0), piece(10, 30), piece(20), piece(30)], [[(0, 10), (10, 30), (30, None)]]),
        ([piece(0, 30), piece(0, 90), piece(30, 60), piece(90)], [[(0, 90), (90, None)]]),
        # What a receiver that stood still added later lies within a fold.
        ([piece(0, 90), piece(40)], [[(0, 90)]]),
        # What lies behind a gap does not count, and what does not begin at the beginning neither.
        ([piece(0, 30), piece(40)], [[(0, 30)]]),
        ([piece(40)], []),
        ([OLDER], [[(0, None)]]),
        ([OLDER, piece(50), piece(70)], [[(0, 50), (50, 70), (70, None)]]),
        ([OLDER, piece(0), piece(10)], [[(0, 10), (10, None)], [(0, 10), (10, None)]]),
    ],
)
def test_what_holds_an_open_segment(pieces: list[Piece], held: list[list[tuple[int, int | None]]]) -> None:
    shuffled = random.Random(0).sample(pieces, len(pieces))  # noqa: S311
    assert spans(*shuffled) == held


def test_what_lies_behind_an_offset_may_begin_within_a_fold() -> None:
    listed = [piece(0, 60), piece(60), piece(70)]
    assert [(one.start, one.end) for one in chain_from(20, listed)] == [(0, 60), (60, 70), (70, None)]
    assert chain_from(65, listed) == ()


def test_pieces_of_one_level_are_folded_when_they_have_become_many() -> None:
    many = FOLDED_AT_ONCE
    assert due([]) is None
    assert due([0] * (many - 1)) is None
    assert due([0] * many) == slice(0, many)
    assert due([9, 1, *[0] * many, 0]) == slice(2, many + 2)
    assert due([*[1] * many, 0, 0]) == slice(0, many)
    assert due([9, *[1] * (many - 1), *[0] * (many - 1)]) is None


def test_whatever_was_added_few_pieces_hold_it_and_each_byte_was_put_a_few_times() -> None:
    held: list[tuple[int, int, int]] = []
    written = 0
    for number in range(5000):
        held.append((number, number + 1, 0))
        written += 1
        while (many := due([level for _, _, level in held])) is not None:
            folded = held[many]
            held[many] = [(folded[0][0], folded[-1][1], folded[0][2] + 1)]
            written += folded[-1][1] - folded[0][0]
        assert len(held) <= 4 * FOLDED_AT_ONCE
    assert [start for start, _, _ in held[1:]] == [end for _, end, _ in held[:-1]]
    assert written < 4 * 5000
