"""Values of single columns, in rows that are still there: a bad UPDATE undone, and nothing else."""

from __future__ import annotations

import pytest

from tmi_ops.errors import RecoveryError
from tmi_ops.rescue.selection import Selection, SetColumns, TableRows
from tmi_ops_tests.rescue.databases import Of, conflicts

pytestmark = pytest.mark.slow


def test_a_bad_update_is_undone_in_its_column_and_nowhere_else(of: Of) -> None:
    two = of(
        "CREATE TABLE p (id integer PRIMARY KEY); INSERT INTO p VALUES (1), (2);"
        "CREATE TABLE t (id integer PRIMARY KEY, p integer REFERENCES p, x text, y text);"
        "INSERT INTO t SELECT i, 1 + i % 2, 'x' || i, 'y' FROM generate_series(1, 6) i;"
        "CREATE TABLE c (t integer REFERENCES t ON DELETE CASCADE, n integer PRIMARY KEY);"
        " INSERT INTO c SELECT i, i FROM generate_series(1, 6) i"
    )
    two.spoil(
        "UPDATE t SET x = 'oops'; ALTER TABLE t ADD z text; UPDATE t SET y = 'newer', z = 'new';"
        "UPDATE t SET p = 2; DELETE FROM p WHERE id = 1; DELETE FROM t WHERE id = 6; DELETE FROM c WHERE n = 1"
    )
    values = Selection((TableRows("t", "id > 1"),), values=SetColumns("t", ("x", "p")))
    plan = two.planned(values)
    assert plan.conflicts == ()
    assert any("1 of the past rows were deleted since" in note for note in plan.notes)
    rescued = two.rescue(values)
    assert {name: (one.inserted, one.updated) for name, one in rescued.tables.items()} == {
        "public.p": (1, 0),
        "public.t": (0, 4),
    }
    assert two.value("SELECT string_agg(concat_ws(' ', id, p, x, y, z), ', ' ORDER BY id) FROM t") == (
        "1 2 oops newer new, 2 1 x2 newer new, 3 2 x3 newer new, 4 1 x4 newer new, 5 2 x5 newer new"
    )
    assert two.value("SELECT count(*) FROM c") == 4, "what hung on the rows is no part of their values"
    assert two.planned(values).rows == 0


def test_values_obey_the_constraints_that_look_at_other_columns_too(of: Of) -> None:
    two = of(
        "CREATE TABLE t (id integer PRIMARY KEY, list integer, name text, UNIQUE (list, name));"
        "INSERT INTO t VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c')"
    )
    two.spoil(
        "UPDATE t SET name = 'oops' || id; UPDATE t SET list = 1, name = 'a' WHERE id = 3;"
        "ALTER TABLE t ADD CONSTRAINT low CHECK (name <> 'b' OR list = 2)"
    )
    chosen = Selection((TableRows("t", "id < 3"),), values=SetColumns("t", ("name",)))
    plan = two.planned(chosen)
    assert sorted(conflicts(plan)) == [("barred", 1), ("taken", 1)]
    with pytest.raises(RecoveryError, match="conflict with current rows"):
        two.rescue(chosen)


@pytest.mark.parametrize(
    ("column", "said"),
    [("id", "part of the key"), ("gone", "--column gone"), ("twice", "computed"), ("none", "had no column none")],
)
def test_what_is_no_value_that_could_be_set_is_refused_with_what_helps(of: Of, column: str, said: str) -> None:
    two = of("CREATE TABLE t (id integer PRIMARY KEY, gone text, twice integer GENERATED ALWAYS AS (id * 2) STORED)")
    two.spoil("ALTER TABLE t DROP gone")
    with pytest.raises(RecoveryError) as refused:
        two.planned(Selection((TableRows("t"),), values=SetColumns("t", (column,))))
    assert said in str(refused.value)
