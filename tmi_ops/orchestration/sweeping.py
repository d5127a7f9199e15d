"""Orphans: leftovers of interrupted work. A sensor notices them, a job removes them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from dagster import Definitions, OpExecutionContext, RunRequest, SensorEvaluationContext, SensorResult, job, op, sensor

from tmi_ops.orchestration.policies import EXECUTOR, Lane, job_tags, pool
from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.resources import Environment, failures_explained, refusals_skipped
from tmi_ops.orchestration.results import megabytes

LOOK_EVERY = timedelta(hours=1)
LONGEST_RUN = timedelta(hours=1)


def sweeping_definitions(here: Protected) -> Definitions:
    """The job `sweep_orphans` and the sensor `orphan_sweeper`."""

    @op(
        name=here.called("sweep"),
        description=here.for_people(
            "Aborts multipart uploads older than a week, removes backup folders that have no manifest and were not "
            "written to for a day, and removes directories of interrupted drills on this machine. Commands: "
            "`tmi-ops prune` does this too, except for drill directories, which the next `tmi-ops drill` removes."
        ),
        # Retention removes the same, so they take turns.
        pool=pool(here, "retention"),
    )
    @here.given
    def sweep(context: OpExecutionContext, environment: Environment) -> None:
        from tmi_ops.drill.scratch import remove_abandoned
        from tmi_ops.retention.execution import execute_retention
        from tmi_ops.retention.planning import plan_retention
        from tmi_ops.retention.reading import read_facts
        from tmi_ops.retention.rights import read_rights, require_rights

        with failures_explained():
            store = environment.open_store()
            now = datetime.now(UTC)
            plan = plan_retention(read_facts(store), environment.settings.retention, now)
            orphans = replace(plan, removed=(), wal=())
            require_rights(read_rights(store, orphans, now))
            done = execute_retention(orphans, store, environment.report(context.log))
            directories = remove_abandoned(environment.settings.home / "scratch")
        context.add_output_metadata(
            {
                "incomplete backups": done.half_made,
                "unfinished uploads": done.uploads,
                "directories of interrupted drills": len(directories),
                "freed (MB)": megabytes(done.freed),
            }
        )

    @job(
        name=here.called("sweep_orphans"),
        resource_defs=here.of_its_jobs,
        description="Remove leftovers of interrupted backups, uploads and drills.",
        tags=job_tags(here, Lane.UPKEEP, LONGEST_RUN),
        executor_def=EXECUTOR,
    )
    def sweep_orphans() -> None:
        sweep()

    @sensor(
        name=here.called("orphan_sweeper"),
        job=sweep_orphans,
        minimum_interval_seconds=int(LOOK_EVERY.total_seconds()),
        default_status=here.sensor_status,
        description="Looks for unfinished uploads, incomplete backups and directories of interrupted drills that are "
        "old enough to be abandoned, and launches `sweep_orphans` to remove them.",
    )
    @here.looking
    def orphan_sweeper(context: SensorEvaluationContext, environment: Environment) -> SensorResult:
        from tmi_ops.drill.scratch import find_abandoned
        from tmi_ops.retention.orphans import find_orphans

        now = datetime.now(UTC)
        with refusals_skipped() as skipped:
            found = find_orphans(environment.open_store(), now)
            found += [directory.name for directory in find_abandoned(environment.settings.home / "scratch")]
        if skipped.because or not found:
            return SensorResult(skip_reason=skipped.because or "There are no orphans.")
        context.log.info(f"Orphans: {', '.join(found[:20])}")
        return SensorResult(run_requests=[RunRequest(run_key=f"sweep-{now:%Y%m%dT%H}")])

    return Definitions(jobs=[sweep_orphans], sensors=[orphan_sweeper])
