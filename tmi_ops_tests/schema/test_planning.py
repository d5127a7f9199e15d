"""Decisions and their rendering, without a server."""

from __future__ import annotations

import pytest
from sqlalchemy import CheckConstraint

from tmi_ops.schema.catalog import LiveSchema
from tmi_ops.schema.column_comparison import ColumnComparison, NullabilityDifference, plain_default
from tmi_ops.schema.conflicts import Conflict
from tmi_ops.schema.migration_plan import plan_from
from tmi_ops.schema.models import Base
from tmi_ops.schema.operations import (
    AddColumn,
    AddConstraint,
    AddPrimaryKey,
    BuildIndex,
    CreateDatabase,
    CreateTable,
    InsertSeed,
    Operation,
    RequireValue,
    SetDefault,
    ValidateConstraint,
)
from tmi_ops.schema.rendering import render, script
from tmi_ops.schema.seed import seed_rows
from tmi_ops.schema.state import SchemaState, state_of_a_missing_database
from tmi_ops.schema.structure import CheckMatch, ForeignKeyMatch, IndexMatch, Structure

NOTHING = LiveSchema(server_version="17", database="tmi", database_size=0, schema="public")
CHECK = CheckMatch("threats", "chk_threats_severity", "severity", ("Low",), "missing")
KEY = ForeignKeyMatch(
    "notes", "fk_notes_threat_model", ("threat_model_id",), "threat_models", ("id",), "NO ACTION", "missing"
)
INDEX = IndexMatch("users", "idx_users_provider_lookup", ("provider", "provider_user_id"), True, "missing")


def state(columns: ColumnComparison | None = None, structure: Structure | None = None, **more: object) -> SchemaState:
    return SchemaState(NOTHING, columns or ColumnComparison(), structure or Structure(), **more)  # type: ignore[arg-type]


def test_a_state_without_differences_plans_nothing() -> None:
    assert plan_from(state()).empty


def test_a_table_comes_after_every_table_it_refers_to() -> None:
    created = [
        one.table for one in plan_from(state_of_a_missing_database("tmi")).operations if isinstance(one, CreateTable)
    ]
    for position, name in enumerate(created):
        for key in Base.metadata.tables[name].foreign_key_constraints:
            assert created.index(key.referred_table.name) <= position


def test_steps_come_in_the_order_in_which_each_finds_what_it_needs() -> None:
    plan = plan_from(
        state(
            ColumnComparison(missing_tables=("timmy_usage",), missing_columns=(("threats", "severity"),)),
            Structure(indexes=(INDEX,), foreign_keys=(KEY,), checks=(CHECK,)),
            absent_seed=seed_rows(),
        )
    )
    assert [type(one) for one in plan.operations] == [
        AddColumn,
        CreateTable,
        BuildIndex,
        AddConstraint,
        AddConstraint,
        ValidateConstraint,
        ValidateConstraint,
        InsertSeed,
        InsertSeed,
        InsertSeed,
    ]


def test_a_constraint_that_rows_violate_is_added_but_not_validated() -> None:
    conflict = Conflict("threats", "chk_threats_severity", "value", 2, ("id=1", "id=2"))
    plan = plan_from(state(structure=Structure(checks=(CHECK,)), conflicts=(conflict,)))
    assert plan.operations == (AddConstraint("threats", "chk_threats_severity"),)
    assert [(one.name, one.rows) for one in plan.blocked] == [("chk_threats_severity", 2)]


@pytest.mark.parametrize(
    ("column", "filled", "required"),
    [
        (("threats", "threat_type"), False, True),
        (("threats", "threat_type"), True, False),
        (("threats", "version"), True, True),
        (("threats", "cvss"), False, False),
    ],
)
def test_not_null_is_demanded_at_once_only_where_no_row_can_lack_a_value(
    column: tuple[str, str], filled: bool, required: bool
) -> None:
    filled_tables = frozenset({"threats"} if filled else ())
    plan = plan_from(state(ColumnComparison(missing_columns=(column,)), filled_tables=filled_tables))
    assert plan.operations == (AddColumn(*column, required=required),)


def test_not_null_waits_while_rows_hold_null() -> None:
    columns = ColumnComparison(nullability=(NullabilityDifference("users", "email", live_nullable=True),))
    assert plan_from(state(columns)).operations == (RequireValue("users", "email"),)
    conflict = Conflict("users", "email", "null", 1, ("id=1",))
    assert plan_from(state(columns, conflicts=(conflict,))).empty


