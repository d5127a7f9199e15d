"""Compares the content of a restored copy with the dump: every row, every sequence, every large object.

1. The copy is dumped like its source, and counted: nearly all tables then have the same digest.
2. If a digest differs, the table is read again with the source's columns in the source's order: an inherited table may
   have another column order after a restore.
3. If that differs, too, both are compared as multisets, because the order of rows may differ. Remaining differences are
   reported with their primary key, if there is one.

Multisets are compared in bounded memory for tables of any size: each row is hashed, and the hashes are summed up in
65,536 buckets; equal sums mean equal rows, in any order. The rows of buckets that differ are read again and compared
one by one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.backup.archive.contents import Contents, SequenceContent, TableContent
from tmi_ops.backup.contents import written_name

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


NAMED_ROWS = 5
_SHOWN = 60  # characters of a key


@dataclass(frozen=True)
class Pairing:
    """The tables of both sides. `suspects`: those whose digests or columns differ."""

    differences: tuple[str, ...]
    suspects: tuple[tuple[TableContent, TableContent], ...]


def pair(source: Contents, copy: Contents) -> Pairing:
    """Pair tables by schema and name; a table on only one side is a difference."""
    before = {(table.schema, table.name): table for table in source.tables}
    after = {(table.schema, table.name): table for table in copy.tables}
    differences = [
        f"{written_name(*key)} is missing from the restored copy"
        if key in before
        else f"{written_name(*key)} is in the restored copy but was not in the source"
        for key in sorted(before.keys() ^ after.keys())
    ]
    both = sorted(before.keys() & after.keys())
    suspects = [
        (before[key], after[key])
        for key in both
        if (before[key].sha256, before[key].columns) != (after[key].sha256, after[key].columns)
    ]
    return Pairing(tuple(differences), tuple(suspects))


def differing_sequences(source: tuple[SequenceContent, ...], copy: tuple[SequenceContent, ...]) -> list[str]:
    """Sequences with another value, one sentence each."""
    before = {(item.schema, item.name): item for item in source}
    after = {(item.schema, item.name): item for item in copy}
    differences = []
    for key in sorted(before.keys() | after.keys()):
        was, came = before.get(key), after.get(key)
        name = written_name(*key)
        if came is None:
            differences.append(f"sequence {name} is missing from the restored copy")
        elif was is None:
            differences.append(f"sequence {name} is in the restored copy but was not in the source")
        elif was != came:
            differences.append(f"sequence {name} is at {_standing(came)}, in the source it was at {_standing(was)}")
    return differences


def differing_large_objects(source: Contents, copy: Contents) -> list[str]:
    """The difference between the large objects, in one sentence."""
    was, came = source.large_objects, copy.large_objects
    if was == came:
        return []
    if (was.count, was.bytes) == (came.count, came.bytes):
        return [f"the {was.count} large objects have the same size, but other content"]
    return [
        f"the source had {was.count} large objects of {was.bytes} bytes, the restored copy has {came.count} of "
        f"{came.bytes} bytes"
    ]


def differing_tables(
    connection: psycopg.Connection[Any],
    source: Contents,
    copy: Contents,
    encoding: str,
    dumped: Callable[[TableContent], Iterator[bytes]],
    *,
    name_keys: bool,
) -> list[str]:
    """Compare the rows of the copy that `connection` reaches with the source's; one sentence per table.

    Args:
        encoding: of the dump.
        dumped: reads a table's rows from the dump.
        name_keys: report the keys of differing rows; otherwise only their numbers.
    """
    pairing = pair(source, copy)
    differences = list(pairing.differences)
    for was, came in pairing.suspects:
        if set(was.columns) != set(came.columns):
            differences.append(f"{written_name(was.schema, was.name)} has other columns in the restored copy")
            continue
        live = _Live(connection, was, encoding)
        if live.digest() == was.sha256:
            continue
        found = differing_rows(lambda was=was: dumped(was), live.rows)  # type: ignore[misc]
        if not found.equal:
            key = live.key() if name_keys else ()
            differences.append(told(was, came, found, key))
    return differences


@dataclass(frozen=True)
class _Live:
    """A table of the restored copy, read with the source's columns."""

    connection: psycopg.Connection[Any]
    table: TableContent
    encoding: str

    def rows(self) -> Pieces:
        columns = sql.SQL(", ").join(map(sql.Identifier, self.table.columns))
        name = sql.Identifier(self.table.schema, self.table.name)
        condition = self._condition()
        if condition is None:
            what = name + (sql.SQL(" ({})").format(columns) if self.table.columns else sql.SQL(""))
        else:
            # For a table of an extension, only the rows that pg_dump dumps, by the extension's condition.
            what = sql.SQL("(SELECT {} FROM ONLY {} {})").format(columns, name, sql.SQL(condition))
        statement = sql.SQL("COPY {} TO STDOUT WITH (ENCODING {})").format(what, sql.Literal(self.encoding))
        with self.connection.cursor().copy(statement) as copy:
            for piece in copy:
                yield bytes(piece)

    def digest(self) -> str:
        digest = hashlib.sha256()
        for piece in self.rows():
            digest.update(piece)
        return digest.hexdigest()

    def key(self) -> tuple[str, ...]:
        """The columns of the primary key."""
        rows = self.connection.execute(
            """
            SELECT a.attname FROM pg_catalog.pg_index i
            JOIN pg_catalog.pg_class c ON c.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
            WHERE i.indisprimary AND n.nspname = %s AND c.relname = %s ORDER BY a.attnum
            """,
            (self.table.schema, self.table.name),
        ).fetchall()
        return tuple(name for (name,) in rows)

    def _condition(self) -> str | None:
        row = self.connection.execute(
            """
            SELECT e.extcondition[k.place] FROM pg_catalog.pg_extension e
            CROSS JOIN LATERAL pg_catalog.unnest(e.extconfig) WITH ORDINALITY AS k (oid, place)
            JOIN pg_catalog.pg_class c ON c.oid = k.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %s AND c.relname = %s
            """,
            (self.table.schema, self.table.name),
        ).fetchone()
        return None if row is None else str(row[0])


