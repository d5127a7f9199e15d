from __future__ import annotations

import json

import pytest
from pydantic import SecretStr

from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.programs import Programs
from tmi_ops.schema.catalog import LiveTable
from tmi_ops.schema.engine import engine, snapshot
from tmi_ops.schema.findings import Deviation, find_all
from tmi_ops.schema.rules import Rule
from tmi_ops.schema.state import read_state
from tmi_ops.schema.validation import Validation, count_rows, validate_schema
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.schema.conftest import A_THREAT_MODEL, add_threats, run


def test_a_migrated_database_has_nothing_to_be_said_of(migrated_once: PostgresSettings, programs: Programs) -> None:
    validation = validate_schema(migrated_once)
    assert validation.ok
    assert validation.server_version.startswith(programs.version)
    assert validation.at("WARN") == ()
    assert len(validation.tables) == 52
    assert (validation.tables["groups"], validation.tables["users"], validation.tables["webhook_url_deny_list"]) == (
        6,
        1,
        34,
    )


# What is done to a migrated database -> the one ERROR or WARN it must give.
DAMAGE = {
    "DROP TABLE timmy_usage": ("ERROR", Rule.MISSING_TABLE, "timmy_usage", None),
    "ALTER TABLE threats DROP COLUMN cvss": ("ERROR", Rule.MISSING_COLUMN, "threats", "cvss"),
    "ALTER TABLE users ALTER COLUMN email TYPE varchar(100)": ("ERROR", Rule.COLUMN_TYPE, "users", "email"),
    "ALTER TABLE users ALTER COLUMN email TYPE text": ("WARN", Rule.COLUMN_TYPE, "users", "email"),
    "ALTER TABLE threats ALTER COLUMN score TYPE numeric(5,2)": ("ERROR", Rule.COLUMN_TYPE, "threats", "score"),
    "ALTER TABLE diagrams ALTER COLUMN cells TYPE json": ("ERROR", Rule.COLUMN_TYPE, "diagrams", "cells"),
    "ALTER TABLE users ALTER COLUMN last_login TYPE timestamp": ("ERROR", Rule.COLUMN_TYPE, "users", "last_login"),
    "ALTER TABLE notes DROP COLUMN description, ADD COLUMN description pg_lsn": (
        "ERROR",
        Rule.COLUMN_TYPE,
        "notes",
        "description",
    ),
    "ALTER TABLE notes DROP COLUMN description, ADD COLUMN description text GENERATED ALWAYS AS (name) STORED": (
        "WARN",
        Rule.COLUMN_DEFAULT,
        "notes",
        "description",
    ),
    "ALTER TABLE users ALTER COLUMN email DROP NOT NULL": ("WARN", Rule.COLUMN_NULLABILITY, "users", "email"),
    "ALTER TABLE notes ALTER COLUMN description SET NOT NULL": (
        "ERROR",
        Rule.COLUMN_NULLABILITY,
        "notes",
        "description",
    ),
    "ALTER TABLE teams ALTER COLUMN version DROP DEFAULT": ("WARN", Rule.COLUMN_DEFAULT, "teams", "version"),
    "ALTER TABLE teams ALTER COLUMN version SET DEFAULT 2": ("WARN", Rule.COLUMN_DEFAULT, "teams", "version"),
    "ALTER TABLE teams ALTER COLUMN name SET DEFAULT 'x'": ("WARN", Rule.COLUMN_DEFAULT, "teams", "name"),
    "ALTER TABLE notes DROP CONSTRAINT notes_pkey": ("ERROR", Rule.MISSING_PRIMARY_KEY, "notes", None),
    "DROP INDEX idx_users_provider_lookup": ("ERROR", Rule.MISSING_INDEX, "users", "idx_users_provider_lookup"),
    "DROP INDEX idx_users_email": ("WARN", Rule.MISSING_INDEX, "users", "idx_users_email"),
    "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_users_email'::regclass": (
        "WARN",
        Rule.INVALID_INDEX,
        "users",
        "idx_users_email",
    ),
    "DROP INDEX idx_users_email; CREATE UNIQUE INDEX idx_users_email ON users (email)": (
        "WARN",
        Rule.INDEX_DIFFERS,
        "users",
        "idx_users_email",
    ),
    "ALTER TABLE notes DROP CONSTRAINT fk_notes_threat_model": (
        "ERROR",
        Rule.MISSING_FOREIGN_KEY,
        "notes",
        "fk_notes_threat_model",
    ),
    "ALTER TABLE team_notes DROP CONSTRAINT fk_team_notes_team, "
    "ADD CONSTRAINT fk_team_notes_team FOREIGN KEY (team_id) REFERENCES teams (id)": (
        "WARN",
        Rule.FOREIGN_KEY_DIFFERS,
        "team_notes",
        "fk_team_notes_team",
    ),
    "ALTER TABLE diagrams DROP CONSTRAINT chk_diagrams_type": (
        "WARN",
        Rule.MISSING_CHECK,
        "diagrams",
        "chk_diagrams_type",
    ),
    "ALTER TABLE diagrams DROP CONSTRAINT chk_diagrams_type, "
    "ADD CONSTRAINT chk_diagrams_type CHECK (type IN ('DFD-1.0.0')) NOT VALID": (
        "WARN",
        Rule.CONSTRAINT_NOT_VALID,
        "diagrams",
        "chk_diagrams_type",
    ),
    "ALTER TABLE diagrams DROP CONSTRAINT chk_diagrams_type, ADD CHECK (type IN ('DFD-1.0.0', 'UML'))": (
        "WARN",
        Rule.CHECK_DIFFERS,
        "diagrams",
        "diagrams_type_check",
    ),
    "ALTER TABLE diagrams DROP CONSTRAINT chk_diagrams_type, ADD CHECK (type IN ('UML'))": (
        "ERROR",
        Rule.CHECK_DIFFERS,
        "diagrams",
        "diagrams_type_check",
    ),
    "CREATE TABLE visitors (id int)": ("WARN", Rule.EXTRA_TABLE, "visitors", None),
    "ALTER TABLE notes ADD COLUMN colour text": ("WARN", Rule.EXTRA_COLUMN, "notes", "colour"),
    "ALTER TABLE notes ADD COLUMN colour text NOT NULL": ("ERROR", Rule.EXTRA_COLUMN, "notes", "colour"),
    "ALTER TABLE notes ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY": (
        "WARN",
        Rule.EXTRA_COLUMN,
        "notes",
        "number",
    ),
    "CREATE INDEX by_content ON notes (md5(content))": ("WARN", Rule.EXTRA_INDEX, "notes", "by_content"),
    "ALTER TABLE notes ADD CONSTRAINT short CHECK (length(name) < 9)": (
        "WARN",
        Rule.EXTRA_CONSTRAINT,
        "notes",
        "short",
    ),
    "CREATE VIEW names AS SELECT name FROM notes": ("WARN", Rule.EXTRA_OBJECT, None, "names"),
    "CREATE SEQUENCE numbers": ("WARN", Rule.EXTRA_OBJECT, None, "numbers"),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_under_its_rule_at_its_level(migrated_once: PostgresSettings, damage: str) -> None:
    found = [(one.level, one.rule, one.table, one.object) for one in troubles_after(migrated_once, damage)]
    assert DAMAGE[damage] in found
    # An identity column brings its sequence along.
    assert [one for one in found if one != DAMAGE[damage] and one[3] != "notes_number_seq"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "written_otherwise",
    [
        "ALTER INDEX idx_users_email RENAME TO by_email",
        "ALTER TABLE notes RENAME CONSTRAINT fk_notes_threat_model TO its_model",
        "ALTER TABLE diagrams RENAME CONSTRAINT chk_diagrams_type TO its_type",
        "ALTER TABLE diagrams DROP CONSTRAINT chk_diagrams_type, ADD CONSTRAINT x CHECK (type = 'DFD-1.0.0')",
        "DROP INDEX idx_linked_user; ALTER TABLE linked_identities DROP CONSTRAINT linked_identities_pkey; "
        "CREATE INDEX idx_linked_user ON linked_identities (user_internal_uuid); "
        "ALTER TABLE linked_identities ADD PRIMARY KEY (id)",
        "DROP INDEX uniq_linked_provider_sub; "
        "ALTER TABLE linked_identities ADD CONSTRAINT uni UNIQUE (provider, provider_user_id)",
        "ALTER TABLE threat_models ALTER COLUMN status_updated SET DEFAULT now()",
        "ALTER TABLE teams ALTER COLUMN version SET DEFAULT '1'::bigint",
    ],
)
def test_the_same_structure_under_another_name_or_in_other_words_is_no_difference(
    migrated_once: PostgresSettings, written_otherwise: str
) -> None:
    assert troubles_after(migrated_once, written_otherwise) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "almost",
    [
        "CREATE INDEX idx_users_email ON users (email) WHERE email <> ''",
        "CREATE INDEX idx_users_email ON users (email DESC)",
        "CREATE INDEX idx_users_email ON users USING hash (email)",
        "CREATE INDEX idx_users_email ON users (email text_pattern_ops)",
        "CREATE INDEX idx_users_email ON users (lower(email))",
        "CREATE INDEX idx_users_email ON users (email, name)",
    ],
)
def test_an_index_that_only_looks_alike_does_not_stand_for_the_model(
    migrated_once: PostgresSettings, almost: str
) -> None:
    found = troubles_after(migrated_once, f"DROP INDEX idx_users_email; {almost}")
    assert [(one.level, one.rule) for one in found] == [("WARN", Rule.EXTRA_INDEX), ("WARN", Rule.INDEX_DIFFERS)]


