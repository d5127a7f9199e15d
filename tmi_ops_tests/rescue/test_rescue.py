"""Accidents of every kind, undone: rows, tables, truncations, with what hangs on them and what they need."""

from __future__ import annotations

import pytest

from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.rescue.execution import execute_rescue
from tmi_ops.rescue.planning import plan_rescue
from tmi_ops.rescue.selection import Policy, Selection, TableRows
from tmi_ops.rescue.session import both_sides
from tmi_ops_tests.rescue.databases import Two, run

EVERYTHING = ("people", "models", "parts", "rooms", "doors", "lines", "history")
PERSON_3 = Selection((TableRows("people", key=("3",)),))


def all_of(table: str, policy: Policy = "stop") -> Selection:
    return Selection((TableRows(table),), policy=policy)


def test_a_deleted_row_comes_back_with_everything_that_hung_on_it(two: Two) -> None:
    two.spoil("DELETE FROM people WHERE id = 3")
    rescued = two.rescue(Selection((TableRows("people", key=("3",)),), policy="take-past"))
    assert two.is_as_then(*EVERYTHING)
    assert rescued.tables["public.people"].inserted == 1
    # Those whose boss the person was are there, changed by the deletion.
    assert rescued.tables["public.people"].updated == 2
    assert rescued.tables["public.models"].inserted == 3
    assert rescued.tables["public.parts"].inserted == 9


def test_a_row_brings_what_it_needs_and_no_more(two: Two) -> None:
    two.spoil("DELETE FROM people WHERE id = 3")
    plan = two.planned(Selection((TableRows("parts", where="n = 2"),)))
    assert {table.table: (table.insert, table.for_others) for table in plan.tables if table.insert} == {
        "public.people": (1, 1),
        "public.models": (1, 1),
        "public.parts": (1, 0),
    }


def test_rows_are_chosen_by_what_other_tables_hold(two: Two) -> None:
    two.spoil("DELETE FROM parts")
    plan = two.planned(Selection((TableRows("parts", where="model IN (SELECT id FROM models WHERE owner = 3)"),)))
    assert [(table.table, table.insert) for table in plan.tables if table.written] == [("public.parts", 9)]


def test_a_truncation_of_several_tables_is_undone_and_sequences_move_on(two: Two) -> None:
    two.spoil("TRUNCATE people RESTART IDENTITY CASCADE")
    rescued = two.rescue(all_of("people"))
    assert two.is_as_then(*EVERYTHING)
    assert rescued.sequences == {"public.people_id_seq": 12, "public.parts_n_seq": 90}
    assert two.value("INSERT INTO people (name) VALUES ('the next') RETURNING id") == 13


def test_tables_that_refer_to_one_another_come_back_without_deferred_constraints(two: Two) -> None:
    two.spoil("TRUNCATE rooms, doors")
    rescued = two.rescue(all_of("doors"))
    assert two.is_as_then("rooms", "doors")
    assert len(rescued.plan.order) == 1


def test_rows_without_a_key_come_back_in_their_number(two: Two) -> None:
    two.spoil("DELETE FROM lines WHERE n = 3 OR ctid IN (SELECT ctid FROM lines WHERE line = 'same' LIMIT 3)")
    assert two.rescue(all_of("lines")).rows == 4
    assert two.is_as_then("lines")


@pytest.mark.slow
def test_a_dropped_table_comes_back_with_all_that_went_with_it(two: Two) -> None:
    two.spoil("CREATE ROLE reader_of_models; GRANT SELECT ON models TO reader_of_models")
    run(two.now, "DROP TABLE models CASCADE")
    try:
        with both_sides(two.past, two.now) as sides:
            plan = plan_rescue(sides, all_of("models"), "then", SilentReport())
            assert [table.table for table in plan.tables if table.recreate] == ["public.models"]
            rescued = execute_rescue(sides, plan, SilentReport())
        assert "the foreign key parts_model_fkey of public.parts" in rescued.recreated
        assert two.is_as_then(*EVERYTHING)
        definitions = "SELECT array_agg(indexdef ORDER BY indexdef)::text FROM pg_indexes WHERE tablename = 'models'"
        with connect(two.past) as past:
            assert past.execute(definitions.encode()).fetchone() == (two.value(definitions),)
        assert two.value("SELECT count(*) FROM pg_constraint WHERE confrelid = 'models'::regclass") == 1
    finally:
        two.spoil("DROP OWNED BY reader_of_models; DROP ROLE reader_of_models")


