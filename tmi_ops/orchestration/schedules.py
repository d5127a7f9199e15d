"""Schedules and sensors begin where the timetable says, in one time zone, and run by default where data matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster import DefaultScheduleStatus, DefaultSensorStatus, ScheduleDefinition

from tmi_ops.objectives.timetable import Automation, Cadence, Timetable, plan_timetable, read_automation
from tmi_ops.settings import read_objectives, read_variables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster import JobDefinition, RunConfig
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

    AnyJob = JobDefinition | UnresolvedAssetJobDefinition


def timetable_of(environment: str) -> Timetable:
    """The environment's timetable; no secret is used."""
    return plan_timetable(read_objectives(environment))


def automation_of(environment: str) -> Automation:
    """Whether the environment's schedules and sensors run by default, and in which time zone."""
    return read_automation(environment, read_variables())


def sensor_status(environment: str) -> DefaultSensorStatus:
    """Running wherever schedules are."""
    return DefaultSensorStatus.RUNNING if automation_of(environment).running else DefaultSensorStatus.STOPPED


def scheduled(
    environment: str,
    name: str,
    job: AnyJob,
    cadence: Cadence,
    description: str,
    *,
    run_config: RunConfig | Mapping[str, object] | None = None,
    begins_stopped: bool = False,
) -> ScheduleDefinition:
    """A schedule with the cadence of the timetable.

    Args:
        begins_stopped: a person switches it on, wherever it is.
    """
    automation = automation_of(environment)
    running = automation.running and not begins_stopped
    return ScheduleDefinition(
        name=name,
        job=job,
        cron_schedule=cadence.crons[0] if len(cadence.crons) == 1 else cadence.crons,
        execution_timezone=automation.timezone,
        default_status=DefaultScheduleStatus.RUNNING if running else DefaultScheduleStatus.STOPPED,
        run_config=run_config,
        description=f"{cadence.words[0].upper()}{cadence.words[1:]}: {description}",
    )
