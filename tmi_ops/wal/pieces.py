"""How a partial is stored: as consecutive pieces, so that only new bytes are put. Pure.

1. A piece is named after the offset where it begins, in eight hexadecimal digits: `<segment>.partial.<offset>`. It
   holds the bytes up to the beginning of the next piece; the metadata of the last one says where it ends. Only one
   writer can put a piece of a given name, so a receiver that was suspended cannot add to what its successor stored.
2. When pieces have become many, they are folded: `<segment>.partial.<offset>-<offset>` holds the same bytes, and the
   pieces are removed. No object is ever overwritten, so a versioned bucket keeps nothing of an object that was removed
   by its version.
3. Earlier releases stored one object, `<segment>.partial`, padded with zeros: the piece at offset 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tmi_ops.postgres.wal_files import PARTIAL_SUFFIX, Segment

# This many pieces of one level are folded into one of the next. Each byte is put once, and once more for each level.
FOLDED_AT_ONCE = 32
_NAME = re.compile(rf"([0-9A-F]{{24}}){re.escape(PARTIAL_SUFFIX)}(?:\.([0-9A-F]{{8}})(?:-([0-9A-F]{{8}}))?)?")


@dataclass(frozen=True)
class Piece:
    """One object of a partial.

    Args:
        name: its name in the store, without `.zst`.
        start, end: its offsets in the segment. `end` None: its metadata has it.
        size: its stored bytes.
        is_older_kind: it is the single object of earlier releases.
    """

    name: str
    start: int
    end: int | None = None
    size: int = 0
    is_older_kind: bool = False


def piece_name(segment: Segment, start: int, end: int | None = None) -> str:
    """The name of a piece added at offset `start`, or of the fold of the pieces from `start` to `end`."""
    upto = "" if end is None else f"-{end:08X}"
    return f"{segment.name}{PARTIAL_SUFFIX}.{start:08X}{upto}"


def parse_piece(name: str, size: int = 0) -> tuple[str, Piece] | None:
    """The name of the segment, and the piece. None: not the name of a piece."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    segment, start, end = match.groups()
    if start is None:
        return segment, Piece(name, 0, None, size, is_older_kind=True)
    return segment, Piece(name, int(start, 16), None if end is None else int(end, 16), size)


def chains(listed: Iterable[Piece]) -> tuple[tuple[Piece, ...], ...]:
    """The pieces that make up the partial from offset 0 on, each byte once. There are two results if an earlier release
    wrote at the same time as this one; the longer one counts.

    Every piece has its `end`, except the last one, whose end may be only in its metadata.
    """
    pieces = list(listed)
    own = [piece for piece in pieces if not piece.is_older_kind]
    behind_older = [piece for piece in pieces if piece.is_older_kind or piece.start]
    either = [chain_from(0, own)]
    if len(behind_older) > len([piece for piece in own if piece.start]):
        either.append(chain_from(0, behind_older))
    return tuple(chain for chain in either if chain)


def chain_from(at: int, pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """The pieces that continue from offset `at` without a gap. A fold supersedes the pieces within it."""
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
    """The pieces to fold into one, by their levels in WAL order. None: there are none."""
    begin = 0
    for number in range(1, len(levels) + 1):
        if number - begin == FOLDED_AT_ONCE:
            return slice(begin, number)
        if number < len(levels) and levels[number] != levels[begin]:
            begin = number
    return None
