"""A dropped column comes back with its values, its default, and what went with it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tmi_ops.backup.snapshot import TableName
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.rescue.columns.definition import grant_statements, read_columns
from tmi_ops.rescue.columns.execution import ColumnsRestored, execute_columns
from tmi_ops.rescue.columns.planning import ColumnsPlan, plan_columns, planned_values
from tmi_ops.rescue.selection import Selection, TableColumn, TableRows
from tmi_ops.rescue.session import both_sides
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.rescue.databases import Of, Two, copied, dropped, rows, run

REPORT = SilentReport()


def wanted(table: str, *columns: str, rows: tuple[TableRows, ...] = (), accept: bool = False) -> Selection:
    return Selection(rows, tuple(TableColumn(table, column) for column in columns), accept_triggers=accept)


def restored(two: Two, selection: Selection) -> ColumnsRestored:
    with both_sides(two.past, two.now) as sides:
        return execute_columns(sides, plan_columns(sides, selection, "then", REPORT), REPORT)


def planned(two: Two, selection: Selection) -> ColumnsPlan:
    with both_sides(two.past, two.now) as sides:
        return plan_columns(sides, selection, "then", REPORT)


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
    done = restored(two, wanted("models", column))
    assert done.rows == 30
    assert by_column(two, "models", column)
    then, now = definitions(two, "models")
    assert then == now


def test_a_unique_column_that_others_refer_to_comes_back_with_their_foreign_keys(two: Two) -> None:
    two.spoil("ALTER TABLE people DROP COLUMN boss")
    restored(two, wanted("people", "boss"))
    assert by_column(two, "people", "boss")
    then, now = definitions(two, "people")
    assert then == now


def test_rows_written_since_have_no_value_and_so_the_column_stays_nullable(two: Two) -> None:
    two.spoil("ALTER TABLE history DROP COLUMN what; INSERT INTO history VALUES (100)")
    two.spoil("ALTER TABLE history DISABLE TRIGGER append_only")
    done = restored(two, wanted("history", "what"))
    assert (done.plan.others, done.nullable) == (1, ("what",))
    assert "what will no longer be NOT NULL, because 1 rows have no value." in done.plan.notes
    assert two.value("SELECT count(*) FROM history WHERE what IS NULL") == 1


def test_an_append_only_table_refuses_to_have_a_column_filled(two: Two) -> None:
    two.spoil("ALTER TABLE history DROP COLUMN what; ALTER TABLE history ADD remark text")
    (barrier,) = planned(two, wanted("history", "what")).barriers
    assert "append_only of public.history does not allow updates: history is append-only" in barrier.what
    with pytest.raises(RecoveryError, match="history is append-only"):
        restored(two, wanted("history", "what"))
    assert "what" not in two.now_rows("history")[0]


@pytest.mark.parametrize(
    ("table", "column", "said"),
    [
        ("people", "name", "has a column name"),
        ("people", "shoe", "had no column shoe"),
        ("lines", "n", "has no key that exists both now and then"),
    ],
)
def test_a_column_that_cannot_come_back_is_refused(two: Two, table: str, column: str, said: str) -> None:
    two.spoil("ALTER TABLE lines DROP COLUMN n")
    with both_sides(two.past, two.now) as sides, pytest.raises(RecoveryError, match=said):
        plan_columns(sides, wanted(table, column), "then", REPORT)


# Columns with everything that a column can have, and what hangs on them.
RICH = """
CREATE ROLE {reader};
CREATE ROLE {leaver};
CREATE TABLE place (id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE thing (
    id integer PRIMARY KEY, place integer REFERENCES place, ticket serial, nth bigint GENERATED ALWAYS AS IDENTITY
        (START 100 INCREMENT 10), kind text COLLATE "C" NOT NULL DEFAULT 'plain' CHECK (kind <> ''),
    size numeric(6, 2), twice numeric GENERATED ALWAYS AS (size * 2) STORED, note text
);
ALTER TABLE thing ALTER kind SET STORAGE EXTERNAL, ALTER kind SET STATISTICS 77;
CREATE INDEX by_kind_and_size ON thing (kind, size);
CREATE INDEX by_kind ON thing (id) WHERE kind = 'rare';
CREATE STATISTICS thing_statistics ON kind, place FROM thing;
CREATE VIEW kinds AS SELECT kind, count(*) FROM thing GROUP BY kind;
CREATE VIEW many_kinds AS SELECT kind FROM kinds WHERE count > 1;
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$;
CREATE TRIGGER of_kind BEFORE UPDATE OF kind ON thing FOR EACH ROW EXECUTE FUNCTION nothing();
CREATE POLICY plain ON thing USING (kind = 'plain');
COMMENT ON COLUMN thing.kind IS 'what it''s';
COMMENT ON INDEX by_kind IS 'few';
GRANT SELECT (kind), UPDATE (kind) ON thing TO {reader};
GRANT SELECT (kind) ON thing TO {leaver} WITH GRANT OPTION;
GRANT SELECT (kind) ON thing TO PUBLIC;
GRANT SELECT ON kinds TO {reader};
GRANT USAGE ON SEQUENCE thing_ticket_seq TO {reader};
INSERT INTO place VALUES (1, 'here'), (2, 'there');
INSERT INTO thing (id, place, kind, size, note) SELECT i, 1 + i % 2, CASE WHEN i > 8 THEN 'rare' ELSE 'plain' END, i, i
FROM generate_series(1, 10) i;
"""
# Every definition that belongs to the table but its columns' order, one a row.
_ALL_OF_IT = """
SELECT concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull, attcollation::regcollation,
        attstorage, attstattarget, attidentity, attgenerated, pg_get_expr(d.adbin, d.adrelid),
        col_description(attrelid, attnum),
        (SELECT string_agg(concat(grantee::regrole, privilege_type, is_grantable), ',' ORDER BY grantee, privilege_type)
         FROM aclexplode(attacl)))
    FROM pg_attribute LEFT JOIN pg_attrdef d ON adrelid = attrelid AND adnum = attnum
    WHERE attrelid = 'thing'::regclass AND attnum > 0 AND NOT attisdropped
    UNION ALL SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'thing'::regclass
    UNION ALL SELECT concat(pg_get_indexdef(indexrelid), obj_description(indexrelid)) FROM pg_index
        WHERE indrelid = 'thing'::regclass
    UNION ALL SELECT concat(stxname, cardinality(stxkeys::int2[])) FROM pg_statistic_ext
    UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'thing'::regclass AND NOT tgisinternal
    UNION ALL SELECT concat(relname, pg_get_viewdef(oid), relacl) FROM pg_class
        WHERE relkind = 'v' AND relnamespace = 'public'::regnamespace
    UNION ALL SELECT concat(relname, relacl, 
        (SELECT concat_ws(' ', seqstart, seqincrement, seqmin, seqmax) FROM pg_sequence WHERE seqrelid = oid),
        pg_sequence_last_value(oid)) FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace
