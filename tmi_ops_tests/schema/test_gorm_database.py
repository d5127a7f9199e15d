from __future__ import annotations

import pytest

from tmi_ops.schema.migration import migrate, plan_migration
from tmi_ops.schema.operations import AddConstraint, BuildIndex, InsertSeed, ValidateConstraint
from tmi_ops.schema.rendering import script
from tmi_ops.schema.validation import Validation, validate_schema
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.schema.conftest import Recorder, add_threats, ask
from tmi_ops_tests.schema.facts import GUIDE_INDEX_NAMES

CHECKS = {
    "chk_threat_models_threat_model_framework",
    "chk_threat_model_access_role",
    "chk_survey_response_access_role",
    "chk_threats_severity",
    "chk_threats_likelihood",
    "chk_threats_risk_level",
    "chk_diagrams_type",
}


def test_a_database_made_by_gorm_passes_with_its_missing_checks_and_extra_objects_as_warnings(
    made_by_gorm_once: PostgresSettings,
) -> None:
    validation = validate_schema(made_by_gorm_once)
    assert validation.ok
    assert validation.at("ERROR") == ()
    assert objects(validation, "WARN", "missing_check") == CHECKS
    assert {(one.rule, one.table, one.object) for one in validation.at("WARN") if one.rule != "missing_check"} == {
        ("extra_table", "tmi_schema_versions", None),
        ("extra_object", None, "threat_model_alias_seq"),
        ("extra_object", None, "tmi_schema_versions_id_seq"),
        ("extra_object", None, "triage_notes_id_seq"),
        ("extra_object", "audit_entries", "audit_entries_append_only"),
    }


def test_indexes_under_gorms_names_stand_for_the_models_and_are_reported_as_information(
    made_by_gorm_once: PostgresSettings,
) -> None:
    validation = validate_schema(made_by_gorm_once)
    renamed = set(GUIDE_INDEX_NAMES.values()) | {"idx_webhook_deny_pattern"}
    assert objects(validation, "INFO", "other_name") == renamed
    called = {one.object: one.message for one in validation.findings if one.rule == "other_name"}
    assert "uni_webhook_url_deny_list_pattern" in called["idx_webhook_deny_pattern"]


def test_a_key_that_gorm_lets_a_sequence_number_is_no_difference_of_the_column(
    made_by_gorm_once: PostgresSettings,
) -> None:
    validation = validate_schema(made_by_gorm_once)
    assert not [one for one in validation.findings if one.rule.startswith("column_")]
    (sequence,) = [one for one in validation.findings if one.object == "triage_notes_id_seq"]
    assert "that numbers triage_notes.id" in sequence.message


def test_rows_that_would_violate_a_missing_check_are_counted_in_its_warning(made_by_gorm: PostgresSettings) -> None:
    add_threats(made_by_gorm, t1="High", t2="high", t3="CRITICAL")
    (finding,) = [one for one in validate_schema(made_by_gorm).findings if one.object == "chk_threats_severity"]
    assert "2 rows (such as id=t2, id=t3)" in finding.message


@pytest.mark.slow
def test_migrating_it_adds_the_checks_and_the_seed_and_touches_nothing_else(
    made_by_gorm: PostgresSettings, report: Recorder
) -> None:
    before = catalogue(made_by_gorm)
    result = migrate(made_by_gorm, report)
    assert {type(one) for one in result.operations} == {AddConstraint, ValidateConstraint, InsertSeed}
    assert before <= catalogue(made_by_gorm)
    assert {name for kind, name in catalogue(made_by_gorm) - before} == CHECKS
    assert result.validation.ok
    assert objects(result.validation, "WARN", "missing_check") == set()
    assert ask(made_by_gorm, "SELECT count(*) FROM pg_constraint WHERE contype IN ('c', 'f') AND NOT convalidated") == [
        (0,)
    ]


@pytest.mark.slow
def test_after_that_there_is_nothing_to_plan(made_by_gorm: PostgresSettings, report: Recorder) -> None:
    migrate(made_by_gorm, report)
    plan = plan_migration(made_by_gorm)
    assert plan.empty
    assert plan.blocked == ()
    assert script(plan) == ""


def test_no_index_is_built_beside_one_that_serves_under_another_name(made_by_gorm_once: PostgresSettings) -> None:
    assert not [one for one in plan_migration(made_by_gorm_once).operations if isinstance(one, BuildIndex)]


def catalogue(postgres: PostgresSettings) -> set[tuple[str, str]]:
    rows = ask(
        postgres,
        """
        SELECT relkind::text, relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
        UNION ALL SELECT 'constraint', conname::text FROM pg_constraint
                  WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f')
        UNION ALL SELECT 'trigger', tgname::text FROM pg_trigger WHERE NOT tgisinternal
        """,
    )
    return {(kind, name) for kind, name in rows}


def objects(validation: Validation, level: str, rule: str) -> set[str | None]:
    return {one.object for one in validation.findings if (one.level, one.rule) == (level, rule)}
