"""A sensor of the real definitions, looked through once, as the daemon does it."""

from __future__ import annotations

from dagster import DagsterInstance, SensorResult, SkipReason, build_sensor_context
from dagster_shared.serdes import serialize_value

from tmi_ops.definitions import environment_definitions

ENVIRONMENT = "development"


def look_through(name: str, cursor: str | None = None, instance: DagsterInstance | None = None) -> SensorResult:
    """What one look returned; its cursor is for the next."""
    result = _looked(name, cursor, instance)
    assert isinstance(result, SensorResult)
    for said in (*(result.run_requests or ()), *result.asset_events):
        serialize_value(said)  # the daemon gets it from another process
    return result


def passed_over(name: str, cursor: str | None) -> str:
    """Why a sensor that was asked did not look."""
    result = _looked(name, cursor, None)
    assert isinstance(result, SkipReason)
    return str(result.skip_message)


def _looked(name: str, cursor: str | None, instance: DagsterInstance | None) -> object:
    definitions = environment_definitions(ENVIRONMENT)
    context = build_sensor_context(
        instance=instance or DagsterInstance.ephemeral(),
        cursor=cursor,
        definitions=definitions,
        sensor_name=name,
    )
    return definitions.resolve_sensor_def(name)(context)
