from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmi_ops.postgres.connections import connect
from tmi_ops.schema.structure import ValueList, read_value_list
from tmi_ops.settings import PostgresSettings

ROLES = ValueList("role", frozenset({"owner", "writer"}))
WRITTEN = [
    "role IN ('owner', 'writer')",
    "role IS NULL OR role IN ('writer', 'owner')",
    "role = 'owner' OR role = 'writer'",
    "role = ANY (ARRAY['owner', 'writer'])",
    "(role)::text = ANY (ARRAY['owner'::text, 'writer'::text])",
    "\"role\" IN ('owner', 'writer', 'owner')",
]
OTHERS = [
    "length(role) > 3",
    "role <> 'owner'",
    "role IN ('owner', 'writer') AND other = 'x'",
    "role = 'owner' OR other = 'writer'",
    "role IS NOT NULL",
    "role IS NULL",
    "role IN ('owner', other)",
]


@pytest.mark.parametrize("column_type", ["varchar(6)", "text", "varchar"])
@pytest.mark.parametrize("written", WRITTEN)
def test_a_list_is_recognised_in_postgresqls_own_words_however_it_was_written(
    server: PostgresSettings, column_type: str, written: str
) -> None:
    assert read_value_list(in_postgresqls_words(server, column_type, written)) == ROLES


@pytest.mark.parametrize("other", OTHERS)
def test_a_check_of_another_shape_is_not_taken_for_a_list(server: PostgresSettings, other: str) -> None:
    assert read_value_list(in_postgresqls_words(server, "text", other)) is None


def test_a_constraint_that_is_not_valid_is_still_recognised() -> None:
    assert read_value_list("CHECK (((role)::text = 'owner'::text)) NOT VALID") == ValueList(
        "role", frozenset({"owner"})
    )


@pytest.mark.parametrize("text", ["", "CHECK ()", "CHECK (a ~ 'b')", "CHECK (((a", "nonsense'"])
def test_what_cannot_be_understood_is_no_list(text: str) -> None:
    assert read_value_list(text) is None


@given(st.text(max_size=80))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    read_value_list(text)


@given(st.sets(st.text(st.characters(blacklist_characters="\0", codec="utf-8"), min_size=1), min_size=1, max_size=5))
def test_any_values_are_read_back_quotes_and_all(values: set[str]) -> None:
    listed = ", ".join("'" + value.replace("'", "''") + "'::character varying" for value in sorted(values))
    definition = f"CHECK (((role)::text = ANY ((ARRAY[{listed}])::text[])))"
    assert read_value_list(definition) == ValueList("role", frozenset(values))


def in_postgresqls_words(postgres: PostgresSettings, column_type: str, condition: str) -> str:
    with connect(postgres) as connection:
        statement = f"CREATE TEMP TABLE t (role {column_type}, other text, CONSTRAINT given CHECK ({condition}))"
        connection.execute(statement.encode())
        definition = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'given'"
        row = connection.execute(definition).fetchone()
    assert row is not None
    return str(row[0])
