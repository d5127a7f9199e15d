"""Who waits for whom: by the definitions and by the instance that carries them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import AssetsDefinition, Definitions

from tmi_ops.definitions import environment_definitions
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
    assert backups.isdisjoint({lanes["recovery_drill"], lanes["prove_backup"]})
    (limit,) = concurrency["runs"]["tag_concurrency_limits"]
    assert (limit["key"], limit["value"]) == ("tmi_ops/lane", {"applyLimitPerUniqueValue": True})
    assert limit["limit"] * len(set(lanes.values())) <= concurrency["runs"]["max_concurrent_runs"]
