"""Compares two streams of rows as multisets, in bounded memory for tables of any size.

1. Each row is hashed, and the hashes are summed up in 65,536 buckets. Equal sums mean equal rows, in any order.
2. The rows of buckets that differ are read again and compared one by one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

BUCKETS = 1 << 16
# Limit of differing buckets to examine; the result is marked as incomplete beyond it.
BUCKETS_LOOKED_AT = 64
_HASH_BYTES = 16
_KEPT = 1 << 16  # bytes of a row, to extract its key
Pieces = Iterable[bytes]


@dataclass(frozen=True)
class Row:
    """A row that only one side has. `number`: its position in the stream, from 1; `text`: its beginning."""

    number: int
    text: bytes


@dataclass(frozen=True)
class RowsDifference:
    """Rows that only one side has. `complete`: there are no others."""

    only_in_source: tuple[Row, ...] = ()
    only_in_copy: tuple[Row, ...] = ()
    complete: bool = True

    @property
    def equal(self) -> bool:
        return not self.only_in_source and not self.only_in_copy


def differing_rows(source: Callable[[], Pieces], copy: Callable[[], Pieces]) -> RowsDifference:
    """Compare two streams of lines as multisets.

    Args:
        source: starts a new reading of the stream on each call; pieces may end anywhere.
        copy: the same for the other side.
    """
    before, after = _sums(source()), _sums(copy())
    buckets = [bucket for bucket in range(BUCKETS) if before[bucket] != after[bucket]]
    looked_at = frozenset(buckets[:BUCKETS_LOOKED_AT])
    if not looked_at:
        return RowsDifference()
    missing = _rows_of(source(), looked_at)
    added = _rows_of(copy(), looked_at)
    for digest in missing.keys() & added.keys():
        even = min(len(missing[digest]), len(added[digest]))
        del missing[digest][:even], added[digest][:even]
    return RowsDifference(_ordered(missing), _ordered(added), complete=len(looked_at) == len(buckets))


def hashed_rows(pieces: Pieces) -> Iterator[tuple[bytes, bytes]]:
    """Each line's hash and beginning, without its line end. Lines may be larger than memory."""
    digest, begun = hashlib.blake2b(digest_size=_HASH_BYTES), b""
    for piece in pieces:
        *whole, rest = piece.split(b"\n")
        for line in whole:
            digest.update(line)
            yield digest.digest(), begun + line[: _KEPT - len(begun)]
            digest, begun = hashlib.blake2b(digest_size=_HASH_BYTES), b""
        digest.update(rest)
        begun += rest[: _KEPT - len(begun)]


def _sums(pieces: Pieces) -> list[int]:
    sums = [0] * BUCKETS
    for digest, _ in hashed_rows(pieces):
        bucket = digest[0] << 8 | digest[1]
        # Add one per row, so that a hash of zero counts, too.
        sums[bucket] = (sums[bucket] + int.from_bytes(digest, "big") + 1) % (1 << 8 * _HASH_BYTES + 8)
    return sums


def _rows_of(pieces: Pieces, buckets: frozenset[int]) -> dict[bytes, list[Row]]:
    rows: dict[bytes, list[Row]] = {}
    for number, (digest, text) in enumerate(hashed_rows(pieces), start=1):
        if digest[0] << 8 | digest[1] in buckets:
            rows.setdefault(digest, []).append(Row(number, text))
    return rows


def _ordered(rows: dict[bytes, list[Row]]) -> tuple[Row, ...]:
    return tuple(sorted((row for same in rows.values() for row in same), key=lambda row: row.number))
