"""The run that Dagster launches for each automatic cure, and which of them are running."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dagster import DagsterInstance, DagsterRunStatus, RunRequest, RunsFilter

from tmi_ops.objectives.acting import Order, Topic
from tmi_ops.objectives.cures import Action, Cure
from tmi_ops.orchestration import backup, base_backup, drill, wal
from tmi_ops.orchestration.policies import ENVIRONMENT_TAG
from tmi_ops.orchestration.protected import Protected

if TYPE_CHECKING:
    from dagster import Definitions

    from tmi_ops.orchestration.schedules import AnyJob

CURE_TAG = "tmi_ops/cures"
JOBS: Mapping[Action, str] = {
    Action.CATCH_UP_WAL: wal.JOB,
    Action.BACK_UP_INCREMENTAL: base_backup.JOB,
    Action.BACK_UP_BASE: base_backup.JOB,
    Action.BACK_UP_LOGICAL: backup.JOB,
    Action.PROVE_BACKUP: backup.PROOF_JOB,
    Action.RUN_DRILL: drill.DRILL_JOB,
}
# Not NOT_STARTED: such a run never reached the queue, and will not run.
_WAITING_OR_AT_WORK = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def cure_jobs(here: Protected, definitions: Definitions) -> list[AnyJob]:
    """The jobs that cures launch."""
    names = {here.called(job) for job in JOBS.values()}
    return [job for job in definitions.jobs or () if job.name in names]


def cure_request(here: Protected, topic: Topic, order: Order) -> RunRequest:
    """The run of an order; Dagster launches the same key once."""
    return RunRequest(
        run_key=order.key,
        job_name=here.called(JOBS[order.cure.action]),
        run_config=_run_config(here, order.cure),
        tags={CURE_TAG: topic.value},
    )


def cures_at_work(instance: DagsterInstance, here: Protected) -> frozenset[Action]:
    """Cures that run or are queued, whoever launched them."""
    runs = instance.get_runs(RunsFilter(statuses=_WAITING_OR_AT_WORK, tags={ENVIRONMENT_TAG: here.name}))
    names = {run.job_name for run in runs}
    return frozenset(action for action, job in JOBS.items() if here.called(job) in names)


def _run_config(here: Protected, cure: Cure) -> dict[str, Any]:
    if cure.action is Action.BACK_UP_INCREMENTAL:
        return _asset_config(here, ("backup", "base"), {"incremental": True})
    if cure.action is Action.RUN_DRILL:
        return _asset_config(here, ("recovery", "drill"), {"latest": True})
    if cure.action is Action.PROVE_BACKUP and cure.backup_id:
        return _asset_config(here, ("backup", "logical_verified"), {"backup": cure.backup_id})
    return {}


def _asset_config(here: Protected, path: tuple[str, ...], config: dict[str, Any]) -> dict[str, Any]:
    return {"ops": {here.key(*path).to_python_identifier(): {"config": config}}}
