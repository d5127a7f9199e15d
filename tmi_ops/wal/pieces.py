"""An open segment as it lies in the store: pieces, one behind the other, so that only what is new is put. Pure.

1. A piece is named by where it begins: `<segment>.partial.<offset>`, in eight hexadecimal digits. It holds the bytes up
   to where the next piece begins; the last one's metadata says where it ends. Only one writer can put a piece of that
   name, so a receiver that stood still cannot add to what its successor has stored.
2. Pieces that have become many are folded: `<segment>.partial.<offset>-<offset>` holds the same bytes, and they are
   removed. No object is ever overwritten, so a versioned bucket keeps nothing of what was removed by its version.
3. Earlier releases kept one object, `<segment>.partial`, with zeros behind its end: the piece at 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tmi_ops.postgres.wal_files import PARTIAL_SUFFIX, Segment

# So many pieces of one level become one of the next: each byte is put once, and again once for each level.
FOLDED_AT_ONCE = 32
_NAME = re.compile(rf"([0-9A-F]{{24}}){re.escape(PARTIAL_SUFFIX)}(?:\.([0-9A-F]{{8}})(?:-([0-9A-F]{{8}}))?)?")


@dataclass(frozen=True)
class Piece:
    """One object of an open segment.

    Args:
        name: as it is stored, without `.zst`.
        start, end: the bytes of the segment that it holds, by their offsets; `end` None: its metadata says it.
        size: its stored bytes.
        is_older_kind: it is the one object that earlier releases kept.
    """

    name: str
    start: int
    end: int | None = None
    size: int = 0
    is_older_kind: bool = False


def piece_name(segment: Segment, start: int, end: int | None = None) -> str:
    """The name of a piece that was added at offset `start`, or of a fold of those up to `end`."""
    upto = "" if end is None else f"-{end:08X}"
    return f"{segment.name}{PARTIAL_SUFFIX}.{start:08X}{upto}"


def parse_piece(name: str, size: int = 0) -> tuple[str, Piece] | None:
    """A piece by its name, and the name of its segment; None: it is no piece's name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    segment, start, end = match.groups()
    if start is None:
        return segment, Piece(name, 0, None, size, is_older_kind=True)
    return segment, Piece(name, int(start, 16), None if end is None else int(end, 16), size)


def chains(listed: Iterable[Piece]) -> tuple[tuple[Piece, ...], ...]:
    """What listed pieces hold from the segment's beginning on, each byte once. There are two answers where an earlier
    release wrote beside this one; the one that reaches further counts.

    The ends of all pieces are filled in, but for the last one where its metadata has to be asked.
    """
    pieces = list(listed)
    own = [piece for piece in pieces if not piece.is_older_kind]
    behind_older = [piece for piece in pieces if piece.is_older_kind or piece.start]
    either = [chain_from(0, own)]
    if len(behind_older) > len([piece for piece in own if piece.start]):
        either.append(chain_from(0, behind_older))
    return tuple(chain for chain in either if chain)


def chain_from(at: int, pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """The pieces that go on from offset `at` without a gap. What lies within a fold is superseded by it."""
    found: list[Piece] = []
    starts = sorted({piece.start for piece in pieces})
    upto: int | None = at
    while upto is not None:
        begun = upto
        folds = [piece for piece in pieces if piece.end is not None and piece.start <= begun < piece.end]
        added = [piece for piece in pieces if piece.end is None and piece.start == begun]
        if folds:
            found.append(max(folds, key=lambda piece: piece.end or 0))
        elif added:
            found.append(replace(added[0], end=next((start for start in starts if start > begun), None)))
        else:
            break
        upto = found[-1].end
    return tuple(found)


def due(levels: Sequence[int]) -> slice | None:
    """Which pieces are to be folded into one, by their levels in the order of the WAL; None: none are."""
    begin = 0
    for number in range(1, len(levels) + 1):
        if number - begin == FOLDED_AT_ONCE:
            return slice(begin, number)
        if number < len(levels) and levels[number] != levels[begin]:
            begin = number
    return None
