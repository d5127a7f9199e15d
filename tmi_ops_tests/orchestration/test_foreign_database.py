"""Jobs and daily commands over a database that is not TMI's: Dagster's own records, and an application's schemas."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from dagster import DagsterInstance, job, op

from tmi_ops.definitions import environment_definitions
from tmi_ops.postgres.connections import connect
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops_tests.commands import command
from tmi_ops_tests.orchestration.conftest import ENVIRONMENT
from tmi_ops_tests.variables import variables_of

pytestmark = pytest.mark.slow

# A person begins these, each with what is to be brought back.
RECOVERIES = {"recover_corruption", "recover_everything", "recover_rows"}
APPLICATION = """
CREATE SCHEMA sales; CREATE SCHEMA "Stock Room";
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE TABLE sales.orders (id bigint, customer text);
CREATE INDEX ON sales.orders USING gin (customer gin_trgm_ops);
CREATE TABLE "Stock Room"."Items" (name text, amount int);
INSERT INTO sales.orders SELECT n, 'customer ' || n % 10 FROM generate_series(1, 1000) n;
INSERT INTO "Stock Room"."Items" SELECT 'item ' || n, n FROM generate_series(1, 50) n;
"""


@op
def nothing() -> None:
    """So that there is a run to keep."""


@job
def some_job() -> None:
    nothing()


def fill_with_records(postgres: PostgresSettings, home: Path) -> DagsterInstance:
    """Dagster's tables, made by Dagster, with the records of a run."""
    assert postgres.password
    password = quote(postgres.password.get_secret_value())
    url = f"postgresql+psycopg2://{postgres.user}:{password}@{postgres.host}:{postgres.port}/{postgres.database}"
    (home / "dagster.yaml").write_text(json.dumps({"storage": {"postgres": {"postgres_url": url}}}))
    instance = DagsterInstance.from_config(str(home))
    assert some_job.execute_in_process(instance=instance).success
    return instance


def test_all_of_it_runs_green_and_nothing_of_tmis_is_offered_or_made(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {**variables_of(settings), "TMI_OPS_PROFILE": "none"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    records = fill_with_records(settings.postgres, tmp_path)
    with connect(settings.postgres) as connection:
        connection.execute(APPLICATION)
    before = tables(settings.postgres)
    definitions = environment_definitions(ENVIRONMENT)
    jobs = {one.name for one in definitions.get_repository_def().get_all_jobs() if not one.name.startswith("__")}
    assert {"base_backup", "wal_catch_up", "protect", "recovery_drill", "health", "retention", "objectives"} <= jobs
    assert not jobs & {"migrate_and_validate", "validate_schema", "access"}, "what only a TMI database has"

    first = ["base_backup", "wal_catch_up", "protect"]
    for name in [*first, *sorted(jobs - RECOVERIES - set(first))]:
        ended = definitions.resolve_job_def(name).execute_in_process(instance=records, raise_on_error=False)
        failures = [event.message for event in ended.all_events if event.is_failure]
        assert ended.success, f"{name}: {failures}"

    added = tables(settings.postgres) - before
    assert added <= {("tmi_ops", "heartbeat")}, "nothing is made but the beats"
    for words in (["status"], ["health"], ["backups"], ["verify", "latest"], ["prune", "--dry-run"], ["drills"]):
        ended_command = command(*words, env=variables, cwd=tmp_path)
        assert ended_command.returncode in (0, 1), f"{words}: {ended_command.stderr}"
        assert "migrate" not in ended_command.stdout, words
    result = json.loads(command("verify", "latest", "--json", "--quiet", env=variables, cwd=tmp_path).stdout)
    assert result["outcome"] == "proven"
    assert result["tables"] == len(before) + len(added)
    records.dispose()


def tables(postgres: PostgresSettings) -> set[tuple[str, str]]:
    with connect(postgres) as connection:
        rows = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        return {(str(schema), str(name)) for schema, name in rows}
