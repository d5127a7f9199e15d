"""Health assets and the maintenance job, run on the real server."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetCheckSeverity,
    AssetKey,
    DagsterInstance,
    DefaultScheduleStatus,
    Definitions,
    ExecuteInProcessResult,
    FloatMetadataValue,
    TableMetadataValue,
)

from tmi_ops.health.probe import Area
from tmi_ops.health.registry import probes_of
from tmi_ops.orchestration.health import health_definitions
from tmi_ops.orchestration.maintenance import maintenance_definitions
from tmi_ops.orchestration.policies import EXECUTOR
from tmi_ops.orchestration.protected import protected
from tmi_ops.orchestration.resources import Environment
from tmi_ops.postgres.connections import connect
from tmi_ops.profile.tmi import TMI
from tmi_ops.settings import Settings
from tmi_ops_tests.health.conftest import eventually
from tmi_ops_tests.orchestration.conftest import ENVIRONMENT, key

pytestmark = pytest.mark.slow

Run = Callable[..., ExecuteInProcessResult]


@pytest.fixture(scope="module")
def definitions() -> Definitions:
    return Definitions.merge(
        health_definitions(protected(ENVIRONMENT)),
        maintenance_definitions(protected(ENVIRONMENT)),
        Definitions(resources={"environment": Environment(name=ENVIRONMENT)}, executor=EXECUTOR),
    )


@pytest.fixture
def run(as_variables: Settings, definitions: Definitions) -> Run:
    def run_job(
        name: str, config: dict[str, Any] | None = None, areas: list[AssetKey] | None = None
    ) -> ExecuteInProcessResult:
        op = "maintain" if name == "maintenance" else f"{ENVIRONMENT}__health"
        return definitions.resolve_job_def(name).execute_in_process(
            instance=DagsterInstance.ephemeral(),
            run_config={"ops": {op: {"config": config or {}}}},
            asset_selection=areas,
            raise_on_error=False,
        )

    return run_job


AREAS = {key("health", area.value) for area in Area}
CACHE = key("health", "cache")


def checks(result: ExecuteInProcessResult) -> dict[str, AssetCheckEvaluation]:
    return {one.check_name: one for one in result.get_asset_check_evaluations()}


def test_every_area_is_an_asset_and_every_probe_a_check_of_it(definitions: Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    assert graph.get_all_asset_keys() == {*AREAS, CACHE}
    assert {(one.asset_key, one.name) for one in graph.asset_check_keys if one.asset_key != CACHE} == {
        (key("health", probe.area.value), probe.name) for probe in probes_of(TMI)
    }


def test_one_run_reads_once_and_fills_every_area_and_check(run: Run) -> None:
    result = run("health")
    assert result.success
    materialized = {event.asset_key for event in result.get_asset_materialization_events()}
    assert materialized == {*AREAS, CACHE}
    found = checks(result)
    assert {name for name, check in found.items() if check.asset_key != CACHE} == {
        probe.name for probe in probes_of(TMI)
    }
    durability = found["durability"]  # the tests' server runs without fsync
    assert (durability.passed, durability.severity) == (False, AssetCheckSeverity.ERROR)
    assert "→ switch on at once" in (durability.description or "")
    autovacuum = found["autovacuum"]
    assert (autovacuum.passed, autovacuum.severity) == (False, AssetCheckSeverity.WARN)
    assert found["connections"].passed
    assert found["wal_rate"].passed  # the rate comes with the next run
    assert not found["slow_queries"].passed  # nobody counts queries, and somebody could


def test_an_area_shows_numbers_that_plot_rates_since_the_last_run_a_table_and_the_sql_that_helps(run: Run) -> None:
    run("health")
    shown = {
        event.asset_key.path[-1]: event.materialization.metadata
        for event in run("health").get_asset_materialization_events()
        if event.asset_key
    }
    assert isinstance(shown["activity"]["connections used (%)"], FloatMetadataValue)
    assert isinstance(shown["activity"]["transactions (1/s)"], FloatMetadataValue)
    assert isinstance(shown["wal_and_replication"]["WAL (MB/h)"], FloatMetadataValue)
    table = shown["vacuum"]["probes"]
    assert isinstance(table, TableMetadataValue)
    assert [record.data["probe"] for record in table.records][:2] == ["autovacuum", "analyze"]
    assert "ALTER SYSTEM SET autovacuum = on;" in str(shown["vacuum"]["advice"].value)
    assert "off: a crash of the host" in str(shown["wal_and_replication"]["probes"])
    assert shown["wal_and_replication"]["summary"].value != "No problems."


def test_one_area_can_be_looked_at_alone(run: Run) -> None:
    result = run("health", areas=[key("health", "indexes")])
    assert result.success
    assert set(checks(result)) == {probe.name for probe in probes_of(TMI) if probe.area is Area.INDEXES}


def test_thresholds_can_be_given_for_a_run(run: Run) -> None:
    found = checks(run("health", {"thresholds": ["connections=0,0"]}, [key("health", "activity")]))
    assert (found["connections"].passed, found["connections"].severity) == (False, AssetCheckSeverity.ERROR)


def test_a_server_that_cannot_be_reached_fails_the_run_with_the_next_step(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", "wrong")
    result = run("health")
    assert not result.success
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert "check POSTGRES_USER and POSTGRES_PASSWORD" in str(failure.event_specific_data)


def test_maintenance_does_what_health_asks_for_and_shows_each_step(run: Run, as_variables: Settings) -> None:
    with connect(as_variables.postgres) as connection:
        connection.execute("CREATE TABLE changed AS SELECT generate_series(1, 1000) AS id")
    assert eventually(lambda: planned(run("maintenance", {"plan_only": True})))
    with connect(as_variables.postgres) as connection:
        assert connection.execute("SELECT reltuples FROM pg_class WHERE relname = 'changed'").fetchone() == (-1,)
    result = run("maintenance")
    assert result.success
    assert [(row["outcome"], row["step"]) for row in steps(result)][:1] == [("done", "ANALYZE public.changed;")]


def planned(result: ExecuteInProcessResult) -> list[dict[str, Any]]:
    return [row for row in steps(result) if row["outcome"] == "planned"]


def steps(result: ExecuteInProcessResult) -> list[dict[str, Any]]:
    output = next(event for event in result.all_events if event.is_successful_output)
    table = output.step_output_data.metadata["steps"]
    assert isinstance(table, TableMetadataValue)
    return [dict(record.data) for record in table.records]


def test_a_closed_window_fails_the_run_without_changing_anything(run: Run, as_variables: Settings) -> None:
    begins = datetime.now(UTC) + timedelta(hours=2)
    with connect(as_variables.postgres) as connection:
        connection.execute("CREATE TABLE changed AS SELECT generate_series(1, 1000) AS id")
    eventually(lambda: planned(run("maintenance", {"plan_only": True})))
    result = run("maintenance", {"window": f"{begins:%H:%M}-{begins + timedelta(hours=1):%H:%M}"})
    assert not result.success
    assert planned(run("maintenance", {"plan_only": True}))


def test_health_is_read_every_hour_where_data_matters_and_maintenance_waits_for_a_person() -> None:
    for environment, status in (
        ("development", DefaultScheduleStatus.STOPPED),
        ("production", DefaultScheduleStatus.RUNNING),
    ):
        schedules = {one.name: one for one in health_definitions(protected(environment)).schedules or ()}
        assert schedules["hourly_health"].default_status is status  # type: ignore[union-attr]
    (nightly,) = maintenance_definitions(protected("production")).schedules or ()
    assert nightly.default_status is DefaultScheduleStatus.STOPPED  # type: ignore[union-attr]
