"""No two rows are written out alike, whatever stands in them; and every row alike on both sides."""

from __future__ import annotations

import itertools

import psycopg
import pytest
from psycopg import sql

from tmi_ops.postgres.connections import connect
from tmi_ops.rescue.comparing import prepare
from tmi_ops.rescue.pairs import written_out
from tmi_ops.settings import PostgresSettings

TYPES = {"a": "text", "b": "character varying(9)", "n": "integer", "j": "jsonb", "l": "text[]", "m": "bigint"}
# What stands beside what it could be mistaken for: NULL and nothing, ends and quotes of ours, one column or the next.
VALUES: tuple[tuple[object, ...], ...] = (
    (None, "", "\x01", ",|", "1", '"', "a", "aa"),
    (None, "", "a", "|1\x01"),
    (None, 0, 1, 11),
    (None, "{}", '{"a": "\\u00e4"}', '"\\u0001"'.replace("\\u0001", "x")),
    (None, "{}", "{NULL}", '{""}', "{1,11}"),
    (None, 1, 11),
)


@pytest.fixture
def connection(database: PostgresSettings) -> psycopg.Connection[tuple[object, ...]]:
    with connect(database) as opened:
        prepare(opened)
        columns = ", ".join(f"{name} {kind}" for name, kind in TYPES.items())
        opened.execute(f"CREATE TEMP TABLE r ({columns})".encode())
        with opened.cursor() as cursor, cursor.copy("COPY r FROM STDIN") as copy:
            for row in itertools.product(*VALUES):
                copy.write_row(row)
        yield opened


@pytest.mark.parametrize("measurable", [True, False])
def test_as_many_texts_as_rows(connection: psycopg.Connection[tuple[int, int]], *, measurable: bool) -> None:
    text = written_out("r", TYPES, measurable=measurable)
    row = connection.execute(sql.SQL("SELECT count(*), count(DISTINCT {}) FROM r").format(text)).fetchone()
    assert row is not None
    assert row[0] == row[1] > 3000


def test_a_column_of_a_wider_type_now_is_written_as_it_was(connection: psycopg.Connection[tuple[int]]) -> None:
    now = {**TYPES, "a": "text", "b": "text", "n": "bigint", "m": "numeric"}
    columns = sql.SQL("a, b::text, n::bigint, j, l, m::numeric")
    query = sql.SQL("SELECT count(*) FROM r, LATERAL (SELECT {}) w (a, b, n, j, l, m) WHERE {} <> {}").format(
        columns, written_out("r", now, measurable=True), written_out("w", now, measurable=True)
    )
    assert connection.execute(query).fetchone() == (0,)


def test_more_columns_than_a_function_takes_are_written_out(connection: psycopg.Connection[tuple[int, int]]) -> None:
    types = {f"c{number}": "integer" if number % 2 else "text" for number in range(250)}
    columns = sql.SQL(", ").join(sql.SQL("{}::text AS {}").format(sql.Literal("x"), sql.Identifier(n)) for n in types)
    query = sql.SQL("SELECT length({}) FROM (SELECT {}) w").format(written_out("w", types, measurable=True), columns)
    # 125 texts of one letter with their lengths and commas, a bar, 125 letters with their ends.
    assert connection.execute(query).fetchone() == (125 * 3 + 1 + 125 * 2,)
