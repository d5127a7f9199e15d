from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmi_ops.health.formatting import format_count, format_list, literal, query_shape


@pytest.mark.parametrize(
    ("query", "shape"),
    [
        ("SELECT * FROM users WHERE email = 'ada@example.com'", "SELECT * FROM users WHERE email = ?"),
        ("SELECT 'it''s', 42, 3.14, 1e9 FROM t1", "SELECT ?, ?, ?, ? FROM t1"),
        (r"SELECT E'a\'b', 7", "SELECT ?, ?"),
        ("SELECT $$dollar$$, $x$quo$$ted$x$, $1", "SELECT ?, ?, $1"),
        ("ALTER ROLE app PASSWORD 'hunter2", "ALTER ROLE app PASSWORD ?"),
        ("SELECT 1 -- hunter2", "SELECT ? ?"),
        ("SELECT /* hunter2 */ 1\n  FROM\tt", "SELECT ? ? FROM t"),
        ("SELECT $tag$cut off in the mid", "SELECT ?"),
        (None, ""),
    ],
)
def test_a_query_is_shown_on_one_line_without_what_was_in_it(query: str | None, shape: str) -> None:
    assert query_shape(query) == shape


@given(secret=st.text(alphabet=st.characters(exclude_characters="'\\"), min_size=8), cut=st.integers(0, 60))
def test_no_string_of_a_query_is_ever_shown_however_it_was_cut_off(secret: str, cut: int) -> None:
    query = f"UPDATE users SET token = '§{secret}§' WHERE id = 7"
    assert "§" not in query_shape(query[:cut] if cut else query)


def test_a_long_query_is_cut() -> None:
    assert len(query_shape("SELECT " + "column_name, " * 100)) == 100


def test_sizes_and_counts_in_words() -> None:
    assert [format_count(count, "index", "indexes") for count in (0, 1, 1234)] == [
        "0 indexes",
        "1 index",
        "1,234 indexes",
    ]
    assert format_list(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert literal("it's") == "'it''s'"
