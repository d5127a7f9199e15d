"""Ticks use one instance of Dagster instead of connecting to its records each time."""

from pathlib import Path

from dagster import DagsterInstance, build_sensor_context
from dagster._core.definitions.sensor_definition import SensorEvaluationContext

from tmi_ops.orchestration.dagster_instance import instance_of


def look(instance: DagsterInstance) -> SensorEvaluationContext:
    """As a code server makes it: it has a reference alone."""
    return SensorEvaluationContext(
        instance_ref=instance.get_ref(),
        last_tick_completion_time=None,
        last_run_key=None,
        cursor=None,
        repository_name=None,
    )


def test_looks_at_the_same_records_share_an_instance_and_others_do_not(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here, there = (DagsterInstance.local_temp(str(tmp_path / name)) for name in ("here", "there"))
    first = instance_of(look(here))
    assert first is instance_of(look(here))
    assert first.get_ref() == here.get_ref()
    assert instance_of(look(there)).get_ref() == there.get_ref()
    assert instance_of(look(here)).get_ref() == here.get_ref()


def test_a_context_that_was_given_its_instance_keeps_it() -> None:
    instance = DagsterInstance.ephemeral()
    with build_sensor_context(instance=instance) as context:
        assert instance_of(context) is instance
