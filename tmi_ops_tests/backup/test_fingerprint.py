from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tmi_ops.backup.fingerprint import differing_tables, fingerprint_table
from tmi_ops.backup.snapshot import TableName, list_tables, pin_text_output
from tmi_ops.postgres.connections import connect
from tmi_ops.settings import PostgresSettings
from tmi_ops.store.manifest import TableFingerprint

ITEMS = TableName("public", "items")


@pytest.fixture
def connection(database: PostgresSettings) -> Iterator[psycopg.Connection[Any]]:
    with connect(database) as connection:
        connection.execute("CREATE TABLE items (id int, price float8, at timestamptz, note text)")
        connection.execute("INSERT INTO items SELECT i, i / 3.0, now(), 'note ' || i FROM generate_series(1, 500) i")
        pin_text_output(connection)
        yield connection


def test_the_order_of_rows_does_not_matter(connection: psycopg.Connection[Any]) -> None:
    before = fingerprint_table(connection, ITEMS)
    connection.execute("CREATE TABLE public.copy AS SELECT * FROM public.items ORDER BY id DESC")
    assert fingerprint_table(connection, TableName("public", "copy")) == before
    assert before.rows == 500


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE public.items SET note = 'Note 7' WHERE id = 7",
        "UPDATE public.items SET note = NULL WHERE id = 7",
        "UPDATE public.items SET price = price + 1e-12 WHERE id = 7",
        "DELETE FROM public.items WHERE id = 7; INSERT INTO public.items SELECT * FROM public.items WHERE id = 8",
        "UPDATE public.items SET note = (ARRAY['note 8', 'note 7'])[id - 6] WHERE id IN (7, 8)",
    ],
    ids=["letter", "null", "last digit", "one row lost, one doubled", "two values exchanged"],
)
def test_the_smallest_change_of_a_row_changes_the_digest_and_not_the_count(
    connection: psycopg.Connection[Any], change: str
) -> None:
    before = fingerprint_table(connection, ITEMS)
    connection.execute(change.encode())
    after = fingerprint_table(connection, ITEMS)
    assert after.rows == before.rows
    assert after.digest != before.digest


def test_what_a_session_has_set_does_not_change_the_digest(
    database: PostgresSettings, connection: psycopg.Connection[Any]
) -> None:
    before = fingerprint_table(connection, ITEMS)
    with connect(database) as other:
        other.execute("SET timezone = 'Asia/Tokyo'")
        other.execute("SET datestyle = 'German'")
        other.execute("SET extra_float_digits = 0")
        pin_text_output(other)
        assert fingerprint_table(other, ITEMS) == before


def test_anybody_can_redo_the_digest(connection: psycopg.Connection[Any]) -> None:
    fingerprint = fingerprint_table(connection, ITEMS)
    rows = connection.execute("SELECT i::text FROM public.items i").fetchall()
    hashes = [hashlib.sha256(text.encode()).digest() for (text,) in rows]
    halves = [
        sum(int.from_bytes(row_hash[start : start + 8], "big", signed=True) for row_hash in hashes) % (1 << 64)
        for start in (0, 8)
    ]
    assert fingerprint.digest == "".join(f"{half:016x}" for half in halves)


def test_an_empty_table_has_a_fingerprint_too(connection: psycopg.Connection[Any]) -> None:
    connection.execute("TRUNCATE public.items")
    assert fingerprint_table(connection, ITEMS) == TableFingerprint(rows=0, digest="0" * 32)


def test_tables_of_partitions_and_odd_names_are_listed_once_and_an_extensions_are_not(
    database: PostgresSettings,
) -> None:
    with connect(database) as connection:
        connection.execute(
            """
            CREATE TABLE parent (id int) PARTITION BY RANGE (id);
            CREATE TABLE child PARTITION OF parent FOR VALUES FROM (0) TO (10);
            CREATE TABLE base (id int); CREATE TABLE heir () INHERITS (base);
            CREATE TABLE "Odd ""x" (id int); CREATE VIEW v AS SELECT 1; CREATE TEMP TABLE t (id int);
            """
        )
        names = {str(table) for table in list_tables(connection)}
    assert names == {"public.child", "public.base", "public.heir", 'public.Odd "x'}


def test_each_difference_is_said_in_a_sentence() -> None:
    def of(rows: int, digest: str) -> TableFingerprint:
        return TableFingerprint(rows=rows, digest=digest)

    source = {"s.same": of(1, "a"), "s.fewer": of(2, "a"), "s.changed": of(2, "a"), "s.lost": of(0, "0")}
    copy = {"s.same": of(1, "a"), "s.fewer": of(1, "b"), "s.changed": of(2, "b"), "s.new": of(0, "0")}
    assert differing_tables(source, copy) == [
        "s.changed has the same number of rows, 2, but different content",
        "s.fewer had 2 rows, the restored copy has 1",
        "s.lost is missing from the restored copy",
        "s.new is in the restored copy but was not in the source",
    ]