def test_rows_that_violate_a_check_are_an_error_with_count_and_examples(migrated: PostgresSettings) -> None:
    run(migrated, *A_THREAT_MODEL, "ALTER TABLE threats DROP CONSTRAINT chk_threats_severity")
    add_threats(migrated, t1="High", t2="awful", t3="dire")
    run(
        migrated,
        "ALTER TABLE threats ADD CONSTRAINT chk_threats_severity CHECK (severity IS NULL OR "
        "severity IN ('Low', 'Medium', 'High', 'Critical', 'Unknown', 'None')) NOT VALID",
    )
    validation = validate_schema(migrated)
    (finding,) = validation.at("ERROR")
    assert (finding.rule, finding.table, finding.object) == (Rule.CHECK_VIOLATED, "threats", "chk_threats_severity")
    assert "2 rows (such as id=t2, id=t3)" in finding.message
    assert not validation.ok


@pytest.mark.slow
def test_rows_that_refer_to_nothing_are_an_error_with_count_and_examples(migrated: PostgresSettings) -> None:
    run(
        migrated,
        "ALTER TABLE notes DROP CONSTRAINT fk_notes_threat_model",
        "INSERT INTO notes (id, threat_model_id, name, content, created_at, modified_at) "
        "VALUES ('n1', 'gone', 'n', 'c', now(), now())",
        "ALTER TABLE notes ADD CONSTRAINT fk_notes_threat_model FOREIGN KEY (threat_model_id) "
        "REFERENCES threat_models (id) NOT VALID",
    )
    (finding,) = validate_schema(migrated).at("ERROR")
    assert finding.rule is Rule.FOREIGN_KEY_VIOLATED
    assert "1 row (such as id=n1)" in finding.message


