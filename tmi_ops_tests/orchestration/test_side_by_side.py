"""Several environments, and several databases of one cluster, in one code location."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from dagster import AssetKey, AssetsDefinition, Definitions, SensorResult, asset, build_sensor_context, materialize

from tmi_ops import definitions as served
from tmi_ops.definitions import environment_definitions, fleet_definitions, served_definitions
from tmi_ops.orchestration.policies import backup_pool, pool
from tmi_ops.orchestration.protected import Protected, protected
from tmi_ops.orchestration.resources import Environment

FLEET = """
[defaults]
TMI_OPS_S3_BUCKET = "backups"
TMI_OPS_S3_ENDPOINT_URL = "http://127.0.0.1:9"
POSTGRES_PASSWORD_FILE = "absent"

[environments.production]
POSTGRES_HOST = "db.example.com"
POSTGRES_SSLMODE = "require"

[environments.production.databases.billing]
TMI_OPS_PROFILE = "none"

[environments.shop]
POSTGRES_HOST = "127.0.0.1"
TMI_OPS_PROFILE = "none"
TMI_OPS_RPO = "1h"
TMI_OPS_RTO = "2h"
"""
NAMES = ("production", "production/billing", "shop")
PREFIXES = ("production__", "production__billing__", "shop__")


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No secret that it names is there: definitions read none."""
    file = tmp_path / "tmi-ops.toml"
    file.write_text(FLEET)
    monkeypatch.delenv("TMI_ENV", raising=False)
    monkeypatch.setenv("TMI_OPS_CONFIG", str(file))
    return file


@pytest.fixture
def fleet(file: Path) -> Definitions:
    return fleet_definitions(NAMES)


def names(definitions: Definitions) -> set[str]:
    """Of everything that would clash with another one of its name."""
    repository = definitions.get_repository_def()
    return {
        *(job.name for job in repository.get_all_jobs() if not job.name.startswith("__")),
        *(one.name for one in (*repository.schedule_defs, *repository.sensor_defs)),
        *(definitions.resources or {}),
    }


def keys(definitions: Definitions) -> set[str]:
    return {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}


def test_each_has_what_it_has_alone_by_names_of_its_own(fleet: Definitions) -> None:
    alone = {name: environment_definitions(name) for name in NAMES}
    expected = {f"{prefix}{one}" for name, prefix in zip(NAMES, PREFIXES, strict=True) for one in names(alone[name])}
    assert names(fleet) == expected
    assert keys(fleet) == {key for one in alone.values() for key in keys(one)}


def test_one_that_is_served_alone_has_the_names_of_today() -> None:
    alone = names(environment_definitions("shop"))
    assert {"environment", "logical_backup", "nightly_logical_backup", "rpo_guard", "wal_catch_up"} <= alone
    assert not any("__" in name for name in alone)


def test_a_database_beside_has_dumps_of_its_own_and_its_clusters_base_backups_and_wal(fleet: Definitions) -> None:
    beside = {key.removeprefix("production/billing/") for key in keys(fleet) if key.startswith("production/billing/")}
    assert {"backup/logical", "backup/logical_verified"} <= beside
    assert not beside & {"backup/base", "backup/wal", "backup/retention", "recovery/drill", "objectives/rpo"}
    assert {"production/backup/base", "production/backup/wal", "shop/backup/base"} <= keys(fleet)


def test_pools_are_apart_but_for_what_copies_one_cluster() -> None:
    own, beside, other = (protected(name) for name in NAMES)
    assert backup_pool(own) == backup_pool(beside) == "production_backup"
    assert backup_pool(other) == "shop_backup"
    assert len({pool(one, "health") for one in (own, beside, other)}) == 3