def test_an_append_only_table_takes_back_missing_rows(two: Two) -> None:
    two.spoil("TRUNCATE history; INSERT INTO history VALUES (1, 'event 1'), (99, 'since')")
    two.rescue(all_of("history"))
    assert {row["id"] for row in two.now_rows("history")} == {*range(1, 9), 99}
    with pytest.raises(Exception, match="append-only"):
        two.spoil("DELETE FROM history")


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["stop", "take-past", "keep-current", "skip"])
def test_a_changed_row_of_an_append_only_table_is_a_conflict_that_no_policy_writes_over(
    two: Two, policy: Policy
) -> None:
    two.spoil(
        "ALTER TABLE history DISABLE TRIGGER append_only; UPDATE history SET what = 'forged' WHERE id = 2; "
        "DELETE FROM history WHERE id = 3; ALTER TABLE history ENABLE TRIGGER append_only"
    )
    plan = two.planned(all_of("history", policy))
    (conflict,) = plan.conflicts
    assert (conflict.kind, conflict.rows, conflict.examples) == ("refused", 1, ("2",))
    assert "history is append-only" in conflict.detail
    if policy in ("stop", "take-past"):
        with pytest.raises(RecoveryError, match="1 rows conflict with current rows"):
            two.rescue(all_of("history", policy))
        assert len(two.now_rows("history")) == 7
    else:
        two.rescue(all_of("history", policy))
        assert [row["what"] for row in two.now_rows("history")][1:3] == ["forged", "event 3"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "name_now", "models_back"),
    [("keep-current", "renamed", True), ("take-past", "person 3", True), ("skip", "renamed", False)],
)
def test_a_row_that_exists_with_other_content_is_resolved_by_the_policy(
    two: Two, policy: Policy, name_now: str, models_back: bool
) -> None:
    two.spoil("DELETE FROM models WHERE owner = 3; UPDATE people SET name = 'renamed' WHERE id = 3")
    with pytest.raises(RecoveryError, match="conflict with current rows"):
        two.rescue(PERSON_3)
    assert two.plan is not None
    assert [(one.kind, one.rows, one.becomes) for one in two.plan.conflicts] == [("changed", 1, None)]
    two.rescue(Selection(PERSON_3.rows, policy=policy))
    assert two.value("SELECT name FROM people WHERE id = 3") == name_now
    assert two.is_as_then("models", "parts") is models_back


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["keep-current", "skip"])
def test_a_unique_value_taken_since_leaves_the_row_out_with_what_needs_it(two: Two, policy: Policy) -> None:
    two.spoil(
        "DELETE FROM models WHERE alias = 'Alias-27'; "
        "INSERT INTO models (id, owner, alias) VALUES (md5('new')::uuid, 4, 'ALIAS-27')"
    )
    before = two.now_rows("models")
    plan = two.planned(all_of("models"))
    (conflict,) = plan.conflicts
    assert (conflict.kind, conflict.table) == ("taken", "public.models")
    assert "one_alias" in conflict.examples[0]
    two.rescue(all_of("models", policy))
    after = two.now_rows("models")
    assert len(after) == 30
    assert all(row in after for row in before)
    assert len(two.now_rows("parts")) == 87


def test_a_row_whose_parent_is_gone_on_both_sides_is_a_conflict(two: Two) -> None:
    two.spoil(
        "DELETE FROM lines; CREATE TABLE numbers (n integer PRIMARY KEY); INSERT INTO numbers VALUES (1), (2); "
        "ALTER TABLE lines ADD FOREIGN KEY (n) REFERENCES numbers"
    )
    plan = two.planned(all_of("lines"))
    assert [(one.kind, one.rows) for one in plan.conflicts] == [("orphan", 4)]
    two.rescue(all_of("lines", "skip"))
    assert [row["n"] for row in two.now_rows("lines")] == [1, 2, 1, 1, 1, 1]


