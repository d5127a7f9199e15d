"""`tmi-ops migrate` and `tmi-ops check`, as a person or a script runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tmi_ops.health.last_reading import SavedFile
from tmi_ops.health.record import last_answers
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.schema.locking import MIGRATION_LOCK
from tmi_ops.schema.migration import migrate
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.commands import command

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _home_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a store, what was found is kept at home, which is where the commands run."""
    monkeypatch.chdir(tmp_path)


def test_migrate_then_check_then_migrate_again(database: PostgresSettings) -> None:
    first = tmi_ops(database, "migrate")
    assert first.returncode == 0, first.stderr
    assert "52 tables created, 3 tables seeded (41 rows)" in first.stdout
    assert "the schema is what TMI needs: 52 of 52 tables, no differences" in first.stdout

    checked = tmi_ops(database, "check")
    assert checked.returncode == 0, checked.stderr
    assert "PostgreSQL 17" in checked.stdout
    assert "webhook_url_deny_list" in checked.stdout
    assert "34" in checked.stdout

    again = tmi_ops(database, "migrate")
    assert again.returncode == 0
    assert "nothing to do" in again.stdout


def test_the_plan_on_stdout_is_a_script_that_psql_could_run_and_changes_nothing(database: PostgresSettings) -> None:
    planned = tmi_ops(database, "migrate", "--plan")
    assert planned.returncode == 0
    assert "55 steps; nothing was changed" in planned.stderr
    assert planned.stdout.count("CREATE TABLE ") == 52
    assert "-- locks: " in planned.stdout
    with connect(database) as connection:
        connection.execute(planned.stdout.encode())
    assert "Nothing to do" in tmi_ops(database, "migrate", "--dry-run").stdout


def test_check_of_an_empty_database_exits_1_and_says_what_to_do(database: PostgresSettings) -> None:
    checked = tmi_ops(database, "check")
    assert checked.returncode == 1
    assert "52 errors" in checked.stdout
    kept = last_answers(SavedFile(Path(".tmi-ops/development/health/last-reading.json")))
    assert kept is not None
    assert kept.schema_findings is not None
    assert "52 errors" in kept.schema_findings.summary
    assert "tmi-ops migrate --dry-run" in checked.stdout


def test_check_as_json_is_the_whole_verdict(database: PostgresSettings) -> None:
    migrate(database, SilentReport())
    with connect(database) as connection:
        connection.execute("DROP TABLE timmy_usage")
    checked = tmi_ops(database, "check", "--json")
    assert checked.returncode == 1
    validation = json.loads(checked.stdout)
    assert validation["ok"] is False
    assert validation["database"] == database.database
    assert validation["tables"]["groups"] == 6
    assert validation["findings"][0] == {
        "level": "ERROR",
        "rule": "missing_table",
        "table": "timmy_usage",
        "object": None,
        "message": "The table is missing.",
        "severity": "critical",
        "subject": "timmy_usage",
        "what": "The table is missing.",
        "cause": "",
        "advice": {"text": "", "sql": [], "command": []},
    }
    assert {one["level"] for one in validation["findings"]} == {"ERROR", "INFO", "DEBUG"}


def test_details_are_shown_when_asked_for(database: PostgresSettings) -> None:
    migrate(database, SilentReport())
    assert "match the model" not in tmi_ops(database, "check").stdout
    assert "match the model" in tmi_ops(database, "check", "--verbose").stdout


def test_half_of_a_migration_is_shown_as_such_and_not_kept_for_the_status(database: PostgresSettings) -> None:
    with connect(database) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
        checked = tmi_ops(database, "check", "--json")
    assert json.loads(checked.stdout)["during_migration"]
    assert "a migration is changing this schema" in checked.stderr
    assert last_answers(SavedFile(Path(".tmi-ops/development/health/last-reading.json"))) is None


def test_validate_only_validates(database: PostgresSettings) -> None:
    validated = tmi_ops(database, "migrate", "--validate")
    assert validated.returncode == 1
    assert "52 errors" in validated.stdout
    assert tmi_ops(database, "check").returncode == 1


@pytest.mark.parametrize("command", [["check"], ["migrate"], ["migrate", "--plan"], ["check", "--json"]])
def test_a_wrong_password_exits_2_with_the_next_step_and_without_the_password(
    database: PostgresSettings, command: list[str]
) -> None:
    refused = tmi_ops(database, *command, password="wrong-secret")
    assert refused.returncode == 2
    assert "password authentication failed" in refused.stderr
    assert "Check POSTGRES_USER and POSTGRES_PASSWORD" in refused.stderr
    assert "wrong-secret" not in refused.stderr + refused.stdout
    assert "Traceback" not in refused.stderr


def test_an_unreachable_server_exits_2(database: PostgresSettings) -> None:
    refused = tmi_ops(database.model_copy(update={"port": 1}), "check")
    assert refused.returncode == 2
    assert "could not be reached" in refused.stderr


def test_contradicting_options_are_refused(database: PostgresSettings) -> None:
    refused = tmi_ops(database, "migrate", "--plan", "--validate")
    assert refused.returncode == 2
    assert "exclude each other" in refused.stderr


def test_neither_command_loads_dagster() -> None:
    program = "import sys, tmi_ops.cli.schema, tmi_ops.cli.schema_view, tmi_ops.schema.migration; "
    subprocess.run([sys.executable, "-c", program + "assert 'dagster' not in sys.modules"], check=True)


def tmi_ops(
    postgres: PostgresSettings, *arguments: str, password: str | None = None
) -> subprocess.CompletedProcess[str]:
    assert postgres.password is not None
    environment = {
        "POSTGRES_HOST": postgres.host,
        "POSTGRES_PORT": str(postgres.port),
        "POSTGRES_USER": postgres.user,
        "POSTGRES_PASSWORD": password or postgres.password.get_secret_value(),
        "POSTGRES_DB": postgres.database,
        "POSTGRES_SSLMODE": postgres.sslmode,
        "COLUMNS": "140",
    }
    return command(*arguments, env=environment, cwd=Path.cwd())