def test_schedules_of_one_kind_do_not_begin_together(fleet: Definitions) -> None:
    for plain in ("nightly_logical_backup", "hourly_health"):
        crons = [fleet.resolve_schedule_def(f"{prefix}{plain}").cron_schedule for prefix in PREFIXES]
        assert len(set(map(str, crons))) == 3, crons
    first = fleet.resolve_schedule_def("production__nightly_logical_backup")
    alone = environment_definitions("production").resolve_schedule_def("nightly_logical_backup")
    assert first.cron_schedule == alone.cron_schedule


def test_cures_and_groups_are_its_own(fleet: Definitions) -> None:
    guard = fleet.resolve_sensor_def("shop__rpo_guard")
    assert {target.job_name for target in guard.targets} >= {"shop__base_backup", "shop__wal_catch_up"}
    assert all(target.job_name.startswith("shop__") for target in guard.targets)
    groups = Counter(spec.group_name for spec in fleet.resolve_all_asset_specs() if spec.key.path[1] == "billing")
    assert set(groups) == {"production__billing_backup", "production__billing_health"}


def asking(here: Protected, found: list[str]) -> AssetsDefinition:
    @asset(key=here.key("asked"))
    @here.given
    def asked(environment: Environment) -> None:
        found.append(environment.name)

    return asked


def test_a_step_is_given_its_own_environment() -> None:
    found: list[str] = []
    fleet = [protected(name).at_place(number) for number, name in enumerate(NAMES)]
    result = materialize(
        [asking(here, found) for here in fleet],
        resources={here.resource: Environment(name=here.name) for here in fleet},
    )
    assert result.success
    assert sorted(found) == sorted(NAMES)


def test_a_sensor_looks_with_its_own_settings(fleet: Definitions, file: Path) -> None:
    (file.parent / "absent").write_text("secret")
    with build_sensor_context(repository_def=fleet.get_repository_def()) as context:
        said = fleet.resolve_sensor_def("shop__shadow_watch")(context)
    assert isinstance(said, SensorResult)
    assert re.search(r"Skipped: .*s3://backups/tmi-ops/shop|Skipped: .*127\.0\.0\.1:9", str(said))


def test_an_asset_grows_stale_as_it_does_alone(fleet: Definitions) -> None:
    def policy(definitions: Definitions, *path: str) -> object:
        key = AssetKey(path)
        return next(spec.freshness_policy for spec in definitions.resolve_all_asset_specs() if spec.key == key)

    beside = policy(fleet, "production", "billing", "backup", "logical")
    assert beside is not None
    assert beside == policy(environment_definitions("production"), "production", "backup", "logical")


def test_what_is_served_follows_from_the_process_and_the_file(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    asked: list[object] = []
    monkeypatch.setattr(served, "environment_definitions", asked.append)
    monkeypatch.setattr(served, "fleet_definitions", lambda names: asked.append(list(names)))
    served_definitions()
    monkeypatch.setenv("TMI_ENV", "production/billing")
    served_definitions()
    monkeypatch.delenv("TMI_ENV")
    file.write_text('[environments.staging]\nPOSTGRES_HOST = "db"\n')
    served_definitions()
    monkeypatch.delenv("TMI_OPS_CONFIG")
    monkeypatch.chdir(file.parent.parent)
    served_definitions()
    assert asked == [list(NAMES), "production/billing", "staging", "development"]


def test_a_job_knows_its_own_environment_and_assets_alone(fleet: Definitions) -> None:
    """Else each would be described with the resources of all: quadratic in a fleet."""
    for name in ("shop__logical_backup", "shop__sweep_orphans", "production__recover_rows", "production__maintenance"):
        resources = {key for key in fleet.resolve_job_def(name).resource_defs if key.endswith("environment")}
        assert resources == {f"{name.rpartition('__')[0]}__environment"}
    job = fleet.resolve_job_def("production__billing__logical_backup")
    assert {key for key in job.resource_defs if key.endswith("environment")} == {"production__billing__environment"}
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == {
        "production/billing/backup/logical",
        "production/billing/backup/logical_verified",
    }
