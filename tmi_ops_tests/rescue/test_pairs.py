"""Which columns of another type must be cast value by value, decided without a server."""

from __future__ import annotations

import pytest

from tmi_ops.rescue.pairs import must_be_cast
from tmi_ops.rescue.shape import Column


@pytest.mark.parametrize(
    ("then", "now", "is_cast"),
    [
        ("integer", "integer", False),
        ("integer", "bigint", False),
        ("bigint", "integer", True),
        ("smallint", "numeric", False),
        ("numeric", "bigint", True),
        ("integer", "numeric(6,2)", True),
        ("character varying(3)", "character varying(4)", False),
        ("character varying(4)", "character varying(3)", True),
        ("character varying(4)", "character varying", False),
        ("character varying", "character varying(4)", True),
        ("character varying(4)", "text", False),
        ("text", "character varying(400)", True),
        ("text", "character varying", True),
        ("character(4)", "text", True),
        ("text", "uuid", True),
    ],
)
def test_what_holds_every_value_in_the_same_words_is_not_cast(then: str, now: str, is_cast: bool) -> None:
    assert must_be_cast(Column("c", then), Column("c", now)) is is_cast


@pytest.mark.parametrize(
    ("then", "now"), [("'a','b'", "'a','b','c'"), ("'a','b'", "'a'"), ("text t", "text f"), ("", "'a'"), ("'a'", "")]
)
def test_a_type_of_ones_own_that_is_made_of_something_else_is_cast(then: str, now: str) -> None:
    assert must_be_cast(Column("c", "public.e", defined=then), Column("c", "public.e", defined=now))
    assert not must_be_cast(Column("c", "public.e", defined=then), Column("c", "public.e", defined=then))
