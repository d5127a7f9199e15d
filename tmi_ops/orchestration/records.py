"""Remove old runs from Dagster's records. Dagster purges ticks (dagster.yaml) but keeps runs and their events for ever:
18,700 rows a day for a production environment.

The store holds what was backed up and verified, so a run is kept only as long as somebody may read its log.
The last run that materialized an asset is kept, however old it is.
"""

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    Definitions,
    RunsFilter,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)

from tmi_ops.orchestration.dagster_instance import instance_of
from tmi_ops.orchestration.policies import ENVIRONMENT_TAG
from tmi_ops.orchestration.protected import Protected

LOOK_EVERY = timedelta(hours=1)
KEPT = {
    DagsterRunStatus.SUCCESS: timedelta(days=14),
    DagsterRunStatus.FAILURE: timedelta(days=90),
    DagsterRunStatus.CANCELED: timedelta(days=90),
}
# A tick has a minute; production's pace is 36 runs an hour.
RUNS_AT_ONCE = 200


@dataclass(frozen=True)
class EndedRun:
    """A run that is over, and when it ended."""

    run_id: str
    status: DagsterRunStatus
    ended: datetime


def forgettable(runs: Iterable[EndedRun], newest_of_assets: Collection[str], now: datetime) -> list[str]:
    """The ids of runs that can be removed, the oldest first. Pure.

    Args:
        newest_of_assets: ids of the runs that last materialized an asset.
    """
    old = [
        run
        for run in runs
        if run.status in KEPT and now - run.ended > KEPT[run.status] and run.run_id not in newest_of_assets
    ]
    return [run.run_id for run in sorted(old, key=lambda run: run.ended)][:RUNS_AT_ONCE]


def records_definitions(here: Protected) -> Definitions:
    """The sensor `records_keeper`."""

    @sensor(
        name=here.called("records_keeper"),
        minimum_interval_seconds=int(LOOK_EVERY.total_seconds()),
        default_status=here.sensor_status,
        description=f"Removes Dagster's record of runs that succeeded more than {KEPT[DagsterRunStatus.SUCCESS].days} "
        f"days ago, or failed more than {KEPT[DagsterRunStatus.FAILURE].days} days ago. Their backups and evidence "
        "stay in the store.",
    )
    def records_keeper(context: SensorEvaluationContext) -> SkipReason:
        from tmi_ops.orchestration.event_records import forget_events

        now = datetime.now(UTC)
        instance = instance_of(context)
        runs = forget_runs(instance, here.name, now)
        ages = KEPT[DagsterRunStatus.SUCCESS], KEPT[DagsterRunStatus.FAILURE]
        events = forget_events(instance, here.path, now, *ages)
        return SkipReason(f"Removed the records of {runs} old runs and {events} old asset and check events.")

    return Definitions(sensors=[records_keeper])


def forget_runs(instance: DagsterInstance, environment: str, now: datetime) -> int:
    """Remove the records of an environment's old runs. Returns how many were removed."""
    newest = {record.asset_entry.last_run_id or "" for record in instance.get_asset_records()}
    found = forgettable(_old_runs(instance, environment, now), newest, now)
    for run_id in found:
        instance.delete_run(run_id)
        with suppress(NotImplementedError, OSError):
            instance.compute_log_manager.delete_logs(prefix=[run_id])
    return len(found)


def _old_runs(instance: DagsterInstance, environment: str, now: datetime) -> list[EndedRun]:
    found: list[EndedRun] = []
    for status, kept in KEPT.items():
        wanted = RunsFilter(statuses=[status], tags={ENVIRONMENT_TAG: environment}, updated_before=now - kept)
        records = instance.get_run_records(wanted, limit=2 * RUNS_AT_ONCE, ascending=True)
        found += [
            EndedRun(record.dagster_run.run_id, status, record.update_timestamp.astimezone(UTC)) for record in records
        ]
    return found
