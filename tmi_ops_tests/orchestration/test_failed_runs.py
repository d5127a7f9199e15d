from __future__ import annotations

import pytest
from dagster import (
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    ExecuteInProcessResult,
    SensorDefinition,
    build_run_status_sensor_context,
)

from tmi_ops.alerts.service import AlertService
from tmi_ops.definitions import environment_definitions
from tmi_ops.orchestration.resources import Environment
from tmi_ops.settings import Settings
from tmi_ops_tests.orchestration.conftest import ENVIRONMENT


@pytest.fixture
def instance() -> DagsterInstance:
    return DagsterInstance.ephemeral()


def sensor(name: str) -> SensorDefinition:
    return environment_definitions(ENVIRONMENT).resolve_sensor_def(name)


def run(job: str, instance: DagsterInstance) -> ExecuteInProcessResult:
    definition = environment_definitions(ENVIRONMENT).resolve_job_def(job)
    return definition.execute_in_process(instance=instance, raise_on_error=False)


def seen(name: str, result: ExecuteInProcessResult, instance: DagsterInstance, **tags: str) -> object:
    """What the sensor does about a run of which it is told."""
    event = next(
        event
        for event in result.all_events
        if event.event_type_value == ("PIPELINE_FAILURE" if name == "failed_run" else "PIPELINE_SUCCESS")
    )
    known: DagsterRun = result.dagster_run.with_tags({**result.dagster_run.tags, **tags})
    context = build_run_status_sensor_context(
        sensor_name=name,
        dagster_instance=instance,
        dagster_run=known,
        dagster_event=event,
        resources={"environment": Environment(name=ENVIRONMENT)},
    )
    return sensor(name)(context.for_run_failure() if name == "failed_run" else context)


def test_a_failed_run_is_told_with_its_next_step_and_the_next_success_ends_it(
    as_variables: Settings, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = as_variables.postgres.password
    assert right is not None
    monkeypatch.setenv("POSTGRES_PASSWORD", "wrong")
    failed = run("heartbeat", instance)
    assert failed.dagster_run.status is DagsterRunStatus.FAILURE
    seen("failed_run", failed, instance, **{"dagster/will_retry": "true"})
    assert AlertService(as_variables).records() == []

    seen("failed_run", failed, instance)
    (record,) = AlertService(as_variables).records()
    assert record.alert.key == "run-failed.heartbeat"
    assert failed.run_id[:8] in record.alert.done
    assert "POSTGRES_PASSWORD" in record.alert.to_do
    assert "wrong" not in record.alert.model_dump_json()

    monkeypatch.setenv("POSTGRES_PASSWORD", right.get_secret_value())
    seen("recovered_run", run("heartbeat", instance), instance)
    (record,) = AlertService(as_variables).records()
    assert not record.is_open


def test_a_run_of_another_environment_is_that_ones_concern(
    as_variables: Settings, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", "wrong")
    failed = run("heartbeat", instance)
    seen("failed_run", failed, instance, **{"tmi_ops/environment": "production"})
    assert AlertService(as_variables).records() == []
