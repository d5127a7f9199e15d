"""Definitions with the same meaning are equal; all other differences are found."""

from __future__ import annotations

from typing import Any

import pytest

from tmi_ops.backup.definitions import Definition
from tmi_ops.backup.undumped import Fact
from tmi_ops.recovery.definitions import compare_definitions, compare_facts
from tmi_ops.recovery.trees import Majors, calls_functions, normal_form

SAME = Majors(17, 17)


def _object(text: str, **facts: Any) -> Definition:
    values = {"kind": "TABLE", "schema": "public", "name": "t", "owner": "app", "tablespace": "", "access_method": ""}
    return Definition(text=text, **{**values, **facts})


@pytest.mark.parametrize(
    ("source", "copy"),
    [
        (
            "CREATE TABLE k (b int, CHECK ((((b >= 1) AND (b <= 5)) AND (NOT (b = 3)))))",
            "CREATE TABLE k (b int, CHECK (((b >= 1) AND (b <= 5) AND (NOT (b = 3)))))",
        ),
        (
            "CREATE TABLE k (b text, CHECK (b = ANY ((ARRAY['x'::varchar, 'y'::varchar])::text[])))",
            "CREATE TABLE k (b text, CHECK (b = ANY (ARRAY[('x'::varchar)::text, ('y'::varchar)::text])))",
        ),
        ("CREATE POLICY p ON t TO a, b USING (true)", "CREATE POLICY p ON t TO b, a USING (true)"),
        ("CREATE TABLE c (z text, b int) INHERITS (p)", "CREATE TABLE c (b int, z text) INHERITS (p)"),
        ('CREATE VIEW "v" AS SELECT "a" FROM "t"', "CREATE VIEW v AS SELECT a FROM t"),
        (
            "CREATE TABLE k (a int DEFAULT NULL NOT NULL, b text)",
            "CREATE TABLE k (a int NOT NULL, b text DEFAULT NULL)",
        ),
    ],
    ids=["parentheses", "cast of an array", "roles of a policy", "columns of an inheriting table", "quotes", "NULL"],
)
def test_two_spellings_of_one_definition_are_equal(source: str, copy: str) -> None:
    assert normal_form(source, SAME) == normal_form(copy, SAME)
    assert compare_definitions([_object(source)], [_object(copy)], SAME).differences == ()


@pytest.mark.parametrize(
    ("source", "copy"),
    [
        ("CREATE TABLE k (a int, b int)", "CREATE TABLE k (b int, a int)"),
        ("CREATE TABLE k (b int, CHECK (b > 1))", "CREATE TABLE k (b int, CHECK (b > 2))"),
        (
            "CREATE TABLE k (b int, CHECK ((b > 1 OR b < 0) AND b > 5))",
            "CREATE TABLE k (b int, CHECK (b > 1))",
        ),
        ("CREATE TABLE k (b text, CHECK (b = ANY (ARRAY['x'::text])))", "CREATE TABLE k (b text, CHECK (b = 'x'))"),
        ("CREATE TABLE k (a int CONSTRAINT x NOT NULL)", "CREATE TABLE k (a int CONSTRAINT y NOT NULL)"),
        ("CREATE POLICY p ON t TO a USING (true)", "CREATE POLICY p ON t TO b USING (true)"),
        ("GRANT SELECT ON t TO a", "GRANT SELECT ON t TO a WITH GRANT OPTION"),
        ("CREATE TABLE k (a int DEFAULT 0)", "CREATE TABLE k (a int)"),
        ("CREATE TABLE k (a public.d DEFAULT NULL)", "CREATE TABLE k (a public.d)"),
        ("CREATE TABLE k (a int DEFAULT NULL) INHERITS (p)", "CREATE TABLE k (a int) INHERITS (p)"),
        ("CREATE TABLE k (\n", "CREATE TABLE k (\n\n"),
    ],
)
def test_definitions_that_differ_are_seen(source: str, copy: str) -> None:
    (difference,) = compare_definitions([_object(source)], [_object(copy)], SAME).differences
    assert difference.startswith("table public.t was ")


def test_the_order_of_grants_means_nothing_and_that_of_other_statements_does() -> None:
    one, other = (
        "GRANT SELECT,INSERT ON t TO a; GRANT SELECT ON t TO b;",
        "GRANT SELECT ON t TO b; GRANT INSERT,SELECT ON t TO a;",
    )
    grants = {"kind": "ACL", "name": "TABLE t", "owner": ""}
    assert compare_definitions([_object(one, **grants)], [_object(other, **grants)], SAME).differences == ()
    assert compare_definitions([_object(one)], [_object(other)], SAME).differences != ()


