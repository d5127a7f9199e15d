from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError
from tmi_ops.schema.migration import MigrationResult, migrate, plan_migration
from tmi_ops.schema.operations import (
    AddColumn,
    AddConstraint,
    AddPrimaryKey,
    BuildIndex,
    CreateDatabase,
    CreateTable,
    InsertSeed,
    RequireValue,
    SetDefault,
    ValidateConstraint,
)
from tmi_ops.schema.rendering import script
from tmi_ops.schema.validation import validate_schema
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.schema.conftest import A_THREAT_MODEL, Recorder, add_threats, ask, run

pytestmark = pytest.mark.slow


@pytest.fixture
def absent(server: PostgresSettings) -> Iterator[PostgresSettings]:
    """The address of a database that does not exist; whatever a test makes of it is dropped."""
    name = f"tmi-Absent {secrets.token_hex(4)}"
    yield server.model_copy(update={"database": name})
    run(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def test_a_missing_database_is_created_filled_seeded_and_valid(absent: PostgresSettings, report: Recorder) -> None:
    result = migrate(absent, report)
    assert result.created_database
    assert result.seeded_rows == 41
    assert result.validation.ok
    assert result.validation.at("WARN") == ()
    assert result.blocked == ()
    assert ask(absent, "SHOW server_encoding") == [("UTF8",)]


def test_a_second_run_plans_nothing_and_does_nothing(migrated: PostgresSettings, report: Recorder) -> None:
    assert plan_migration(migrated).empty
    assert migrate(migrated, report).operations == ()


def test_planning_writes_nothing_not_even_the_database(absent: PostgresSettings, server: PostgresSettings) -> None:
    plan = plan_migration(absent)
    assert isinstance(plan.operations[0], CreateDatabase)
    assert sum(isinstance(one, CreateTable) for one in plan.operations) == 52
    assert ask(server, f"SELECT FROM pg_database WHERE datname = '{absent.database}'") == []


def test_the_printed_script_run_by_hand_gives_the_same_database(database: PostgresSettings) -> None:
    run(database, script(plan_migration(database)))
    assert plan_migration(database).empty
    assert validate_schema(database).at("WARN") == ()


def test_without_seeding_no_row_is_inserted_and_none_is_planned(database: PostgresSettings, report: Recorder) -> None:
    result = migrate(database, report, seed=False)
    assert set(result.validation.tables.values()) == {0}
    assert plan_migration(database, seed=False).empty


def test_seed_rows_that_were_changed_stay_changed_and_removed_ones_come_back(
    migrated: PostgresSettings, report: Recorder
) -> None:
    run(
        migrated,
        "UPDATE groups SET name = 'Everybody' WHERE group_name = 'everyone'",
        "DELETE FROM webhook_url_deny_list WHERE pattern = '::1'",
    )
    assert migrate(migrated, report).seeded_rows == 1
    assert ask(migrated, "SELECT name FROM groups WHERE group_name = 'everyone'") == [("Everybody",)]
    assert ask(migrated, "SELECT description, created_at IS NULL FROM webhook_url_deny_list WHERE pattern = '::1'") == [
        ("Block IPv6 loopback", False)
    ]


def test_a_seed_row_that_exists_under_another_key_is_not_inserted_again(
    unseeded: PostgresSettings, report: Recorder
) -> None:
    run(
        unseeded,
        "INSERT INTO groups (internal_uuid, provider, group_name, first_used, last_used) "
        "VALUES ('mine', 'tmi', 'everyone', now(), now())",
    )
    migrate(unseeded, report)
    assert ask(unseeded, "SELECT internal_uuid FROM groups WHERE group_name = 'everyone'") == [("mine",)]


def test_of_two_migrations_at_once_one_waits_and_neither_fails(database: PostgresSettings) -> None:
    results: list[MigrationResult] = []
    failures: list[Exception] = []
    start = threading.Barrier(2)

    def work() -> None:
        try:
            start.wait()
            results.append(migrate(database, Recorder()))
        except Exception as error:  # noqa: BLE001  (handed to the test)
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(len(result.operations) for result in results) == [0, 55]
    assert all(result.validation.ok for result in results)


def test_of_two_that_create_the_database_neither_fails(absent: PostgresSettings) -> None:
    failures: list[Exception] = []

    def work() -> None:
        try:
            migrate(absent, Recorder())
        except Exception as error:  # noqa: BLE001  (handed to the test)
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert validate_schema(absent).at("WARN") == ()


LOSSES = (
    "DROP TABLE timmy_usage, timmy_messages, timmy_sessions",
    "DROP TABLE survey_responses CASCADE",
    "ALTER TABLE threats DROP COLUMN cvss",
    "ALTER TABLE users DROP COLUMN internal_uuid CASCADE",
    "ALTER TABLE users ALTER COLUMN email DROP NOT NULL",
    "ALTER TABLE teams ALTER COLUMN version DROP DEFAULT",
    "ALTER TABLE alias_counters DROP CONSTRAINT alias_counters_pkey",
    "DROP INDEX idx_users_provider_lookup, idx_users_email",
    "ALTER TABLE notes DROP CONSTRAINT fk_notes_threat_model",
    "ALTER TABLE team_notes DROP CONSTRAINT fk_team_notes_team",
    "ALTER TABLE diagrams DROP CONSTRAINT chk_diagrams_type",
)


def test_whatever_a_schema_without_rows_lost_is_added_back_and_then_nothing_is_left_to_do(
    unseeded: PostgresSettings, report: Recorder
) -> None:
    run(unseeded, *LOSSES)
    result = migrate(unseeded, report)
    assert {type(one) for one in result.operations} == {
        AddColumn,
        AddConstraint,
        AddPrimaryKey,
        BuildIndex,
        CreateTable,
        InsertSeed,
        RequireValue,
        SetDefault,
        ValidateConstraint,
    }
    assert result.validation.at("ERROR") == ()
    assert result.validation.at("WARN") == ()
    assert result.blocked == ()
    assert plan_migration(unseeded).empty


def test_a_column_with_a_constant_default_comes_to_a_table_with_rows_without_rewriting_it(
    migrated: PostgresSettings, report: Recorder
) -> None:
    run(migrated, *A_THREAT_MODEL, "ALTER TABLE threat_models DROP COLUMN version")
    before = ask(migrated, "SELECT pg_relation_filenode('threat_models')")
    migrate(migrated, report)
    assert ask(migrated, "SELECT version FROM threat_models") == [(1,)]
    assert ask(migrated, "SELECT pg_relation_filenode('threat_models')") == before
    assert plan_migration(migrated).empty


def test_a_required_column_without_default_comes_nullable_to_a_table_with_rows_and_is_required_once_filled(
    migrated: PostgresSettings, report: Recorder
) -> None:
    run(migrated, *A_THREAT_MODEL, "ALTER TABLE threat_models DROP COLUMN created_by_internal_uuid")

    plan = plan_migration(migrated)
    assert AddColumn("threat_models", "created_by_internal_uuid", required=False) in plan.operations
    assert [one.name for one in plan.blocked] == ["created_by_internal_uuid"]

    result = migrate(migrated, report)
    assert not result.validation.ok
    (blocked,) = result.blocked
    assert (blocked.rows, blocked.examples) == (1, ("id=tm1",))
    assert plan_migration(migrated).empty

    run(migrated, "UPDATE threat_models SET created_by_internal_uuid = 'u1'")
    (operation,) = plan_migration(migrated).operations
    assert operation == RequireValue("threat_models", "created_by_internal_uuid")
    assert migrate(migrated, report).validation.at("WARN") == ()
    assert ask(migrated, "SELECT conname FROM pg_constraint WHERE conname LIKE 'tmi_ops%'") == []


def test_a_proof_of_not_null_left_by_a_crash_is_replaced(migrated: PostgresSettings, report: Recorder) -> None:
    run(
        migrated,
        "ALTER TABLE users ALTER COLUMN email DROP NOT NULL",
        "ALTER TABLE users ADD CONSTRAINT tmi_ops_not_null_email CHECK (email IS NOT NULL) NOT VALID",
    )
    assert migrate(migrated, report).validation.at("WARN") == ()


def test_rows_that_violate_a_check_leave_it_not_valid_are_reported_and_planned_for_once_corrected(
    made_by_gorm: PostgresSettings, report: Recorder
) -> None:
    add_threats(made_by_gorm, t1="High", t2="awful", t3="dire")
    rows = ask(made_by_gorm, "SELECT * FROM threats ORDER BY id")

    result = migrate(made_by_gorm, report)
    assert not result.validation.ok
    (blocked,) = result.blocked
    assert (blocked.table, blocked.name, blocked.rows) == ("threats", "chk_threats_severity", 2)
    assert blocked.examples == ("id=t2", "id=t3")
    assert ask(made_by_gorm, "SELECT conname FROM pg_constraint WHERE NOT convalidated") == [("chk_threats_severity",)]
    assert ask(made_by_gorm, "SELECT * FROM threats ORDER BY id") == rows

    # Nothing is planned while the rows stand in the way, and the plan says why.
    plan = plan_migration(made_by_gorm)
    assert plan.empty
    assert plan.blocked == result.blocked

    run(made_by_gorm, "UPDATE threats SET severity = 'Critical' WHERE id IN ('t2', 't3')")
    assert plan_migration(made_by_gorm).operations == (ValidateConstraint("threats", "chk_threats_severity"),)
    assert migrate(made_by_gorm, report).blocked == ()
    assert ask(made_by_gorm, "SELECT conname FROM pg_constraint WHERE NOT convalidated") == []
    assert plan_migration(made_by_gorm).empty


def test_rows_that_refer_to_nothing_leave_the_foreign_key_not_valid(
    migrated: PostgresSettings, report: Recorder
) -> None:
    run(
        migrated,
        "ALTER TABLE notes DROP CONSTRAINT fk_notes_threat_model",
        "INSERT INTO notes (id, threat_model_id, name, content, created_at, modified_at) "
        "VALUES ('n1', 'gone', 'n', 'c', now(), now())",
    )
    (blocked,) = migrate(migrated, report).blocked
    assert (blocked.name, blocked.rows, blocked.examples) == ("fk_notes_threat_model", 1, ("id=n1",))
    assert plan_migration(migrated).empty
    run(migrated, "DELETE FROM notes")
    assert migrate(migrated, report).validation.at("WARN") == ()


def test_duplicates_keep_a_unique_index_from_being_built_and_are_named_by_key_not_by_value(
    migrated: PostgresSettings, report: Recorder
) -> None:
    run(
        migrated,
        *A_THREAT_MODEL,
        "DROP INDEX idx_refresh_tokens_token",
        *(
            "INSERT INTO refresh_tokens (id, user_internal_uuid, token, expires_at, created_at) "
            f"VALUES ('r{number}', 'u1', 'secret-token', now(), now())"
            for number in (1, 2)
        ),
    )
    result = migrate(migrated, report)
    (blocked,) = result.blocked
    assert (blocked.name, blocked.rows, blocked.examples) == ("idx_refresh_tokens_token", 2, ("id=r1 and r2",))
    assert "secret-token" not in repr(result)
    assert not result.validation.ok
    assert plan_migration(migrated).empty


def test_duplicates_that_only_show_during_the_build_leave_no_invalid_index_behind(
    migrated: PostgresSettings, report: Recorder
) -> None:
    second = (
        "INSERT INTO threat_models (id, owner_internal_uuid, name, created_by_internal_uuid, alias, created_at, "
        "modified_at) VALUES ('tm2', 'u1', 'Bank', 'u1', 1, now(), now())"
    )
    # The column comes back with its default in every row, so its unique index cannot be built.
    run(migrated, *A_THREAT_MODEL, second, "ALTER TABLE threat_models DROP COLUMN alias")
    result = migrate(migrated, report)
    assert any("uniq_threat_models_alias" in note for note in report.notes)
    assert [one.name for one in result.blocked] == ["uniq_threat_models_alias"]
    assert ask(migrated, "SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid") == []
    assert plan_migration(migrated).empty


def test_differences_that_adding_cannot_mend_are_left_alone_and_explained(
    migrated: PostgresSettings, report: Recorder
) -> None:
    run(
        migrated,
        "ALTER TABLE users ALTER COLUMN email TYPE varchar(100)",
        "ALTER TABLE teams ALTER COLUMN version SET DEFAULT 2",
        "ALTER TABLE notes ALTER COLUMN description SET NOT NULL",
        "DROP INDEX idx_users_email",
        "CREATE INDEX idx_users_email ON users (lower(email))",
        "CREATE TABLE visitors (id int)",
    )
    result = migrate(migrated, report)
    assert result.operations == ()
    remedies = {one.name: one.remedy for one in result.blocked}
    assert remedies["email"] == "ALTER TABLE users ALTER COLUMN email TYPE varchar(320)"
    assert remedies["version"] == "ALTER TABLE teams ALTER COLUMN version SET DEFAULT 1"
    assert remedies["description"] == "ALTER TABLE notes ALTER COLUMN description DROP NOT NULL"
    assert remedies["idx_users_email"].startswith("ALTER INDEX idx_users_email RENAME TO idx_users_email_old")
    assert ask(migrated, "SELECT to_regclass('visitors') IS NOT NULL") == [(True,)]


def test_only_what_is_missing_is_planned(migrated: PostgresSettings) -> None:
    run(
        migrated,
        "DROP INDEX idx_users_email",
        "ALTER TABLE teams ALTER COLUMN version DROP DEFAULT",
        "ALTER TABLE alias_counters DROP CONSTRAINT alias_counters_pkey",
        "DELETE FROM users",
    )
    operations = plan_migration(migrated).operations
    assert [type(one) for one in operations] == [SetDefault, AddPrimaryKey, BuildIndex, InsertSeed]


def test_a_role_that_may_not_create_is_told_what_to_grant(database: PostgresSettings, report: Recorder) -> None:
    role = f"{database.database}_app"
    run(database, f"CREATE ROLE {role} LOGIN PASSWORD 'app-of-tests'")
    run(database, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # as it is from 15 on
    try:
        app = database.model_copy(update={"user": role, "password": SecretStr("app-of-tests")})
        grant = f"GRANT CREATE, USAGE ON SCHEMA public TO {role}"
        assert [grant in one.remedy for one in plan_migration(app).lacking] == [True]
        with pytest.raises(DatabaseError, match=grant):
            migrate(app, report)
        absent = app.model_copy(update={"database": "another_one"})
        assert [f"ALTER ROLE {role} CREATEDB" in one.remedy for one in plan_migration(absent).lacking] == [True]
        with pytest.raises(DatabaseError, match=f"ALTER ROLE {role} CREATEDB"):
            migrate(absent, report)
    finally:
        run(database, f"DROP ROLE {role}")


def test_a_role_that_does_not_own_what_must_be_altered_begins_nothing(
    migrated: PostgresSettings, report: Recorder
) -> None:
    role = f"{migrated.database}_app"
    run(migrated, f"CREATE ROLE {role} LOGIN PASSWORD 'app-of-tests'; GRANT ALL ON SCHEMA public TO {role}")
    run(migrated, f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO {role}; DROP INDEX idx_threats_tm_modified")
    run(migrated, "ALTER TABLE teams ALTER COLUMN version DROP DEFAULT")
    app = migrated.model_copy(update={"user": role, "password": SecretStr("app-of-tests")})
    try:
        assert [one.table for one in plan_migration(app).lacking] == ["teams", "threats"]
        with pytest.raises(DatabaseError, match=f"teams: It belongs to .* so {role} may not alter it") as refused:
            migrate(app, report)
        assert refused.value.code is Code.MIGRATION_RIGHTS
        assert plan_migration(migrated).lacking == ()
    finally:
        run(migrated, f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_wrong_password_is_said_once_and_nothing_is_created(server: PostgresSettings, report: Recorder) -> None:
    wrong = server.model_copy(update={"password": SecretStr("not-it"), "database": "never_made"})
    with pytest.raises(DatabaseError, match="password authentication failed") as caught:
        migrate(wrong, report)
    assert "not-it" not in str(caught.value)
    assert ask(server, "SELECT FROM pg_database WHERE datname = 'never_made'") == []


def test_a_step_that_fails_says_what_is_done_and_the_next_run_continues(
    database: PostgresSettings, report: Recorder
) -> None:
    # A view has the name of a table that is created late.
    run(database, "CREATE VIEW webhook_subscriptions AS SELECT 1 AS one")
    with pytest.raises(DatabaseError, match=r"Step \d+ of 55 .create table webhook_subscriptions.*remain done"):
        migrate(database, report)
    run(database, "DROP VIEW webhook_subscriptions")
    result = migrate(database, report)
    assert 0 < len(result.operations) < 55
    assert result.validation.at("WARN") == ()
