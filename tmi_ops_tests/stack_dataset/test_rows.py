"""What the generated rows promise, before any database sees them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from sqlalchemy import UniqueConstraint

from tmi_ops.schema.models import Base
from tmi_ops.stack.dataset.chance import FIRST_BASE, Calendar, Chance
from tmi_ops.stack.dataset.plan import plan_dataset
from tmi_ops.stack.dataset.rows import generate
from tmi_ops.stack.dataset.world import Row, Rows
from tmi_ops_tests.stack_dataset.conftest import SMALL, all_rows

TABLES = Base.metadata.tables


def digest(seed: int, size: int = 0) -> str:
    content = hashlib.sha256()
    for batch in generate(plan_dataset(size, seed)):
        content.update(repr(dict(batch)).encode())
    return content.hexdigest()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_rows_and_another_seed_gives_others() -> None:
    assert digest(seed=1) == digest(seed=1)
    assert digest(seed=1) != digest(seed=2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 7, 99, 2**40])
def test_even_the_smallest_data_set_has_rows_in_every_table(seed: int) -> None:
    assert set(all_rows(plan_dataset(0, seed))) == set(TABLES)


def test_every_column_is_filled_in_some_row_and_no_table_has_a_column_the_models_do_not_know(small_rows: Rows) -> None:
    for name, table in TABLES.items():
        filled = {column for row in small_rows[name] for column, value in row.items() if value is not None}
        assert filled == set(table.columns.keys()), name


def test_every_batch_refers_only_to_rows_of_its_own_or_of_earlier_batches() -> None:
    known: dict[tuple[str, str], set[object]] = {}
    for batch in generate(plan_dataset(SMALL, seed=1)):
        for table in TABLES.values():
            for key in {key.column for key in foreign_keys()}:
                if key.table is table:
                    known.setdefault((table.name, key.name), set()).update(row[key.name] for row in batch[table.name])
        for key in foreign_keys():
            referred = {row[key.parent.name] for row in batch[key.parent.table.name]} - {None}
            assert referred <= known[key.column.table.name, key.column.name], key


def foreign_keys() -> list:
    return [key for table in TABLES.values() for key in table.foreign_keys]


def test_no_two_rows_share_a_key_that_must_be_unique(small_rows: Rows) -> None:
    for name, table in TABLES.items():
        keys = [index.columns.keys() for index in table.indexes if index.unique]
        keys += [c.columns.keys() for c in table.constraints if isinstance(c, UniqueConstraint)]
        for columns in [table.primary_key.columns.keys(), *keys]:
            values = Counter(tuple(row[column] for column in columns) for row in small_rows[name])
            whole = {value: count for value, count in values.items() if None not in value}
            assert max(whole.values()) == 1, (name, columns)


def test_nothing_changes_before_it_was_made_and_nothing_is_later_than_the_seeds_own_last_day(small_rows: Rows) -> None:
    last_day = FIRST_BASE + timedelta(days=1)
    for rows in small_rows.values():
        for row in rows:
            if "created_at" in row and "modified_at" in row:
                assert row["created_at"] <= row["modified_at"], row
            for column in ("created_at", "modified_at", "joined_at", "last_login"):
                if row.get(column):
                    assert datetime.fromisoformat(str(row[column])) <= last_day + timedelta(days=1)


def test_the_last_day_follows_from_the_seed() -> None:
    ends = {Calendar(seed, Chance(seed)).stamp(Calendar(seed, Chance(seed)).end)[:10] for seed in (0, 1, 365)}
    assert ends == {"2025-03-01", "2025-03-02"}


def test_flows_join_shapes_of_their_own_diagram_and_threats_sit_on_a_cell_of_theirs(small_rows: Rows) -> None:
    cells = {row["id"]: json.loads(str(row["cells"])) for row in small_rows["diagrams"]}
    for diagram in cells.values():
        shapes = {cell["id"] for cell in diagram if cell["shape"] != "edge"}
        assert len({cell["id"] for cell in diagram}) == len(diagram)
        for cell in diagram:
            if cell["shape"] == "edge":
                assert {cell["source"]["cell"], cell["target"]["cell"]} <= shapes
            else:
                assert cell["width"] > 0
                assert cell["attrs"]["text"]["text"]
                assert cell.get("parent") in {None, *shapes}
    on_diagram = [row for row in small_rows["threats"] if row["diagram_id"]]
    assert on_diagram
    for row in on_diagram:
        assert row["cell_id"] in {cell["id"] for cell in cells[row["diagram_id"]]}


def test_a_version_snapshot_belongs_to_its_audit_entry_and_every_tenth_is_whole(small_rows: Rows) -> None:
    entries = {row["id"]: row for row in small_rows["audit_entries"]}
    for row in small_rows["version_snapshots"]:
        entry = entries[row["audit_entry_id"]]
        assert (entry["object_id"], entry["version"]) == (row["object_id"], row["version"])
        whole = row["version"] % 10 == 0
        assert row["snapshot_type"] == ("checkpoint" if whole else "diff")
        assert isinstance(json.loads(str(row["data"])), dict if whole else list)


def test_the_alias_counters_are_one_beyond_the_last_alias(small_rows: Rows) -> None:
    counters = {(row["parent_id"], row["object_type"]): row["next_alias"] for row in small_rows["alias_counters"]}
    assert counters["__global__", "threat_model"] == max(row["alias"] for row in small_rows["threat_models"]) + 1
    aliases: dict[object, list[int]] = {}
    for row in small_rows["threats"]:
        aliases.setdefault(row["threat_model_id"], []).append(row["alias"])
    for model, used in aliases.items():
        assert all(later == earlier + 1 for earlier, later in pairwise(used))
        assert counters[model, "threat"] == used[-1] + 1


def test_an_access_list_has_one_owner_and_names_either_a_user_or_a_group(small_rows: Rows) -> None:
    owners: Counter[object] = Counter()
    for row in small_rows["threat_model_access"]:
        assert (row["user_internal_uuid"] is None) != (row["group_internal_uuid"] is None)
        assert row["subject_type"] == ("user" if row["user_internal_uuid"] else "group")
        owners[row["threat_model_id"]] += row["role"] == "owner"
    assert set(owners.values()) == {1}


def test_survey_answers_are_those_of_the_response_to_the_questions_of_its_template(small_rows: Rows) -> None:
    responses: dict[object, Row] = {row["id"]: row for row in small_rows["survey_responses"]}
    for answer in small_rows["survey_answers"]:
        response = responses[answer["response_id"]]
        assert json.loads(str(response["answers"]))[answer["question_name"]] == json.loads(str(answer["answer_value"]))
        assert str(answer["question_title"]) in str(response["survey_json"])