def live_rows(connection: psycopg.Connection[Any], table: TableContent, encoding: str) -> Pieces:
    """The current rows of a table in a running database, as a dump would contain them."""
    return _Live(connection, table, encoding).rows()


def told(was: TableContent, came: TableContent, found: RowsDifference, key: tuple[str, ...]) -> str:
    """The difference between two tables, in one sentence: how many rows, and which."""
    name = written_name(was.schema, was.name)
    if was.rows != came.rows:
        sentence = f"{name} had {was.rows} rows, the restored copy has {came.rows}"
    else:
        sentence = f"{name} has the same number of rows ({was.rows}), but other content"
    named = _named(was.columns, found, key)
    shown = "; ".join(named[:NAMED_ROWS])
    more = len(named) - NAMED_ROWS
    if more > 0 or not found.complete:
        shown += f" and {more} more" if found.complete else " and more"
    return f"{sentence}: {shown}"


def _named(columns: tuple[str, ...], found: RowsDifference, key: tuple[str, ...]) -> list[str]:
    places = [columns.index(column) for column in key] if set(key) <= set(columns) else []
    if not places:
        lost = [f"row {row.number} of the dump is not in the copy" for row in found.only_in_source]
        return lost + [f"row {row.number} of the copy is not in the dump" for row in found.only_in_copy]
    before = {_key(row, places): row for row in found.only_in_source}
    after = {_key(row, places): row for row in found.only_in_copy}
    sentences = []
    for value in sorted(before.keys() | after.keys()):
        called = ", ".join(f"{column} = {_shown(part)}" for column, part in zip(key, value, strict=False))
        if value not in after:
            sentences.append(f"the row with {called} is missing")
        elif value not in before:
            sentences.append(f"the row with {called} was not in the source")
        else:
            sentences.append(f"the row with {called} has another {_changed(columns, before[value], after[value])}")
    return sentences


def _changed(columns: tuple[str, ...], before: Row, after: Row) -> str:
    pairs = zip(columns, before.text.split(b"\t"), after.text.split(b"\t"), strict=False)
    return ", ".join(column for column, was, came in pairs if was != came) or "content"


def _key(row: Row, places: list[int]) -> tuple[bytes, ...]:
    values = row.text.split(b"\t")
    return tuple(values[place] if place < len(values) else b"" for place in places)


def _shown(value: bytes) -> str:
    text = value.decode(errors="replace")
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable if len(printable) <= _SHOWN else f"{printable[:_SHOWN]}..."


def _standing(sequence: SequenceContent) -> str:
    return f"{sequence.last_value}" if sequence.called else f"{sequence.last_value}, not called yet"