"""


@pytest.fixture(scope="module")
def rich_past(server: PostgresSettings) -> Iterator[tuple[PostgresSettings, str]]:
    name = secrets.token_hex(4)
    address = server.model_copy(update={"database": f"rich_{name}"})
    reader, leaver = f"reader_{name}", f"leaver_{name}"
    run(server, f'CREATE DATABASE "{address.database}"')
    run(address, RICH.format(reader=reader, leaver=leaver))
    yield address, leaver
    dropped(address)
    run(server, f"DROP ROLE {reader}, {leaver}")


@pytest.fixture
def rich(rich_past: tuple[PostgresSettings, str]) -> Iterator[Two]:
    with copied(rich_past[0]) as now:
        yield Two(rich_past[0], now)


def test_columns_come_back_with_all_that_fell_with_them(rich: Two) -> None:
    rich.spoil("ALTER TABLE thing DROP kind CASCADE, DROP size CASCADE, DROP ticket, DROP nth")
    selection = wanted("thing", "kind", "size", "twice", "ticket", "nth")
    done = restored(rich, selection)
    assert done.checks[-1] == "no other column of any row changed"
    assert rows(rich.past, "(SELECT id, kind, size, twice, ticket, nth FROM thing)") == rows(
        rich.now, "(SELECT id, kind, size, twice, ticket, nth FROM thing)"
    )
    with connect(rich.past) as then, connect(rich.now) as now:
        assert set(then.execute(_ALL_OF_IT).fetchall()) ^ set(now.execute(_ALL_OF_IT).fetchall()) == set()
    assert rich.value("INSERT INTO thing (id) VALUES (11) RETURNING ticket || ' ' || nth") == "11 200"


def test_what_cannot_come_back_is_said_in_the_plan(rich: Two, rich_past: tuple[PostgresSettings, str]) -> None:
    rich.spoil("ALTER TABLE thing DROP kind CASCADE, DROP size CASCADE, DROP place CASCADE")
    plan = planned(rich, wanted("thing", "kind"))
    assert plan.dependents.lost == (
        "the index public.by_kind_and_size: it also needs size, dropped too; add --column size",
        "the statistics public.thing_statistics: it also needs place, dropped too; add --column place",
        "policy plain on table public.thing: tmi_ops cannot recreate objects of this kind",
    )
    computed = planned(rich, wanted("thing", "size"))
    assert "the computed column twice: it is computed from this column; add --column twice" in (
        computed.dependents.lost
    )
    restored(rich, wanted("thing", "kind"))


def test_only_chosen_rows_get_their_values_and_the_others_what_the_plan_says(rich: Two) -> None:
    rich.spoil("ALTER TABLE thing DROP kind CASCADE, DROP size CASCADE; DELETE FROM thing WHERE id = 9")
    selection = wanted("thing", "kind", "size", rows=(TableRows("thing", where="id IN (8, 9, 10)"),))
    with both_sides(rich.past, rich.now) as sides:
        plan = plan_columns(sides, selection, "then", REPORT)
        shown = list(planned_values(sides, plan, None))
        assert (plan.rows, plan.others, plan.gone) == (2, 7, 1)
        assert plan.others_get() == "kind the default 'plain'::text, size NULL"
        assert [(one.key, one.then) for one in shown] == [
            (("8",), {"kind": "plain", "size": "8.00"}),
            (("10",), {"kind": "rare", "size": "10.00"}),
        ]
        execute_columns(sides, plan, REPORT)
    assert rich.value("SELECT array_agg(concat(id, kind, size) ORDER BY id)::text FROM thing WHERE id >= 6") == (
        "{6plain,7plain,8plain8.00,10rare10.00}"
    )


def test_rows_are_chosen_by_what_they_hang_on(rich: Two) -> None:
    rich.spoil("ALTER TABLE thing DROP note")
    assert planned(rich, wanted("thing", "note", rows=(TableRows("place", key=("1",)),))).rows == 5
    with pytest.raises(RecoveryError, match=r"No rows of public\.place belonged to"):
        rich.spoil("ALTER TABLE place DROP name")
        planned(rich, wanted("place", "name", rows=(TableRows("thing", key=("1",)),)))


def test_a_trigger_that_changes_other_columns_is_accepted_or_nothing_is_done(rich: Two) -> None:
    rich.spoil("""
        ALTER TABLE thing DROP size CASCADE;
        CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.note := 'touched'; RETURN new; END $$;
        CREATE TRIGGER touching BEFORE UPDATE ON thing FOR EACH ROW EXECUTE FUNCTION touch()""")
    with pytest.raises(RecoveryError, match=r"10 rows of public\.thing would change in other columns.*touching"):
        restored(rich, wanted("thing", "size"))
    assert "size" not in rich.now_rows("thing")[0]
    assert restored(rich, wanted("thing", "size", accept=True)).altered == 10


def test_values_that_fit_no_more_are_in_the_way_of_the_plan_and_refused_whole(rich: Two) -> None:
    rich.spoil("ALTER TABLE thing DROP place CASCADE; DELETE FROM place WHERE id = 2")
    (barrier,) = planned(rich, wanted("thing", "place")).barriers
    assert "5 rows of public.thing would violate the foreign key" in barrier.what
    assert "the rows of public.place that place references do not exist" in barrier.what
    assert "tmi-ops recover rows --table public.place" in barrier.hint
    with pytest.raises(RecoveryError, match=r"5 rows of public\.thing would violate"):
        restored(rich, wanted("thing", "place"))
    assert "place" not in rich.now_rows("thing")[0]
    fitting = wanted("thing", "place", rows=(TableRows("thing", where="place = 1"),))
    assert restored(rich, fitting).rows == 5


OBEYED = """
CREATE TABLE coded (id integer PRIMARY KEY, code text NOT NULL DEFAULT 'none' UNIQUE, low integer, high integer,
                    CONSTRAINT ordered CHECK (low <= high));
