"""Schedules from the timetable, in one time zone, running by default except in development."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    DefaultScheduleStatus,
    RunConfig,
    RunRequest,
    RunsFilter,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
)
from dagster._core.definitions.run_config import convert_config_input

from tmi_ops.objectives.timetable import Cadence
from tmi_ops.orchestration.dagster_instance import instance_of
from tmi_ops.orchestration.in_tick import Work, done_in_tick
from tmi_ops.orchestration.policies import ENVIRONMENT_TAG
from tmi_ops.orchestration.protected import Protected

if TYPE_CHECKING:
    from dagster import JobDefinition
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

    AnyJob = JobDefinition | UnresolvedAssetJobDefinition

_EVERY_MINUTES = re.compile(r"\*/(\d+) \* \* \* \*")
# Not NOT_STARTED: a run that never reached the queue, because its launch was interrupted, waits for nothing. Dagster
# fails it after its start_timeout; until then no backup would start.
_NOT_BEGUN = [DagsterRunStatus.QUEUED, DagsterRunStatus.STARTING]


def scheduled(
    here: Protected,
    name: str,
    job: AnyJob,
    cadence: Cadence,
    description: str,
    *,
    run_config: RunConfig | Mapping[str, object] | None = None,
    begins_stopped: bool = False,
    turn: int = 0,
    in_tick: Work | None = None,
) -> ScheduleDefinition:
    """A schedule with a cadence of the timetable. While a run of it is queued it launches no other.

    Args:
        turn: schedules of the same cadence but another turn start in another minute; see `staggered`.
        begins_stopped: off until a person starts it, in every environment.
        in_tick: does the same without a run, if possible.
    """
    running = here.automation.running and not begins_stopped
    config = dict(convert_config_input(run_config) or {})
    crons = tuple(staggered(cron, here.name, turn) for cron in cadence.crons)

    def begin(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
        instance = instance_of(context)
        waiting = waiting_run(instance, here.name, job.name, config)
        if waiting is not None:
            return SkipReason(f"Run {waiting[:8]} of {job.name} is still queued.")
        done = None
        if in_tick is not None:
            done = done_in_tick(in_tick, job.name, here.made(), instance, context.log)
        if done is None:
            return RunRequest(run_config=config)
        return SkipReason(here.for_people(f"Done without a run: {done.text}"))

    return ScheduleDefinition(
        name=here.called(name),
        job=job,
        cron_schedule=crons[0] if len(crons) == 1 else crons,
        execution_timezone=here.automation.timezone,
        default_status=DefaultScheduleStatus.RUNNING if running else DefaultScheduleStatus.STOPPED,
        execution_fn=begin,
        description=here.for_people(f"{cadence.text[0].upper()}{cadence.text[1:]}: {description}"),
    )


def staggered(cron: str, environment: str, turn: int) -> str:
    """A cron of every N minutes, shifted by the environment's name and by turn, so that the runs of a fleet or of an
    environment do not all start in the same second. Other crons are unchanged. Pure."""
    every = _EVERY_MINUTES.fullmatch(cron)
    if every is None:
        return cron
    minutes = int(every[1])
    begins = (zlib.crc32(environment.encode()) + turn * (minutes // 2)) % minutes
    return f"{begins}-59/{minutes} * * * *" if begins else cron


def waiting_run(instance: DagsterInstance, environment: str, job: str, config: Mapping[str, object]) -> str | None:
    """The id of a run of this job with the same configuration that has not started yet; None if there is none."""
    waiting = RunsFilter(job_name=job, statuses=_NOT_BEGUN, tags={ENVIRONMENT_TAG: environment})
    return next((run.run_id for run in instance.get_runs(waiting) if _told(run.run_config) == _told(config)), None)


def _told(config: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """The configuration of each step, without unset values."""
    steps = config.get("ops")
    steps = steps if isinstance(steps, Mapping) else {}
    told = {
        step: {name: value for name, value in (told.get("config") or {}).items() if value is not None}
        for step, told in steps.items()
    }
    return {step: values for step, values in told.items() if values}
