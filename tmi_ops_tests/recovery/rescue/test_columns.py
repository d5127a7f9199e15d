"""A dropped column comes back with its values, its default, and what went with it."""

from __future__ import annotations

import pytest

from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.rescue.columns import ColumnRestored, bring_back_column, plan_column
from tmi_ops.recovery.rescue.selection import TableColumn
from tmi_ops.recovery.rescue.session import both_sides
from tmi_ops_tests.recovery.rescue.databases import Two, rows


def restored(two: Two, table: str, column: str) -> ColumnRestored:
    with both_sides(two.past, two.now) as sides:
        return bring_back_column(sides, plan_column(sides, TableColumn(table, column), "then"), SilentReport())


def definitions(two: Two, table: str) -> list[object]:
    """Indexes, constraints and columns of a table on both sides."""
    query = f"""
        SELECT array_agg(d ORDER BY d)::text FROM (
            SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = '{table}'::regclass
            UNION ALL SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint
                      WHERE '{table}'::regclass IN (conrelid, confrelid) AND contype <> 'n'
            UNION ALL SELECT concat_ws(' ', attname, attnotnull, format_type(atttypid, atttypmod))
                      FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped
        ) x (d)"""
    found = []
    for address in (two.past, two.now):
        with connect(address) as connection:
            found.append(connection.execute(query.encode()).fetchone())
    return found


def by_column(two: Two, table: str, column: str) -> bool:
    then, now = ({str(row["id"]): row[column] for row in rows(one, table)} for one in (two.past, two.now))
    return then == now


@pytest.mark.parametrize("column", ["owner", "alias", "document", "body", "at", "tags"])
def test_a_column_comes_back_with_values_indexes_and_constraints(two: Two, column: str) -> None:
    two.spoil(f"ALTER TABLE models DROP COLUMN {column}")
    done = restored(two, "models", column)
    assert done.rows == 30
    assert by_column(two, "models", column)
    then, now = definitions(two, "models")
    assert then == now


def test_a_unique_column_that_others_refer_to_comes_back_with_their_foreign_keys(two: Two) -> None:
    two.spoil("ALTER TABLE people DROP COLUMN boss")
    restored(two, "people", "boss")
    assert by_column(two, "people", "boss")
    then, now = definitions(two, "people")
    assert then == now


def test_rows_written_since_have_no_value_and_so_the_column_stays_nullable(two: Two) -> None:
    two.spoil("ALTER TABLE history DROP COLUMN what; INSERT INTO history VALUES (100)")
    two.spoil("ALTER TABLE history DISABLE TRIGGER append_only")
    done = restored(two, "history", "what")
    assert done.plan.without_past == 1
    assert done.plan.notes == ("1 rows written since have no value for what, so it may be NULL now",)
    assert two.value("SELECT count(*) FROM history WHERE what IS NULL") == 1


def test_an_append_only_table_refuses_to_have_a_column_filled(two: Two) -> None:
    two.spoil("ALTER TABLE history DROP COLUMN what")
    with pytest.raises(RecoveryError, match="history is append-only"):
        restored(two, "history", "what")
    assert "what" not in two.now_rows("history")[0]


@pytest.mark.parametrize(
    ("table", "column", "said"),
    [
        ("people", "name", "has a column name"),
        ("people", "shoe", "had no column shoe then"),
        ("lines", "n", "has no key that both sides share"),
    ],
)
def test_a_column_that_cannot_come_back_is_refused(two: Two, table: str, column: str, said: str) -> None:
    two.spoil("ALTER TABLE lines DROP COLUMN n")
    with both_sides(two.past, two.now) as sides, pytest.raises(RecoveryError, match=said):
        plan_column(sides, TableColumn(table, column), "then")