EVERY_KIND: list[tuple[Operation, list[str], str]] = [
    (CreateDatabase("my tmi"), ["CREATE DATABASE \"my tmi\" ENCODING 'UTF8' TEMPLATE template0"], "none"),
    (
        AddColumn("threats", "version", required=True),
        ["ALTER TABLE threats ADD COLUMN version BIGINT DEFAULT 1 NOT NULL"],
        "ACCESS EXCLUSIVE",
    ),
    (
        SetDefault("threat_models", "status"),
        ["ALTER TABLE threat_models ALTER COLUMN status SET DEFAULT 'not_started'"],
        "ACCESS EXCLUSIVE",
    ),
    (
        RequireValue("users", "email"),
        [
            "ALTER TABLE users DROP CONSTRAINT IF EXISTS tmi_ops_not_null_email, "
            "ADD CONSTRAINT tmi_ops_not_null_email CHECK (email IS NOT NULL) NOT VALID",
            "ALTER TABLE users VALIDATE CONSTRAINT tmi_ops_not_null_email",
            "ALTER TABLE users ALTER COLUMN email SET NOT NULL",
            "ALTER TABLE users DROP CONSTRAINT tmi_ops_not_null_email",
        ],
        "SHARE UPDATE EXCLUSIVE",
    ),
    (
        AddPrimaryKey("alias_counters", ("parent_id", "object_type")),
        [
            "CREATE UNIQUE INDEX CONCURRENTLY alias_counters_pkey ON alias_counters (parent_id, object_type)",
            "ALTER TABLE alias_counters ADD CONSTRAINT alias_counters_pkey PRIMARY KEY USING INDEX alias_counters_pkey",
        ],
        "SHARE UPDATE EXCLUSIVE",
    ),
    (
        BuildIndex("users", "idx_users_provider_lookup", leftover="idx_users_provider_lookup"),
        [
            "DROP INDEX CONCURRENTLY IF EXISTS idx_users_provider_lookup",
            "CREATE UNIQUE INDEX CONCURRENTLY idx_users_provider_lookup ON users (provider, provider_user_id)",
        ],
        "reads and writes go on",
    ),
    (
        AddConstraint("team_notes", "fk_team_notes_team", "teams"),
        [
            "ALTER TABLE team_notes ADD CONSTRAINT fk_team_notes_team FOREIGN KEY(team_id) "
            "REFERENCES teams (id) ON DELETE CASCADE NOT VALID"
        ],
        "SHARE ROW EXCLUSIVE on team_notes and teams: writes wait",
    ),
    (
        AddConstraint("diagrams", "chk_diagrams_type"),
        ["ALTER TABLE diagrams ADD CONSTRAINT chk_diagrams_type CHECK (type IN ('DFD-1.0.0')) NOT VALID"],
        "ACCESS EXCLUSIVE",
    ),
    (
        ValidateConstraint("diagrams", "chk_diagrams_type"),
        ["ALTER TABLE diagrams VALIDATE CONSTRAINT chk_diagrams_type"],
        "reads and writes go on",
    ),
]


@pytest.mark.parametrize(("operation", "sql", "locks"), EVERY_KIND, ids=lambda one: type(one).__name__)
def test_a_step_is_rendered_as_its_exact_sql_and_what_it_locks(
    operation: Operation, sql: list[str], locks: str
) -> None:
    step = render(operation)
    assert list(step.sql) == sql
    assert locks in step.locks


def test_rendering_leaves_the_models_as_they_are() -> None:
    before = script(plan_from(state_of_a_missing_database("tmi")))
    for table in Base.metadata.tables.values():
        for constraint in (*table.foreign_key_constraints, *table.constraints):
            if isinstance(constraint, CheckConstraint) or constraint in table.foreign_key_constraints:
                render(AddConstraint(table.name, str(constraint.name)))
    assert script(plan_from(state_of_a_missing_database("tmi"))) == before


@pytest.mark.parametrize(
    ("live", "model"),
    [
        ("'STRIDE'::character varying", "'STRIDE'"),
        ("'1'::bigint", "1"),
        ("'-1'::integer", "-1"),
        ("now()", "CURRENT_TIMESTAMP"),
        ("((0))", "0"),
        ("false", "false"),
        ("'0.5'::numeric(3,1)", "0.5"),
        ("'2'::character varying(10)", "'3'"),
    ],
)
def test_defaults_are_compared_by_meaning_not_by_writing(live: str, model: str) -> None:
    assert (plain_default(live) == plain_default(model)) is (model != "'3'")
