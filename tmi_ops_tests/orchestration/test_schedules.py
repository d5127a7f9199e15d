"""When a schedule begins a run, and when it waits for the one before."""

from __future__ import annotations

from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRunStatus, build_schedule_context
from dagster._core.test_utils import create_run_for_test

from tmi_ops.definitions import environment_definitions
from tmi_ops_tests.orchestration.conftest import ENVIRONMENT

INCREMENTAL = {"ops": {"development__backup__base": {"config": {"incremental": True}}}}


@pytest.mark.parametrize(
    ("schedule", "status", "config", "environment", "begins"),
    [
        # Its launch was cut off, so it never came into the queue: it waits for nothing.
        ("weekly_base_backup", DagsterRunStatus.NOT_STARTED, {}, ENVIRONMENT, True),
        ("weekly_base_backup", DagsterRunStatus.STARTING, {}, ENVIRONMENT, False),
        ("weekly_base_backup", DagsterRunStatus.STARTED, {}, ENVIRONMENT, True),  # the next may wait for its end
        ("weekly_base_backup", DagsterRunStatus.SUCCESS, {}, ENVIRONMENT, True),
        (
            "weekly_base_backup",
            DagsterRunStatus.STARTING,
            INCREMENTAL,
            ENVIRONMENT,
            True,
        ),
        ("incremental_base_backup", DagsterRunStatus.STARTING, INCREMENTAL, ENVIRONMENT, False),
        ("weekly_base_backup", DagsterRunStatus.STARTING, {}, "production", True),
    ],
)
def test_while_a_run_waits_for_its_turn_its_schedule_begins_no_other(
    tmp_path: Path,
    schedule: str,
    status: DagsterRunStatus,
    config: dict[str, object],
    environment: str,
    begins: bool,
) -> None:
    instance = DagsterInstance.local_temp(str(tmp_path))
    tags = {"tmi_ops/environment": environment}
    create_run_for_test(instance, job_name="base_backup", status=status, run_config=config, tags=tags)
    with build_schedule_context(instance=instance) as context:
        tick = environment_definitions(ENVIRONMENT).resolve_schedule_def(schedule).evaluate_tick(context)
    assert bool(tick.run_requests) is begins
    assert ("is still queued" in (tick.skip_message or "")) is not begins