@pytest.mark.slow
def test_a_trigger_that_changes_rows_stops_the_rescue_until_it_is_accepted(two: Two) -> None:
    two.spoil(
        "DELETE FROM lines WHERE n = 2; CREATE FUNCTION loud() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.name = upper(NEW.name); RETURN NEW; END $$; DELETE FROM people WHERE id = 12; "
        "CREATE TRIGGER loud BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION loud()"
    )
    chosen = (TableRows("people", key=("12",)),)
    assert two.planned(Selection(chosen)).tables[0].fires == ("loud (before, public.loud)",)
    with pytest.raises(RecoveryError, match=r"1 rows of public.people would differ from the past in name.*loud"):
        two.rescue(Selection(chosen))
    assert len(two.now_rows("people")) == 11
    rescued = two.rescue(Selection(chosen, accept_triggers=True))
    assert (rescued.tables["public.people"].altered, rescued.tables["public.people"].altered_columns) == (1, ("name",))
    assert two.value("SELECT name FROM people WHERE id = 12") == "PERSON 12"


def test_a_trigger_that_leaves_rows_out_is_noticed(two: Two) -> None:
    two.spoil(
        "DELETE FROM people WHERE id = 12; CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RETURN NULL; END $$; "
        "CREATE TRIGGER nothing BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION nothing()"
    )
    with pytest.raises(RecoveryError, match="was 1 inserts and 0 updates, but the server did 0 and 0"):
        two.rescue(Selection((TableRows("people", key=("12",)),), with_children=False))


def test_what_changes_between_plan_and_deed_stops_the_deed(two: Two) -> None:
    two.spoil("UPDATE people SET name = 'renamed ' || id WHERE id IN (3, 12)")
    with both_sides(two.past, two.now) as sides:
        plan = plan_rescue(sides, all_of("people", "take-past"), "then", SilentReport())
        two.spoil("UPDATE people SET name = 'renamed again' WHERE id = 12")
        with pytest.raises(RecoveryError, match="have changed since the plan"):
            execute_rescue(sides, plan, SilentReport())
    assert two.value("SELECT name FROM people WHERE id = 3") == "renamed 3"
    two.spoil("DELETE FROM lines WHERE n = 6")
    with both_sides(two.past, two.now) as sides:
        plan = plan_rescue(sides, all_of("lines"), "then", SilentReport())
        two.spoil("ALTER TABLE lines ADD COLUMN more text")
        with pytest.raises(RecoveryError, match=r"definition of public\.lines has changed"):
            execute_rescue(sides, plan, SilentReport())


def test_others_may_go_on_writing_to_the_table_while_a_rescue_is_under_way(two: Two) -> None:
    two.spoil("DELETE FROM people WHERE id = 3")

    class WhileWriting(SilentReport):
        def note(self, message: str) -> None:
            raise AssertionError

    with both_sides(two.past, two.now) as sides, connect(two.now) as application:
        plan = plan_rescue(sides, Selection(PERSON_3.rows, policy="take-past"), "then", SilentReport())
        with sides.now.transaction():
            execute_rescue(sides, plan, WhileWriting())
            application.execute("SET lock_timeout = '5s'")
            application.execute("INSERT INTO people (id, name) VALUES (500, 'meanwhile')")
            application.execute("UPDATE people SET name = 'meanwhile, too' WHERE id = 12")
    assert two.value("SELECT count(*) FROM people") == 13


def test_columns_added_since_get_their_default_and_lost_ones_are_named(two: Two) -> None:
    two.spoil("DELETE FROM lines WHERE n = 5; ALTER TABLE lines ADD COLUMN more text DEFAULT 'new'")
    plan = two.planned(all_of("lines"))
    assert plan.notes[0] == "New columns of public.lines get their defaults in inserted rows: more."
    two.rescue(all_of("lines"))
    assert two.value("SELECT more FROM lines WHERE n = 5") == "new"
    two.spoil("ALTER TABLE lines ALTER COLUMN more SET NOT NULL, ALTER COLUMN more DROP DEFAULT; DELETE FROM lines")
    (barrier,) = two.planned(all_of("lines")).barriers
    assert "new NOT NULL columns without a default: more" in barrier.what
    with pytest.raises(RecoveryError, match="without a default"):
        two.rescue(all_of("lines"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (TableRows("nowhere"), "no table nowhere"),
        (TableRows("people", where="id = "), "cannot select the rows of people where id = "),
        (TableRows("people", where="true; DELETE FROM people"), "cannot select"),
        (TableRows("people", key=("3", "4")), r"2 key values were given, but the key of public.people is \(id\)"),
        (TableRows("people", key=("three",)), "cannot select the row three of people"),
        (TableRows("people", key=("333",)), "No rows at that moment match: the row 333 of people"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(two: Two, rows: TableRows, said: str) -> None:
    with pytest.raises(RecoveryError, match=said):
        two.planned(Selection((rows,)))
