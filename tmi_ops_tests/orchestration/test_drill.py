from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import (
    DagsterInstance,
    DefaultScheduleStatus,
    Definitions,
    ExecuteInProcessResult,
    ScheduleDefinition,
)

from tmi_ops.drill.evidence import list_drills, read_evidence
from tmi_ops.drill.heartbeat import read_chain
from tmi_ops.errors import SettingsError
from tmi_ops.orchestration.base_backup import base_backup_definitions
from tmi_ops.orchestration.drill import DrillConfig, drill_definitions
from tmi_ops.orchestration.heartbeat import heartbeat_definitions
from tmi_ops.orchestration.policies import EXECUTOR
from tmi_ops.orchestration.protected import protected
from tmi_ops.orchestration.resources import Environment
from tmi_ops.postgres.programs import Programs
from tmi_ops.settings import StoreSettings
from tmi_ops_tests.drill.lives import NAME, Lived, a_life, left_behind
from tmi_ops_tests.orchestration.conftest import key
from tmi_ops_tests.recovery.point_in_time.conftest import own_store
from tmi_ops_tests.variables import variables_of

ENVIRONMENT = "development"


def _definitions(environment: str = ENVIRONMENT) -> Definitions:
    resources = Definitions(resources={"environment": Environment(name=environment)}, executor=EXECUTOR)
    here = protected(environment)
    return Definitions.merge(
        drill_definitions(here), heartbeat_definitions(here), base_backup_definitions(here), resources
    )


def _run(job: str, config: dict[str, object] | None = None) -> ExecuteInProcessResult:
    op = "__".join(key("recovery", "drill").path)
    run_config = {"ops": {op: {"config": config}}} if config else None
    return (
        _definitions()
        .resolve_job_def(job)
        .execute_in_process(instance=DagsterInstance.ephemeral(), run_config=run_config, raise_on_error=False)
    )


@pytest.fixture(scope="module")
def lived(
    tmp_path_factory: pytest.TempPathFactory, programs: Programs, s3: StoreSettings, shared_bucket: str
) -> Iterator[Lived]:
    with a_life(tmp_path_factory.mktemp("lived"), programs, own_store(s3, shared_bucket)) as lived:
        yield lived


@pytest.fixture
def variables(lived: Lived, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lived:
    monkeypatch.chdir(tmp_path)
    for name, value in variables_of(lived.settings).items():
        monkeypatch.setenv(name, value)
    return lived


@pytest.mark.slow
def test_the_job_drills_says_what_it_measured_and_passes_its_three_checks(variables: Lived) -> None:
    result = _run("recovery_drill", {"to_name": NAME})
    assert result.success
    (event,) = result.get_asset_materialization_events()
    shown = {name: entry.value for name, entry in event.step_materialization_data.materialization.metadata.items()}
    evidence = read_evidence(variables.store, str(shown["drill"]))
    assert shown["outcome"] == evidence.outcome == "passed"
    assert shown["RTO (s)"] == pytest.approx(evidence.rto_seconds, abs=0.01)
    share = 100 * evidence.rto_seconds / evidence.rto_objective_seconds
    assert shown["RTO (% of objective)"] == pytest.approx(share, abs=0.1)
    assert shown["RTO objective"] == "4 h"
    assert list(shown)[3] == "RTO (s)"  # before the long table of checks
    assert shown["phase: verify (s)"] == pytest.approx(evidence.phases["verify"], abs=0.01)
    assert shown["rows"] == sum(evidence.copy_.rows.values() if evidence.copy_ else ())
    checks = {one.check_name: one for one in result.get_asset_check_evaluations()}
    assert {name: one.passed for name, one in checks.items()} == {"sound": True, "rto_met": True, "rpo_met": True}
    assert variables.store.get_bytes(str(shown["evidence"])).startswith(b"<!doctype html>")
    assert left_behind(variables.settings) == []


@pytest.mark.slow
def test_missed_objectives_fail_their_checks_but_not_soundness(
    variables: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMI_OPS_RTO", "0.001s")
    result = _run("recovery_drill", {"latest": True})
    assert result.success
    checks = {one.check_name: one.passed for one in result.get_asset_check_evaluations()}
    assert checks == {"sound": True, "rto_met": False, "rpo_met": True}


@pytest.mark.slow
def test_a_target_that_cannot_be_reached_fails_the_run_and_says_what_can(variables: Lived) -> None:
    before = list_drills(variables.store)
    result = _run("recovery_drill", {"to_name": "never made"})
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    said = failed.step_failure_data.user_failure_data
    assert said is not None
    assert "never made" in str(said.description)
    assert list_drills(variables.store) == before


@pytest.mark.slow
def test_the_heartbeat_job_writes_the_next_beat(variables: Lived) -> None:
    before = read_chain(variables.settings.postgres) or []
    result = _run("heartbeat")
    assert result.success
    after = read_chain(variables.settings.postgres) or []
    assert [beat.id for beat in after] == [*(beat.id for beat in before), len(before) + 1]


def test_only_one_target_is_taken_and_a_time_without_a_zone_is_utc() -> None:
    target = DrillConfig(to_time="2026-11-24T03:44:13").target()
    assert target is not None
    assert target.time is not None
    assert target.time.isoformat() == "2026-11-24T03:44:13+00:00"
    assert DrillConfig(seed=4).target() is None
    with pytest.raises(SettingsError, match="More than one target"):
        DrillConfig(to_lsn="0/3000148", latest=True).target()
    with pytest.raises(SettingsError, match="More than one target"):
        DrillConfig(latest=True, seed=3).target()
    with pytest.raises(SettingsError, match="is not a time"):
        DrillConfig(to_time="yesterday").target()
    for words in ("15m ago", "now"):  # the yes to a plan would be one to another moment
        with pytest.raises(SettingsError, match="another moment at each launch"):
            DrillConfig(to_time=words).target()


@pytest.mark.parametrize(
    ("environment", "status", "beats"),
    [
        ("development", DefaultScheduleStatus.STOPPED, "0 */6 * * *"),
        ("production", DefaultScheduleStatus.RUNNING, "3-59/5 * * * *"),
    ],
)
def test_drills_are_weekly_and_beats_come_within_the_rpo(
    environment: str, status: DefaultScheduleStatus, beats: str
) -> None:
    schedules: dict[str, ScheduleDefinition] = {one.name: one for one in _definitions(environment).schedules or []}  # type: ignore[misc]
    weekly, regular = schedules["weekly_recovery_drill"], schedules["heartbeat_within_the_rpo"]
    assert (weekly.cron_schedule, regular.cron_schedule) == ("0 4 * * 0", beats)
    assert {weekly.default_status, regular.default_status} == {status}
