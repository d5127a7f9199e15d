from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from dagster import (
    DagsterInstance,
    DefaultScheduleStatus,
    Definitions,
    ExecuteInProcessResult,
    ScheduleDefinition,
    build_schedule_context,
)

from tmi_ops.backup import base
from tmi_ops.backup.one_at_a_time import BackupRunningError
from tmi_ops.cli.main import tmi_ops
from tmi_ops.orchestration.base_backup import BaseBackupConfig, base_backup_definitions
from tmi_ops.orchestration.policies import EXECUTOR
from tmi_ops.orchestration.protected import protected
from tmi_ops.orchestration.resources import Environment
from tmi_ops.settings import Settings
from tmi_ops.store.catalogue import list_backups
from tmi_ops.store.manifest import AnyManifest
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops_tests.orchestration.conftest import key

ENVIRONMENT = "development"


def _definitions(environment: str = ENVIRONMENT) -> Definitions:
    resources = Definitions(resources={"environment": Environment(name=environment)}, executor=EXECUTOR)
    return Definitions.merge(base_backup_definitions(protected(environment)), resources)


def _run(run_config: dict[str, object] | None = None) -> ExecuteInProcessResult:
    job = _definitions().resolve_job_def("base_backup")
    return job.execute_in_process(instance=DagsterInstance.ephemeral(), run_config=run_config, raise_on_error=False)


def _schedules(environment: str) -> dict[str, ScheduleDefinition]:
    return {schedule.name: schedule for schedule in _definitions(environment).schedules or []}  # type: ignore[misc]


def test_the_job_leaves_a_base_backup_and_numbers_that_can_be_plotted(as_variables: Settings, tmp_path: Path) -> None:
    scheduled = _schedules(ENVIRONMENT)["incremental_base_backup"]
    with build_schedule_context(instance=DagsterInstance.local_temp(str(tmp_path))) as context:
        (request,) = scheduled.evaluate_tick(context).run_requests or []
    result = _run(dict(request.run_config))
    assert result.success
    (manifest,) = (entry.manifest for entry in list_backups(open_store(as_variables.store, ENVIRONMENT)))
    (event,) = result.get_asset_materialization_events()
    assert event.asset_key == key("backup", "base")
    shown = {name: entry.value for name, entry in event.step_materialization_data.materialization.metadata.items()}
    assert shown["backup"] == manifest.backup_id
    assert shown["full because"] == manifest.full_because != ""
    for number in ("size (MB)", "cluster size (MB)", "duration (s)", "speed (MB/s)", "chain length"):
        assert isinstance(shown[number], int | float)


def test_a_backup_by_command_line_is_refused_while_a_run_takes_one_and_the_run_goes_on(
    as_variables: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[Result] = []
    commit = base.commit_manifest

    def while_it_runs(store: ObjectStore, manifest: AnyManifest) -> None:
        refused.extend(CliRunner().invoke(tmi_ops, ["backup", kind, "--quiet"]) for kind in ("base", "logical"))
        commit(store, manifest)

    monkeypatch.setattr(base, "commit_manifest", while_it_runs)
    assert _run({}).success
    assert [type(done.exception) for done in refused] == [BackupRunningError, BackupRunningError]
    assert len(list_backups(open_store(as_variables.store, ENVIRONMENT))) == 1


def test_a_server_that_cannot_be_reached_fails_the_run_with_the_next_step(
    as_variables: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", "not-the-password")
    result = _run()
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    said = failed.step_failure_data.user_failure_data
    assert said is not None
    assert "POSTGRES_PASSWORD" in str(said.description)


@pytest.mark.parametrize(
    ("environment", "incremental", "status"),
    [
        ("development", "0 1 * * 1-6", DefaultScheduleStatus.STOPPED),
        ("production", ("0 1,13 * * 1-6", "0 13 * * 0"), DefaultScheduleStatus.RUNNING),
    ],
)
def test_full_backups_are_weekly_and_incremental_ones_as_the_rto_asks_running_outside_of_development(
    environment: str, incremental: object, status: DefaultScheduleStatus
) -> None:
    schedules = _schedules(environment)
    assert {name: schedule.cron_schedule for name, schedule in schedules.items()} == {
        "weekly_base_backup": "0 1 * * 0",
        "incremental_base_backup": incremental,
    }
    assert {schedule.default_status for schedule in schedules.values()} == {status}
    assert BaseBackupConfig().incremental is False