def test_what_a_newer_major_writes_otherwise_is_equal_across_that_major_alone() -> None:
    view, bare = "CREATE VIEW v AS SELECT t.a FROM t WHERE t.a > 1", "CREATE VIEW v AS SELECT a FROM t WHERE a > 1"
    named, unnamed = "CREATE TABLE k (a int CONSTRAINT x NOT NULL)", "CREATE TABLE k (a int NOT NULL)"
    for source, copy, majors in ((view, bare, Majors(15, 17)), (unnamed, named, Majors(17, 18))):
        assert normal_form(source, majors) == normal_form(copy, majors)
        assert normal_form(source, Majors(17, 17)) != normal_form(copy, Majors(17, 17))
    assert normal_form("CREATE VIEW v AS SELECT t.a FROM t, u", Majors(15, 17)) != normal_form(
        "CREATE VIEW v AS SELECT a FROM t, u", Majors(15, 17)
    )


@pytest.mark.parametrize(
    "source",
    [
        "t TABLESAMPLE system (5)",
        "f(1) t(a)",
        "(SELECT 1 AS a) t",
        "XMLTABLE('/r' PASSING x COLUMNS a int) t",
        "JSON_TABLE(x, '$' COLUMNS (a int)) t",
    ],
)
def test_columns_of_whatever_is_alone_in_from_are_equal_with_and_without_its_name(source: str) -> None:
    named, bare = f"CREATE VIEW v AS SELECT t.a FROM {source}", f"CREATE VIEW v AS SELECT a FROM {source}"
    assert normal_form(named, Majors(15, 17)) == normal_form(bare, Majors(15, 17))
    assert normal_form(named, SAME) != normal_form(bare, SAME)


@pytest.mark.parametrize(
    ("fact", "said"),
    [
        ({"owner": "other"}, "table public.t had the owner app, in the restored copy other"),
        ({"access_method": "heap"}, "table public.t had the access method by default, in the restored copy heap"),
    ],
)
def test_owner_and_access_method_are_part_of_a_definition(fact: dict[str, str], said: str) -> None:
    text = "CREATE TABLE t (a int)"
    assert compare_definitions([_object(text)], [_object(text, **fact)], SAME).differences == (said,)


def test_names_with_dots_are_not_mistaken_for_one_another() -> None:
    one = _object("CREATE TABLE x (a int)", schema="a.b", name="c")
    other = _object("CREATE TABLE x (a int)", schema="a", name="b.c")
    assert len(compare_definitions([one], [other], SAME).differences) == 2
    assert compare_definitions([one, other], [other, one], SAME).differences == ()


def test_objects_that_pg_dump_calls_the_same_are_told_apart_by_what_they_are() -> None:
    one = _object("CREATE TRIGGER c ON a b", kind="TRIGGER", name="a b c")
    other = _object("CREATE TRIGGER b c ON a", kind="TRIGGER", name="a b c")
    assert compare_definitions([one, other], [other, one], SAME).differences == ()
    (missing,) = compare_definitions([one, other], [one], SAME).differences
    assert missing == "trigger public.a b c is missing from the restored copy"
    assert compare_definitions([one, one], [one], SAME).differences == (missing,)
    assert len(compare_definitions([one, one, other], [one, other, other], SAME).differences) == 1


def test_a_new_object_and_a_missing_one_are_named() -> None:
    one, other = _object("CREATE TABLE a ()", name="a"), _object("COMMENT ON x", kind="COMMENT", name="TABLE b")
    assert compare_definitions([one], [other], SAME).differences == (
        "comment on table public.b is in the restored copy but was not in the source",
        "table public.a is missing from the restored copy",
    )


def test_versions_of_the_server_are_told_and_do_not_disprove() -> None:
    was = [
        Fact(kind="extension version", name=("citext",), value="1.5"),
        Fact(kind="populated", name=("public", "mv"), value="true"),
        Fact(kind="large object", name=("7",), value="owner a"),
    ]
    came = [
        Fact(kind="extension version", name=("citext",), value="1.6"),
        Fact(kind="populated", name=("public", "mv"), value="false"),
    ]
    found = compare_facts(was, came)
    assert found.notes == ("citext: extension version was 1.5, in the restored copy it is 1.6",)
    assert found.differences == (
        "public.mv: populated was true, in the restored copy it is false",
        "large object 7 is missing from the restored copy",
    )


def test_where_an_object_lies_is_told_and_does_not_disprove() -> None:
    text = "CREATE TABLE t (a int)"
    found = compare_definitions([_object(text, tablespace="fast")], [_object(text)], SAME)
    assert found.differences == ()
    assert found.notes == ("table public.t was in the tablespace fast, here it is in the database's default",)


@pytest.mark.parametrize(
    ("statements", "calls"),
    [
        ("CREATE TABLE t (a int, CHECK (public.known(a)))", True),
        ("CREATE DOMAIN public.d AS int CONSTRAINT c CHECK (public.known(VALUE))", True),
        ("CREATE TABLE t (a int DEFAULT public.next_a(), CHECK (a > 0))", False),
        ("CREATE TABLE t (a text, CHECK (length(a) > pg_catalog.abs(3)))", False),
    ],
)
def test_a_check_that_calls_a_function_is_found(statements: str, calls: bool) -> None:
    assert calls_functions(statements) is calls
