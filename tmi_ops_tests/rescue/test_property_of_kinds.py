"""Random accidents to unique values, numbers, types and single columns: what was comes back, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from tmi_ops.errors import DatabaseError, RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops.rescue.selection import Selection, SetColumns, TableRows
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.rescue.databases import Two, copied, made

SCHEMA = """
CREATE TABLE entries (
    id serial PRIMARY KEY, list integer NOT NULL, rank integer NOT NULL, name text NOT NULL UNIQUE, n text,
    during int4range, UNIQUE (list, rank), EXCLUDE USING gist (during WITH &&)
);
INSERT INTO entries (list, rank, name, n, during)
    SELECT i % 3, i, 'name ' || i, CASE WHEN i % 4 = 0 THEN 'x' || i ELSE i::text END, int4range(10 * i, 10 * i + 10)
    FROM generate_series(1, 12) i;
INSERT INTO entries VALUES (2000000000, 9, 9, 'sentinel', NULL, NULL);
"""
SHUFFLED = (
    "WITH p AS (SELECT id, row_number() OVER (ORDER BY id) AS a, row_number() OVER (ORDER BY md5(id || '{0}')) AS b "
    "FROM entries), m AS (SELECT p.id, q.id AS other FROM p JOIN p q ON q.b = p.a), o AS (SELECT * FROM entries) "
    "UPDATE entries e SET {1} FROM m JOIN o ON o.id = m.other WHERE e.id = m.id"
)
# Unique values go round among the rows: constraints are taken away for the while, as nothing else lets them be swapped.
CONSTRAINTS = (
    "ALTER TABLE entries DROP CONSTRAINT entries_name_key, DROP CONSTRAINT entries_list_rank_key, "
    "DROP CONSTRAINT entries_during_excl",
    "ALTER TABLE entries ADD UNIQUE (name), ADD UNIQUE (list, rank), ADD EXCLUDE USING gist (during WITH &&)",
)
shuffles = st.tuples(st.integers(0, 99), st.sampled_from(["name", "rank", "during", "rank, list"])).map(
    lambda drawn: SHUFFLED.format(drawn[0], ", ".join(f"{c} = o.{c}" for c in drawn[1].split(", ")))
)
losses = st.one_of(
    st.integers(1, 12).map("DELETE FROM entries WHERE id = {}".format),
    st.integers(2, 4).map("DELETE FROM entries WHERE id % {} = 1".format),
    st.just("DELETE FROM entries WHERE name = 'sentinel'"),
)
changes = st.one_of(
    st.just("UPDATE entries SET n = 'oops'"),
    st.integers(1, 12).map("UPDATE entries SET name = name || '!', rank = rank + 50 WHERE id > {}".format),
    st.integers(1, 12).map("UPDATE entries SET during = int4range(900 + {0}, 901 + {0}) WHERE id = {0}".format),
)
others = st.integers(1, 12).map(
    "INSERT INTO entries (id, list, rank, name, n) SELECT {0} + 100, 7, {0}, 'name {0}', '1' "
    "WHERE NOT EXISTS (SELECT FROM entries WHERE name = 'name {0}' OR id = {0} + 100)".format
)
numbers = st.sampled_from(["n", "n", "integer", "bigint"])
Row = dict[str, Any]


@pytest.fixture(scope="module")
def entries(server: PostgresSettings) -> Iterator[PostgresSettings]:
    with made(server, SCHEMA) as past:
        yield past


@pytest.mark.slow
@settings(
    max_examples=20, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(
    accident=st.lists(st.one_of(shuffles, losses, changes, others), min_size=1, max_size=5),
    to_number=st.booleans(),
    last=st.sampled_from([12, 40]),
    column=st.sampled_from([None, None, "name", "n", "rank"]),
)
def test_rows_and_values_are_as_they_were_and_the_next_number_is_free(
    entries: PostgresSettings, accident: list[str], to_number: bool, last: int, column: str | None
) -> None:
    with copied(entries) as now:
        two = Two(entries, now)
        try:
            for statement in (CONSTRAINTS[0], *accident, CONSTRAINTS[1], f"SELECT setval('entries_id_seq', {last})"):
                two.spoil(statement)
        except DatabaseError:
            reject()  # no such accident could happen
        if to_number:
            two.spoil(
                "UPDATE entries SET n = NULL WHERE n !~ '^[0-9]+$';"
                "ALTER TABLE entries ALTER n TYPE integer USING n::integer"
            )
        then, before = content(entries), content(now)
        selection = Selection(
            (TableRows("entries"),), policy="take-past", values=SetColumns("entries", (column,)) if column else None
        )
        coming = {key for key in then if (key in before or column is None) and wanted(then, before, key, column)}
        blocked = barred(then, before, coming, column, to_number=to_number)
        if blocked:
            with pytest.raises(RecoveryError, match="conflict with current rows"):
                two.rescue(selection)
            assert content(now) == before
            selection = replace(selection, policy="keep-current")
            coming = coming if column else coming - before.keys()
            blocked = barred(then, before, coming, column, to_number=to_number)
        two.rescue(selection)
        after = content(now)
        for key in before.keys() | then.keys():
            comes = key in coming - blocked
            row = become(then, before, key, column, to_number=to_number) if comes else before.get(key)
            assert after.get(key) == row, key
        next_id = two.value("INSERT INTO entries (list, rank, name) VALUES (99, 99, 'the next') RETURNING id")
        assert isinstance(next_id, int)
        assert last < next_id < 1000


def wanted(then: dict[int, Row], before: dict[int, Row], key: int, column: str | None) -> bool:
    """Whether the row, or the value, is not as it was."""
    names = [column] if column else list(then[key])
    return key not in before or any(str(then[key][name]) != str(before[key][name]) for name in names)


def become(then: dict[int, Row], before: dict[int, Row], key: int, column: str | None, *, to_number: bool) -> Row:
    """A row that comes back, or has its value back."""
    was = dict(then[key])
    if to_number and was["n"] is not None and was["n"].isdigit():
        was["n"] = int(was["n"])
    return was if column is None else {**before[key], column: was[column]}


def barred(
    then: dict[int, Row], before: dict[int, Row], coming: set[int], column: str | None, *, to_number: bool
) -> set[int]:
    """Which of these cannot be as they were: by their type, or because what is there by then has their value. One that
    stays away for that keeps the values that it has now, which may be another one's."""
    found = {
        key
        for key in coming
        if to_number and column in (None, "n") and then[key]["n"] is not None and not then[key]["n"].isdigit()
    }
    while True:
        by_then = {key: row for key, row in before.items() if key not in coming - found}
        by_then |= {key: become(then, before, key, column, to_number=to_number) for key in coming - found}
        clashing = {
            key
            for key in coming - found
            for other, row in by_then.items()
            if other != key and column != "n" and clash(by_then[key], row)
        }
        if not clashing:
            return found
        found |= clashing


def clash(one: Row, other: Row) -> bool:
    first, second = one["during"], other["during"]
    overlap = first and second and first.lower < second.upper and second.lower < first.upper
    return bool(one["name"] == other["name"] or (one["list"], one["rank"]) == (other["list"], other["rank"]) or overlap)


def content(address: PostgresSettings) -> dict[int, Row]:
    with connect(address) as connection, connection.cursor(row_factory=dict_row) as cursor:
        return {row["id"]: row for row in cursor.execute("SELECT * FROM entries").fetchall()}