CREATE TABLE coding (id integer PRIMARY KEY, code text REFERENCES coded (code));
INSERT INTO coded SELECT i, 'c' || i, i, i + 1 FROM generate_series(1, 4) i;
INSERT INTO coding SELECT i, 'c' || i FROM generate_series(1, 4) i;
"""


@pytest.mark.parametrize(
    ("accident", "column", "said"),
    [
        (
            "INSERT INTO coded VALUES (8, 0, 1), (9, 0, 1)",
            "code",
            "2 rows would have duplicate values in the unique index coded_code_key",
        ),
        ("INSERT INTO coded VALUES (9, 0, 1)", "code", ""),
        ("INSERT INTO coding VALUES (9, 'c9')", "code", "1 rows of public.coding would violate the foreign key"),
        ("UPDATE coded SET high = -1 WHERE id < 3", "low", "2 rows would violate the restored constraint ordered"),
    ],
)
def test_what_comes_back_with_a_column_holds_for_all_rows_or_the_plan_says_which_it_forbids(
    of: Of, accident: str, column: str, said: str
) -> None:
    two = of(OBEYED)
    two.spoil(f"ALTER TABLE coded DROP COLUMN {column} CASCADE; {accident}")
    barriers = planned(two, wanted("coded", column)).barriers
    assert [said in barrier.what for barrier in barriers] == [True] * bool(said)
    if not barriers:
        assert restored(two, wanted("coded", column)).rows == 4


def test_rights_of_a_role_that_is_gone_do_not_come_back(rich: Two, rich_past: tuple[PostgresSettings, str]) -> None:
    with both_sides(rich.past, rich.now) as sides:
        (column,) = read_columns(sides, sides.pairs[TableName("public", "thing")], ["kind"])
    leaver = rich_past[1]
    roles = frozenset(grant.role for grant in column.grants if grant.role not in (None, leaver))
    statements, lost = grant_statements("thing", column, frozenset(filter(None, roles)))
    assert lost == [f"the rights of {leaver} on kind: the role does not exist"]
    assert 'GRANT SELECT ("kind") ON thing TO PUBLIC' in statements
