"""The cache's asset, run on the real server: one line of advice, tables, and checks that fail where they should."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetCheckSeverity,
    DagsterInstance,
    Definitions,
    ExecuteInProcessResult,
    TableMetadataValue,
)
from redis import Redis

from tmi_ops.cache.connection import connected
from tmi_ops.orchestration.cache import REACHABLE, WELL, cache_definitions
from tmi_ops.orchestration.protected import protected
from tmi_ops.orchestration.resources import Environment
from tmi_ops.settings import RedisSettings
from tmi_ops_tests.orchestration.conftest import ENVIRONMENT, key

OWN_DATABASE = 6
Look = Callable[[], ExecuteInProcessResult]


@pytest.fixture
def redis(redis_server: RedisSettings, monkeypatch: pytest.MonkeyPatch) -> RedisSettings:
    assert redis_server.password is not None
    told = {"HOST": redis_server.host, "PORT": redis_server.port, "PASSWORD": redis_server.password.get_secret_value()}
    for name, value in {**told, "DB": OWN_DATABASE}.items():
        monkeypatch.setenv(f"REDIS_{name}", str(value))
    return redis_server.model_copy(update={"db": OWN_DATABASE})


@pytest.fixture
def client(redis: RedisSettings) -> Iterator[Redis]:
    with connected(redis) as client:
        yield client
        client.flushdb()


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    # A stack that was started in this directory tells of its cache there.
    monkeypatch.setenv("TMI_OPS_HOME", str(tmp_path / "home"))
    environment = Definitions(resources={"environment": Environment(name=ENVIRONMENT)})
    job = Definitions.merge(
        cache_definitions(protected(ENVIRONMENT)), environment
    ).resolve_implicit_global_asset_job_def()

    def run() -> ExecuteInProcessResult:
        result = job.execute_in_process(instance=DagsterInstance.ephemeral(), raise_on_error=False)
        assert result.success
        return result

    return run


def checks(result: ExecuteInProcessResult) -> dict[str, AssetCheckEvaluation]:
    return {one.check_name: one for one in result.get_asset_check_evaluations()}


def test_a_cache_that_is_well_passes_and_shows_its_keys(look: Look, client: Redis) -> None:
    client.set("blacklist:token:1", "value", ex=60)
    result = look()
    assert all(check.passed for check in checks(result).values())
    (event,) = result.asset_materializations_for_node(f"{ENVIRONMENT}__health__cache")
    assert event.asset_key == key("health", "cache")
    table = event.metadata["key patterns"]
    assert isinstance(table, TableMetadataValue)
    assert [record.data["pattern"] for record in table.records] == ["blacklist:token:*"]
    assert event.metadata["keys"].value == 1


def test_what_is_to_be_mended_is_one_line_of_advice(look: Look, client: Redis) -> None:
    client.set("cache:threat:1", "for ever")
    check = checks(look())[WELL]
    assert (check.passed, check.severity) == (False, AssetCheckSeverity.WARN)
    assert check.description is not None
    assert "1 of 1 have no TTL" in check.description
    assert "redis-cli EXPIRE" in check.description


def test_a_cache_that_is_away_fails_its_check_and_not_the_run(
    look: Look, redis: RedisSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_PORT", "1")
    found = checks(look())
    assert (found[REACHABLE].passed, found[REACHABLE].severity) == (False, AssetCheckSeverity.ERROR)
    assert not found[WELL].passed


def test_an_environment_without_a_cache_is_no_trouble(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "PORT", "PASSWORD", "DB"):
        monkeypatch.delenv(f"REDIS_{name}", raising=False)
    assert all(check.passed for check in checks(look()).values())