def test_an_empty_database_lacks_every_table(database: PostgresSettings) -> None:
    validation = validate_schema(database)
    assert [one.rule for one in validation.at("ERROR")] == [Rule.MISSING_TABLE] * 52
    assert validation.tables == {}


@pytest.mark.slow
def test_objects_of_an_extension_are_not_the_schemas_business(migrated_once: PostgresSettings) -> None:
    assert troubles_after(migrated_once, "CREATE EXTENSION pg_stat_statements") == []


@pytest.mark.slow
def test_a_key_made_an_identity_column_is_no_difference(migrated: PostgresSettings) -> None:
    run(migrated, "ALTER TABLE triage_notes ALTER id ADD GENERATED BY DEFAULT AS IDENTITY")
    run(migrated, "ALTER TABLE triage_notes ADD COLUMN position bigint GENERATED BY DEFAULT AS IDENTITY")
    validation = validate_schema(migrated)
    assert validation.ok
    assert [one.object for one in validation.at("WARN") if "column" in one.rule] == ["position"]


@pytest.mark.slow
def test_a_table_the_role_may_not_read_is_an_error_and_the_others_are_still_checked(
    migrated: PostgresSettings,
) -> None:
    role = f"{migrated.database}_reader"
    run(
        migrated,
        f"CREATE ROLE {role} LOGIN PASSWORD 'reader-of-tests'",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        f"REVOKE SELECT ON refresh_tokens FROM {role}",
    )
    try:
        reader = migrated.model_copy(update={"user": role, "password": SecretStr("reader-of-tests")})
        validation = validate_schema(reader)
        assert [(one.rule, one.table) for one in validation.at("ERROR")] == [(Rule.UNREADABLE_TABLE, "refresh_tokens")]
        assert "refresh_tokens" not in validation.tables
        assert validation.tables["groups"] == 6
    finally:
        run(migrated, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.slow
def test_of_rows_that_may_not_be_read_nothing_is_claimed(migrated: PostgresSettings) -> None:
    role = f"{migrated.database}_reader"
    run(
        migrated,
        f"CREATE ROLE {role} LOGIN PASSWORD 'reader-of-tests'",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        f"REVOKE SELECT ON diagrams, teams FROM {role}",
        "ALTER TABLE diagrams DROP CONSTRAINT chk_diagrams_type, "
        "ADD CONSTRAINT chk_diagrams_type CHECK (type IN ('DFD-1.0.0')) NOT VALID",
        "ALTER TABLE team_notes DROP CONSTRAINT fk_team_notes_team, "
        "ADD CONSTRAINT fk_team_notes_team FOREIGN KEY (team_id) REFERENCES teams (id) ON DELETE CASCADE NOT VALID",
    )
    try:
        reader = migrated.model_copy(update={"user": role, "password": SecretStr("reader-of-tests")})
        found = {one.object: one.message for one in validate_schema(reader).findings}
        assert "may not read" in found["chk_diagrams_type"]
        assert "may not read" in found["fk_team_notes_team"]
    finally:
        run(migrated, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.slow
def test_a_schema_that_hides_the_tables_from_tmi_is_an_error(migrated: PostgresSettings) -> None:
    run(migrated, f'CREATE SCHEMA "{migrated.user}"')
    validation = validate_schema(migrated)
    (error,) = validation.at("ERROR")
    assert (error.rule, error.object) == (Rule.MISSING_TABLE, migrated.user)
    assert "search_path" in error.message
    assert len(validation.tables) == 52


@pytest.mark.slow
def test_names_with_signs_that_mean_something_elsewhere_are_read_and_quoted(migrated: PostgresSettings) -> None:
    run(
        migrated,
        'CREATE TABLE "a%(b)s" ("x%y" int)',
        'CREATE TABLE "c:d" (a int)',
        'INSERT INTO "a%(b)s" VALUES (1)',
        'CREATE INDEX "Odd %" ON notes (md5(name))',
        """UPDATE pg_index SET indisvalid = false WHERE indexrelid = '"Odd %"'::regclass""",
    )
    validation = validate_schema(migrated)
    assert (validation.tables["a%(b)s"], validation.tables["c:d"]) == (1, 0)
    assert 'DROP INDEX "Odd %"' in next(one.message for one in validation.findings if one.object == "Odd %")


def test_a_verdict_is_json_and_comes_back_the_same(migrated_once: PostgresSettings) -> None:
    validation = validate_schema(migrated_once)
    text = validation.model_dump_json()
    assert json.loads(text)["ok"] is True
    assert json.loads(text)["tables"]["groups"] == 6
    assert Validation.model_validate(json.loads(text), extra="ignore") == validation
    assert all(isinstance(one, Deviation) for one in validation.findings)


def test_huge_tables_are_estimated_and_named_as_such(migrated: PostgresSettings) -> None:
    run(migrated, "ANALYZE groups")
    with snapshot(migrated) as connection:
        tables = [LiveTable("groups", True, size=10**12, estimated_rows=6), LiveTable("users", True, 10**12, None)]
        counts = count_rows(connection, tables, exact_up_to=10**9)
    assert counts.rows == {"groups": 6, "users": 1}
    assert counts.estimated == ("groups",)


def test_checking_a_database_that_is_not_there_is_a_clear_error(server: PostgresSettings) -> None:
    with pytest.raises(DatabaseError, match=r"does not exist.*tmi-ops migrate"):
        validate_schema(server.model_copy(update={"database": "no_such_database"}))


def test_validation_only_reads(migrated_once: PostgresSettings) -> None:
    with snapshot(migrated_once) as connection:
        readonly = connection.exec_driver_sql("SHOW transaction_read_only").scalar_one()
    assert readonly == "on"


def troubles_after(postgres: PostgresSettings, damage: str) -> list[Deviation]:
    """The errors and warnings that damage gives; it is undone afterwards."""
    with engine(postgres).connect() as connection:
        try:
            connection.exec_driver_sql(damage)
            return [one for one in find_all(read_state(connection)) if one.level in ("ERROR", "WARN")]
        finally:
            connection.rollback()
