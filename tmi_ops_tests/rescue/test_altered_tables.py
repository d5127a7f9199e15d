"""Tables that were altered since: values are cast, or their rows are conflicts, or the plan says what is missing."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops_tests.rescue.databases import Of, Two, all_of, conflicts, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("was", "values", "using", "becomes"),
    [
        ("character varying(40)", "'00000000-0000-0000-0000-00000000000' || i", "k::uuid", "uuid"),
        ("text", "i::text", "k::integer", "integer"),
        ("text", "'e' || i", "k::e", "e"),
        ("integer", "i", "k::bigint", "bigint"),
        ("bigint", "i", "k::smallint", "smallint"),
        ("character varying(3)", "i::text", "k::text", "text"),
        ("text", "i::text", "k::jsonb", "jsonb"),
        ("integer", "i", "k::text", "text"),
        ("text", "i::text", "k::d", "d"),
        ("numeric", "i + 0.5", "k::numeric(6,1)", "numeric(6,1)"),
        ("timestamp with time zone", "'2026-01-01 00:00:00+00'::timestamptz + i * interval '1 h'", "k::text", "text"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else None,
)
def test_a_key_of_another_type_now_is_cast_as_the_server_does(
    of: Of, was: str, values: str, using: str, becomes: str
) -> None:
    two = of(
        "CREATE TYPE e AS ENUM ('e1', 'e2', 'e3', 'e4', 'e5'); CREATE DOMAIN d AS text NOT NULL CHECK (VALUE <> '9');"
        f"CREATE TABLE t (k {was} PRIMARY KEY, x text); CREATE TABLE c (k {was} REFERENCES t, n integer PRIMARY KEY);"
        f"INSERT INTO t SELECT {values}, 'x' FROM generate_series(1, 5) i;"
        f" INSERT INTO c SELECT k, row_number() OVER () FROM t"
    )
    two.spoil(
        "ALTER TABLE c DROP CONSTRAINT c_k_fkey; SET TimeZone = UTC;"
        f"ALTER TABLE t ALTER k TYPE {becomes} USING {using}; ALTER TABLE c ALTER k TYPE {becomes} USING {using};"
        "ALTER TABLE c ADD FOREIGN KEY (k) REFERENCES t"
    )
    before = two.now_rows("t"), two.now_rows("c")
    two.spoil(
        "UPDATE t SET x = 'oops' WHERE x = 'x' AND ctid = '(0,6)' OR k::text LIKE '%1%';"
        "DELETE FROM c WHERE n > 2; DELETE FROM t WHERE NOT EXISTS (SELECT FROM c WHERE c.k = t.k)"
    )
    rescued = two.rescue(all_of("t", "take-past"))
    assert (two.now_rows("t"), two.now_rows("c")) == before
    assert rescued.tables["public.c"].inserted == 3


def test_values_that_no_cast_can_hold_are_conflicts_by_the_row(of: Of) -> None:
    two = of(
        "CREATE TABLE t (id integer PRIMARY KEY, x text);"
        " INSERT INTO t VALUES (1, '1'), (2, 'two'), (3, NULL), (4, '4')"
    )
    two.spoil("DELETE FROM t; ALTER TABLE t ALTER x TYPE integer USING x::integer")
    plan = two.planned(all_of("t"))
    assert conflicts(plan) == [("unfit", 1)]
    assert plan.conflicts[0].examples == ("2",)
    assert "x does not fit the column's current type integer" in plan.conflicts[0].detail
    assert two.rescue(all_of("t", "skip")).rows == 3
    assert two.value("SELECT string_agg(id || coalesce(x::text, '-'), ' ' ORDER BY id) FROM t") == "11 3- 44"


def test_a_value_is_never_cut_off_to_fit(of: Of) -> None:
    two = of(
        "CREATE TABLE t (id integer PRIMARY KEY, x text, n numeric);"
        " INSERT INTO t VALUES (1, 'abcd', 1.25), (2, 'ab', 1)"
    )
    two.spoil("DELETE FROM t; ALTER TABLE t ALTER x TYPE varchar(3), ALTER n TYPE numeric(4,1)")
    assert sum(rows for _, rows in conflicts(two.planned(all_of("t")))) >= 1
    assert two.rescue(all_of("t", "skip")).rows == 1


def test_an_enum_that_lost_a_label_and_a_domain_that_forbids_null_and_more(of: Of) -> None:
    two = of(
        "CREATE TYPE e AS ENUM ('a', 'b'); CREATE DOMAIN never AS text NOT NULL; CREATE DOMAIN small AS integer;"
        "CREATE TABLE t (id integer PRIMARY KEY, e e, never never, s small);"
        "INSERT INTO t VALUES (1, 'a', 'x', 1), (2, 'b', 'y', 2), (3, 'a', 'z', 300)"
    )
    two.spoil(
        "DELETE FROM t; ALTER TYPE e RENAME TO old; CREATE TYPE e AS ENUM ('a', 'c');"
        "ALTER TABLE t ALTER e TYPE e USING e::text::e; ALTER DOMAIN small ADD CHECK (VALUE < 100)"
    )
    assert conflicts(two.planned(all_of("t"))) == [("unfit", 2)]
    assert two.rescue(all_of("t", "keep-current")).rows == 1


def test_casts_that_a_type_s_owner_made_are_never_asked_on_either_side(of: Of) -> None:
    bite = (
        "CREATE TABLE bitten (who text); CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE was AS (m text);"
        "CREATE FUNCTION bite(given text) RETURNS mood LANGUAGE plpgsql AS"
        " $$BEGIN INSERT INTO public.bitten VALUES (current_user); RETURN 'sad'; END$$;"
        "CREATE FUNCTION bark(given was) RETURNS text LANGUAGE sql AS $$SELECT 'lied'$$;"
        "CREATE CAST (text AS mood) WITH FUNCTION bite(text); CREATE CAST (was AS text) WITH FUNCTION bark(was);"
    )
    two = of(
        f"{bite} CREATE TABLE t (id integer PRIMARY KEY, x text, y was);"
        " INSERT INTO t VALUES (1, 'ok', ROW('true')), (2, NULL, NULL), (3, 'never', ROW(NULL))"
    )
    two.spoil("DELETE FROM t; ALTER TABLE t ALTER x TYPE mood USING NULL, ALTER y TYPE text USING NULL")
    assert conflicts(two.planned(all_of("t"))) == [("unfit", 1)]
    assert two.rescue(all_of("t", "skip")).rows == 2
    assert two.value("SELECT string_agg(concat(id, x, y), ' ' ORDER BY id) FROM t") == "1ok(true) 2"
    assert two.value("SELECT count(*) FROM bitten") == 0


def test_constraints_that_are_newer_than_the_rows_are_conflicts_by_the_row(of: Of) -> None:
    two = of(
        "CREATE TABLE t (id integer PRIMARY KEY, x integer, y integer);"
        " INSERT INTO t VALUES (1, 1, 1), (2, NULL, 2), (3, 3, -3)"
    )
    two.spoil("DELETE FROM t; ALTER TABLE t ALTER x SET NOT NULL, ADD CONSTRAINT up CHECK (y > 0 AND y > x - 1)")
    plan = two.planned(all_of("t"))
    assert conflicts(plan) == [("barred", 2)]
    assert two.rescue(all_of("t", "skip")).rows == 1
    assert two.value("SELECT min(id) FROM t") == 1


def test_missing_rights_are_lines_of_the_plan_and_all_of_them(of: Of) -> None:
    two = of("CREATE TABLE t (id serial PRIMARY KEY, x text); INSERT INTO t (x) VALUES ('a'), ('b')")
    two.spoil("DELETE FROM t WHERE id = 1")
    role = f"limited_{two.now.database}"
    with connect(two.now) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'limited'; GRANT SELECT ON t TO {role}".encode())
    limited = two.now.model_copy(update={"user": role, "password": SecretStr("limited")})
    try:
        plan = Two(two.past, limited).planned(all_of("t"))
        assert [barrier.what for barrier in plan.barriers] == [
            f"The role {role} lacks INSERT and UPDATE on public.t.",
            f"The role {role} is not allowed to set the sequence public.t_id_seq of public.t.",
        ]
        assert plan.rows == 1
        with pytest.raises(RecoveryError, match="lacks INSERT") as refused:
            Two(two.past, limited).rescue(all_of("t"))
        assert refused.value.code is Code.CANNOT_RESTORE_ROWS
        run(two.now, "ALTER TABLE t ADD must text NOT NULL DEFAULT ''; ALTER TABLE t ALTER must DROP DEFAULT")
        barriers = Two(two.past, limited).planned(all_of("t")).barriers
        assert any("without a default: must" in barrier.what for barrier in barriers)
    finally:
        run(two.now, f"DROP OWNED BY {role}; DROP ROLE {role}")
