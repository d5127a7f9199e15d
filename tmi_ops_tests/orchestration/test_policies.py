"""Who waits for whom: by the definitions and by the instance that carries them out."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import AssetsDefinition, DagsterInstance, Definitions
from dagster._core.launcher.base import RunLauncher, WorkerStatus
from dagster._core.test_utils import create_run_for_test

from tmi_ops.definitions import environment_definitions
from tmi_ops.orchestration import run_launcher
from tmi_ops_tests.orchestration.conftest import key

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def definitions() -> Definitions:
    return environment_definitions("development")


@pytest.fixture(scope="module")
def pools(definitions: Definitions) -> dict[object, str | None]:
    return {
        asset_key: one.op.pool
        for one in definitions.assets or ()
        if isinstance(one, AssetsDefinition)
        for asset_key in one.keys
    }


@pytest.fixture(scope="module")
def concurrency() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    return dict(loaded["concurrency"])


def test_everything_that_copies_the_database_shares_a_pool_of_one(
    pools: dict[object, str | None], concurrency: dict[str, Any]
) -> None:
    assert pools[key("backup", "logical")] == pools[key("backup", "base")] is not None
    assert concurrency["pools"] == {"granularity": "op", "default_limit": 1}


def test_two_restores_never_share_a_scratch_place_and_a_drill_never_holds_up_a_backup(
    definitions: Definitions, pools: dict[object, str | None]
) -> None:
    drill = pools[key("recovery", "drill")]
    assert drill
    for job in definitions.get_repository_def().get_all_jobs():
        used = {pools.get(asset) for asset in job.asset_layer.executable_asset_keys}
        if not job.name.startswith("__") and drill in used:
            assert used == {drill}, job.name


def test_every_job_has_a_lane_and_a_time_limit_and_no_lane_can_take_all_the_runs(
    definitions: Definitions, concurrency: dict[str, Any]
) -> None:
    jobs = [job for job in definitions.get_repository_def().get_all_jobs() if not job.name.startswith("__")]
    lanes = {job.name: job.tags["tmi_ops/lane"] for job in jobs}
    assert all(lane.startswith("development/") for lane in lanes.values())
    assert all(int(job.tags["dagster/max_runtime"]) <= 86400 for job in jobs)
    assert lanes["wal_catch_up"] not in {lane for name, lane in lanes.items() if name != "wal_catch_up"}
    backups = {lanes[name] for name in ("base_backup", "logical_backup", "protect")}
    assert backups.isdisjoint({lanes["recovery_drill"], lanes["verify_backup"]})
    (limit,) = concurrency["runs"]["tag_concurrency_limits"]
    assert (limit["key"], limit["value"]) == ("tmi_ops/lane", {"applyLimitPerUniqueValue": True})
    assert limit["limit"] * len(set(lanes.values())) <= concurrency["runs"]["max_concurrent_runs"]


def test_the_launcher_that_dagster_is_told_to_use_is_there_and_can_be_asked_whether_a_run_lives() -> None:
    told = yaml.safe_load((ROOT / "dagster.yaml").read_text())["run_launcher"]
    launcher = getattr(importlib.import_module(told["module"]), told["class"])
    assert issubclass(launcher, RunLauncher)
    assert launcher().supports_check_run_worker_health


@pytest.mark.parametrize(
    ("watched", "present", "waited_s", "status"),
    [
        (True, True, 100.0, WorkerStatus.RUNNING),
        (True, False, 1.0, WorkerStatus.RUNNING),  # it takes its lock a moment after it has started
        (True, False, 100.0, WorkerStatus.NOT_FOUND),
        (True, None, 100.0, WorkerStatus.RUNNING),  # the records cannot tell
        (False, False, 100.0, WorkerStatus.RUNNING),  # of another launcher, or of a release before this
    ],
)
def test_a_run_whose_process_holds_no_lock_for_a_while_is_gone_and_what_cannot_be_told_lives(
    monkeypatch: pytest.MonkeyPatch, watched: bool, present: bool | None, waited_s: float, status: WorkerStatus
) -> None:
    clock = iter((1000.0, 1000.0, 1000.0 + waited_s, 1000.0 + waited_s))
    monkeypatch.setattr(run_launcher.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(run_launcher, "is_present", lambda _instance, _run: present)
    with DagsterInstance.ephemeral() as instance:
        launcher = run_launcher.WatchedRunLauncher()
        launcher.register_instance(instance)
        run = create_run_for_test(instance, tags={run_launcher.WATCHED_TAG: "true"} if watched else {})
        assert launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING
        assert launcher.check_run_worker_health(run).status is status
