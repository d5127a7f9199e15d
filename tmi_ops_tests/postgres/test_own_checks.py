"""The profile's SQL checks: what they come to, and that they can do nothing but read."""

from __future__ import annotations

import secrets

import pytest
from pydantic import SecretStr

from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.own_checks import READER, OwnAnswer, ask_own_checks, judge, reader_of
from tmi_ops.profile import SqlCheck
from tmi_ops.settings import PostgresSettings

NO_ROW = SqlCheck(name="none", sql="SELECT 1", means="it should not be")
BOUNDED = SqlCheck(name="count", sql="SELECT 1", at_least=1, at_most=5)


@pytest.mark.parametrize(
    ("check", "rows", "answer"),
    [
        (NO_ROW, [], ("passed", "no rows, as expected")),
        (NO_ROW, [(1,)], ("failed", "1 row, none expected: it should not be")),
        (NO_ROW, [(1,)] * 2, ("failed", "2 rows, none expected: it should not be")),
        (NO_ROW, [(1,)] * 1000, ("failed", "1,000 rows, none expected: it should not be")),
        (NO_ROW, [(1,)] * 1001, ("failed", "more than 1,000 rows, none expected: it should not be")),
        (NO_ROW, None, ("unknown", "it is not a query")),
        (BOUNDED, [(1,)], ("passed", "1, at least 1 and at most 5 expected")),
        (BOUNDED, [(5,)], ("passed", "5, at least 1 and at most 5 expected")),
        (BOUNDED, [(0,)], ("failed", "0, at least 1 and at most 5 expected")),
        (BOUNDED, [(6,)], ("failed", "6, at least 1 and at most 5 expected")),
        (BOUNDED, [], ("failed", "it does not return one number")),
        (BOUNDED, [(1,), (2,)], ("failed", "it does not return one number")),
        (BOUNDED, [(1, 2)], ("failed", "it does not return one number")),
        (BOUNDED, [(None,)], ("failed", "it does not return one number")),
        (BOUNDED, [("x",)], ("failed", "it does not return one number")),
    ],
)
def test_what_rows_come_to(check: SqlCheck, rows: list[tuple[object, ...]] | None, answer: tuple[str, str]) -> None:
    assert judge(check, rows) == OwnAnswer(check.name, *answer)  # type: ignore[arg-type]


def test_each_is_asked_by_itself_and_one_that_cannot_be_asked_stops_no_other(database: PostgresSettings) -> None:
    with connect(database) as connection:
        connection.execute("CREATE TABLE orders AS SELECT generate_series(1, 3) AS id")
    with reader_of(database, 17) as reader:
        answers = ask_own_checks(
            reader,
            (
                SqlCheck(name="gone", sql="SELECT FROM nowhere"),
                SqlCheck(name="orders", sql="SELECT count(*) FROM orders", at_least=3),
                SqlCheck(name="slow", sql="SELECT pg_sleep(30)"),
                SqlCheck(name="odd", sql="SELECT id FROM orders WHERE id % 2 = 1"),
            ),
            limit_s=0.3,
        )
    assert [(one.name, one.outcome) for one in answers] == [
        ("gone", "unknown"),
        ("orders", "passed"),
        ("slow", "unknown"),
        ("odd", "failed"),
    ]
    assert answers[0].text == 'could not run: relation "nowhere" does not exist'
    assert "statement timeout" in answers[2].text


@pytest.mark.parametrize(
    "attack",
    [
        "SELECT 1; DROP TABLE orders",
        "WITH gone AS (DELETE FROM orders RETURNING *) SELECT * FROM gone",
        "SELECT erase()",
        "SELECT escalate()",
    ],
)
def test_a_check_and_what_it_calls_can_only_read_and_is_no_superuser(database: PostgresSettings, attack: str) -> None:
    with connect(database) as connection:
        connection.execute("CREATE TABLE orders AS SELECT 1 AS id")
        connection.execute(
            "CREATE FUNCTION erase() RETURNS void LANGUAGE plpgsql AS "
            "$$ BEGIN SET LOCAL transaction_read_only = off; DELETE FROM orders; END $$"
        )
        connection.execute(
            "CREATE FUNCTION escalate() RETURNS void LANGUAGE plpgsql AS "
            "$$ BEGIN RESET SESSION AUTHORIZATION; RESET ROLE; ALTER ROLE tmi_ops_reader SUPERUSER; END $$"
        )
    with reader_of(database, 17) as reader:
        assert reader.user == READER
        (answer,) = ask_own_checks(reader, (SqlCheck(name="attack", sql=attack),))
        assert answer.outcome == "unknown", answer
    with connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (1,)
        assert connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (READER,)).fetchone() is None


@pytest.mark.parametrize("power", ["SUPERUSER", "IN ROLE pg_execute_server_program"])
def test_whoever_could_run_programs_there_asks_nothing_as_a_table_may_have_become_a_view(
    database: PostgresSettings, power: str
) -> None:
    """The owner of a table that a check names puts a view in its place, whose function runs as whoever asks."""
    own = f"monitor_{secrets.token_hex(4)}"
    with connect(database) as connection:
        connection.execute(f"CREATE ROLE {own} LOGIN PASSWORD 'x' {power}")
        connection.execute(
            "CREATE FUNCTION attack() RETURNS int LANGUAGE plpgsql AS "
            "$$ BEGIN COPY (SELECT 1) TO PROGRAM 'cat >&2'; RETURN 1; END $$"
        )
        connection.execute("CREATE VIEW orders AS SELECT attack() AS id")
        connection.execute(f"GRANT SELECT ON orders TO {own}")
    try:
        asking = database.model_copy(update={"user": own, "password": SecretStr("x")})
        (answer,) = ask_own_checks(asking, (SqlCheck(name="orders", sql="SELECT id FROM orders WHERE id < 0"),))
    finally:
        with connect(database) as connection:
            connection.execute(f"DROP OWNED BY {own}")
            connection.execute(f"DROP ROLE {own}")
    assert answer.outcome == "unknown"
    assert f"not run as {own}" in answer.text
