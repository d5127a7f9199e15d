from __future__ import annotations

from collections.abc import Callable

import pytest
from dagster import AssetCheckSeverity, ExecuteInProcessResult

from tmi_ops.postgres.connections import connect
from tmi_ops.settings import Settings
from tmi_ops.store.catalogue import list_backups
from tmi_ops.store.objects import open_store
from tmi_ops_tests.orchestration.conftest import key
from tmi_ops_tests.raw_s3 import key_ending, read_raw, write_raw

RunJob = Callable[..., ExecuteInProcessResult]


def metadata(result: ExecuteInProcessResult, *path: str) -> dict[str, object]:
    (event,) = [event for event in result.get_asset_materialization_events() if event.asset_key == key(*path)]
    materialization = event.step_materialization_data.materialization
    return {name: entry.value for name, entry in materialization.metadata.items()}


def failure(result: ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    error = event.step_failure_data.user_failure_data
    return (error.description if error else None) or str(event.step_failure_data.error)


def test_the_job_protect_turns_an_empty_database_into_a_proven_backup(run_job: RunJob, as_variables: Settings) -> None:
    result = run_job("protect")
    assert result.success
    store = open_store(as_variables.store, "development")
    ((manifest, verification),) = ((entry.manifest, entry.verification) for entry in list_backups(store))
    assert verification is not None
    assert verification.outcome == "proven"
    assert metadata(result, "schema", "migration")["steps left to you"] == 0
    assert metadata(result, "schema", "validation")["tables"] == 52
    assert metadata(result, "backup", "logical")["backup"] == manifest.backup_id
    assert metadata(result, "backup", "logical_verified")["outcome"] == "proven"
    assert all(evaluation.passed for evaluation in result.get_asset_check_evaluations())


@pytest.mark.slow
def test_a_second_run_of_the_migration_does_nothing(run_job: RunJob) -> None:
    assert run_job("migrate_and_validate").success
    assert metadata(run_job("migrate_and_validate"), "schema", "migration")["steps taken"] == 0


@pytest.mark.slow
def test_damage_to_the_schema_fails_the_check_of_its_rule_and_no_other(run_job: RunJob, as_variables: Settings) -> None:
    assert run_job("migrate_and_validate").success
    with connect(as_variables.postgres) as connection:
        connection.execute("CREATE TABLE left_behind (id int)")
        connection.execute("ALTER TABLE threats ALTER COLUMN name TYPE varchar(3)")
    result = run_job("migrate_and_validate")
    failed = {check.check_name: check for check in result.get_asset_check_evaluations() if not check.passed}
    assert set(failed) == {"extra_table", "column_type"}
    assert failed["extra_table"].severity is AssetCheckSeverity.WARN
    assert failed["column_type"].severity is AssetCheckSeverity.ERROR
    assert "values that TMI writes may not fit" in (failed["column_type"].description or "")


@pytest.mark.slow
def test_a_backup_that_the_store_has_damaged_fails_the_run_and_is_remembered_as_failed(
    run_job: RunJob, as_variables: Settings
) -> None:
    assert run_job("protect").success
    store = open_store(as_variables.store, "development")
    (manifest,) = (entry.manifest for entry in list_backups(store))
    dump = key_ending(as_variables.store, "database.dump")
    data = bytearray(read_raw(as_variables.store, dump))
    data[len(data) // 2] ^= 1
    write_raw(as_variables.store, dump, bytes(data))
    result = run_job(
        "protect", {"ops": {"development__backup__logical_verified": {"config": {"backup": manifest.backup_id}}}}
    )
    assert not result.success
    verification = next(entry.verification for entry in list_backups(store) if entry.manifest == manifest)
    assert verification is not None
    assert verification.outcome == "failed"


def test_a_wrong_password_fails_the_run_with_the_next_step_and_without_the_password(
    run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", "not-the-password")
    said = failure(run_job("migrate_and_validate"))
    assert "POSTGRES_PASSWORD" in said
    assert "not-the-password" not in said
