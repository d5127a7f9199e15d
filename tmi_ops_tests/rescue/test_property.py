"""Random accidents in related tables, rescued: the chosen rows are as they were, all others as they are now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops.rescue import comparing
from tmi_ops.rescue.selection import Policy, Selection, TableRows
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.rescue.databases import Two, copied

KEYS: Mapping[str, tuple[str, ...]] = {
    "people": ("id",),
    "models": ("id",),
    "parts": ("model", "n"),
    "rooms": ("id",),
    "doors": ("id",),
}
# (child, its column, parent): an account of the schema's foreign keys that owes nothing to the code under test.
TIES = (
    ("people", "boss", "people"),
    ("models", "owner", "people"),
    ("parts", "model", "models"),
    ("rooms", "door", "doors"),
    ("doors", "room", "rooms"),
)
LAST_NUMBER = "SELECT last_value FROM people_id_seq"
Row = dict[str, Any]
Content = dict[str, dict[tuple[Any, ...], Row]]
Name = tuple[str, tuple[Any, ...]]
UNIQUE: Mapping[str, Callable[[Row], str | None]] = {
    "people": lambda row: row["name"],
    "models": lambda row: row["alias"] and row["alias"].lower(),
}

changes = st.one_of(
    st.integers(1, 3).map("UPDATE people SET name = 'person ' || id || '!' WHERE id % {} = 0".format),
    st.integers(1, 12).map("UPDATE people SET boss = (SELECT min(id) FROM people) WHERE id % {} = 1".format),
    st.integers(1, 30).map(
        "UPDATE models SET total = total + 0.1, document = document || '{{\"new\": {}}}' WHERE owner = 3".format
    ),
    st.just('UPDATE parts SET "row_id" = NULL WHERE n % 7 = 0'),
    st.just("UPDATE doors SET room = (SELECT min(room) FROM doors) WHERE id % 2 = 0"),
)
losses = st.one_of(
    st.integers(1, 12).map("DELETE FROM people WHERE id = {}".format),
    st.integers(1, 30).map("DELETE FROM models WHERE id = md5('{}')::uuid".format),
    st.integers(1, 12).map("DELETE FROM models WHERE owner = {}".format),
    st.integers(2, 4).map("DELETE FROM parts WHERE n % {} = 1".format),
    st.integers(1, 6).map("DELETE FROM rooms WHERE id = {}".format),
    st.integers(1, 90).map("DELETE FROM parts WHERE n = {}".format),
)
others = st.one_of(
    # Another row has the unique value since.
    st.integers(1, 12).map(
        "DELETE FROM people WHERE id = {0}; INSERT INTO people (id, name) VALUES ({0} + 100, 'person {0}') "
        "ON CONFLICT DO NOTHING".format
    ),
    st.integers(1, 10).map(
        "DELETE FROM models WHERE alias = 'Alias-' || 3 * {0}; INSERT INTO models (id, owner, alias) "
        "SELECT md5('x{0}')::uuid, min(id), 'ALIAS-' || 3 * {0} FROM people HAVING count(*) > 0 "
        "ON CONFLICT DO NOTHING".format
    ),
    st.integers(100, 110).map("INSERT INTO people (id, name) VALUES ({0}, 'new {0}') ON CONFLICT DO NOTHING".format),
)
# Each has at least a change and a loss.
accidents = st.tuples(
    st.lists(changes, min_size=1, max_size=3),
    st.lists(losses, min_size=1, max_size=3),
    st.lists(others, max_size=2),
).flatmap(lambda parts: st.permutations([*parts[0], *parts[1], *parts[2]]))
# A sequence that knows less, as much, or more than what comes back.
numbers = st.sampled_from([1, 12, 4711])
choices = st.one_of(
    st.just(TableRows("people")),
    st.sampled_from(sorted(KEYS)).map(TableRows),
    st.integers(1, 12).map(lambda number: TableRows("people", key=(str(number),))),
    st.integers(1, 12).map(lambda number: TableRows("models", where=f"owner = {number}")),
    st.integers(1, 6).map(lambda number: TableRows("doors", where=f"id <= {number}")),
)
# One after another, by each policy: what one brings back, those after it find there.
ORDERS: tuple[tuple[Policy, ...], ...] = (
    ("skip", "stop", "keep-current", "take-past"),
    ("keep-current", "stop", "skip", "take-past"),
    ("stop", "keep-current", "skip", "take-past"),
    ("take-past", "skip", "stop", "keep-current"),
)
rescues = st.tuples(st.sampled_from(ORDERS), st.lists(st.tuples(choices, st.booleans()), min_size=4, max_size=4)).map(
    lambda drawn: list(zip(*drawn, strict=True))
)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(accident=accidents, number=numbers, one_after_another=rescues, by_key=st.booleans())
def test_chosen_rows_become_the_past_and_all_others_stay(
    past: PostgresSettings,
    accident: list[str],
    number: int,
    one_after_another: list[tuple[Policy, tuple[TableRows, bool]]],
    by_key: bool,
) -> None:
    """Rows are compared by asking for their keys, or by reading the whole table."""
    with copied(past) as now, pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing, "FEW_ROWS", comparing.FEW_ROWS if by_key else 0)
        two = Two(past, now)
        for statement in (*accident, f"SELECT setval('people_id_seq', {number})"):
            two.spoil(statement)
        then = content(past)
        for policy, (chosen, with_children) in one_after_another:
            check_one_rescue(two, then, Selection((chosen,), with_children=with_children, policy=policy))


def check_one_rescue(two: Two, then: Content, selection: Selection) -> None:
    (chosen,), policy = selection.rows, selection.policy
    before, last_number = content(two.now), two.value(LAST_NUMBER)
    wanted = set(downwards(then, chosen, with_children=selection.with_children))
    if not wanted:
        return
    coming = wanted | set(upwards(then, before, wanted))
    blocked = set(barred(then, before, coming, wanted, policy))
    unsolved = blocked if policy == "take-past" else blocked | changed(then, before, wanted)
    if policy in ("take-past", "stop") and unsolved:
        with pytest.raises(RecoveryError, match="conflict with current rows"):
            two.rescue(selection)
        assert (content(two.now), two.value(LAST_NUMBER)) == (before, last_number)
        return
    two.rescue(selection)
    after = expected(then, before, coming - blocked, wanted, policy)
    assert content(two.now) == after
    written = [key[0] for key, row in after["people"].items() if before["people"].get(key) != row]
    assert two.value(LAST_NUMBER) == max([last_number, *written])


def changed(then: Content, before: Content, names: set[Name]) -> set[Name]:
    """Of these, what exists with other content."""
    return {(table, key) for table, key in names if before[table].get(key) not in (None, then[table][key])}


def expected(then: Content, before: Content, coming: set[Name], wanted: set[Name], policy: Policy) -> Content:
    """The living tables, with what comes back."""
    after = {table: dict(rows) for table, rows in before.items()}
    for table, key in coming:
        if key not in before[table] or (policy == "take-past" and (table, key) in wanted):
            after[table][key] = then[table][key]
    return after


def barred(then: Content, before: Content, coming: set[Name], wanted: set[Name], policy: Policy) -> Iterator[Name]:
    """What cannot come, or is not to: rows whose unique value is another's now, for `skip` those that exist with other
    content, and whatever hangs on these; a row that is there as it was ends the chain."""
    waiting = [name for name in coming if _is_taken(then, before, name, wanted, policy)]
    if policy == "skip":
        waiting += changed(then, before, wanted)
    found = set(waiting)
    while waiting:
        table, key = waiting.pop()
        yield table, key
        for child, column, parent in TIES:
            if parent == table:
                for other, row in then[child].items():
                    name = (child, other)
                    if row[column] == key[0] and name in coming - found and before[child].get(other) != row:
                        found.add(name)
                        waiting.append(name)


def _is_taken(then: Content, before: Content, name: Name, wanted: set[Name], policy: Policy) -> bool:
    table, key = name
    written = key not in before[table] or (policy == "take-past" and name in wanted)
    if table not in UNIQUE or not written or then[table][key] == before[table].get(key):
        return False
    value = UNIQUE[table](then[table][key])
    return value is not None and any(
        other != key and UNIQUE[table](row) == value and not (policy == "take-past" and (table, other) in wanted)
        for other, row in before[table].items()
    )


def content(address: PostgresSettings) -> Content:
    found = {}
    with connect(address) as connection, connection.cursor(row_factory=dict_row) as cursor:
        for table, keys in KEYS.items():
            cursor.execute(f"SELECT * FROM {table}".encode())
            found[table] = {tuple(row[name] for name in keys): row for row in cursor.fetchall()}
    return found


def downwards(then: Content, chosen: TableRows, *, with_children: bool) -> Iterator[Name]:
    """The chosen rows, and what hung on them."""
    waiting = [(chosen.table, key) for key, row in then[chosen.table].items() if _is_chosen(chosen, key, row)]
    found = set(waiting)
    while waiting:
        table, key = waiting.pop()
        yield table, key
        for child, column, parent in TIES if with_children else ():
            if parent == table:
                for other, row in then[child].items():
                    if row[column] == key[0] and (child, other) not in found:
                        found.add((child, other))
                        waiting.append((child, other))


def upwards(then: Content, before: Content, wanted: set[Name]) -> Iterator[Name]:
    """What the wanted rows refer to and is not there, and what that refers to."""
    waiting, seen = list(wanted), set(wanted)
    while waiting:
        table, own = waiting.pop()
        for child, column, parent in TIES:
            value = then[table][own][column] if child == table else None
            name = (parent, (value,))
            if value is not None and name not in seen:
                seen.add(name)
                waiting.append(name)
                if name[1] not in before[parent]:
                    yield name


def _is_chosen(chosen: TableRows, key: tuple[Any, ...], row: Row) -> bool:
    if chosen.key is not None:
        return str(key[0]) == chosen.key[0]
    if chosen.where is None:
        return True
    column, operator, value = chosen.where.split()
    return row[column] == int(value) if operator == "=" else row[column] <= int(value)
