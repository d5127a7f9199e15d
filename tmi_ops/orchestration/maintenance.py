"""Maintenance as a job: what the health probes ask for, within limits. Not an asset, so that nobody materializes it by
accident."""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dagster import (
    Config,
    Definitions,
    Failure,
    MetadataValue,
    OpExecutionContext,
    TableColumn,
    TableRecord,
    TableSchema,
    job,
    op,
)
from pydantic import Field

from tmi_ops.errors import SettingsError
from tmi_ops.orchestration.policies import EXECUTOR, OWNERS, Lane, job_tags, pool
from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.resources import Environment, failures_explained
from tmi_ops.orchestration.schedules import scheduled

if TYPE_CHECKING:
    from tmi_ops.health.maintenance.execution import Taken
    from tmi_ops.health.maintenance.limits import Limits
    from tmi_ops.health.maintenance.steps import Kind, Plan

LONGEST_RUN = timedelta(hours=12)


class MaintenanceConfig(Config):
    """What is done, within which limits. Durations are written like `10m`."""

    plan_only: bool = Field(default=False, description="Log the plan and change nothing.")
    vacuum: bool = Field(default=True, description="VACUUM tables where autovacuum is behind or row ages are high.")
    analyze: bool = Field(default=True, description="ANALYZE tables whose statistics are out of date.")
    reindex: bool = Field(
        default=True, description="Rebuild bloated and invalid indexes; drop leftovers of failed rebuilds."
    )
    terminate: bool = Field(
        default=False, description="Terminate sessions idle in transaction; cancel queries that run too long."
    )
    idle_longer_than: str = Field(default="10m", description="Terminate sessions idle in transaction longer than this.")
    running_longer_than: str = Field(default="30m", description="Cancel queries that run longer than this.")
    window: str | None = Field(
        default=None, description="Hours, such as 01:00-05:00. Default: TMI_OPS_MAINTENANCE_WINDOW, or any time."
    )
    max_duration: str = Field(default="1h", description="After this, no step starts and the running one is cancelled.")
    lock_timeout: str = Field(default="5s", description="How long VACUUM and ANALYZE wait for their lock.")
    exact_bloat: bool = Field(default=False, description="Measure bloat with pgstattuple, which reads entire indexes.")


def maintenance_definitions(here: Protected) -> Definitions:
    """The job `maintenance` and its nightly schedule, which is off by default."""

    @op(
        name=here.called("maintain"),
        description=here.for_people(
            "VACUUM and ANALYZE tables that the health probes report, and rebuild bloated and invalid indexes with "
            "REINDEX CONCURRENTLY. No step blocks reads or writes. Command: `tmi-ops maintain`; plan only: "
            "`tmi-ops maintain --dry-run`."
        ),
        pool=pool(here, "maintenance"),
        tags={"tmi_ops/owner": OWNERS[0].replace(":", "-")},
    )
    @here.given
    def maintain(context: OpExecutionContext, config: MaintenanceConfig, environment: Environment) -> None:
        from tmi_ops.health.examine import Examination, examine
        from tmi_ops.health.maintenance.execution import execute, within_rights
        from tmi_ops.health.maintenance.planning import PROBES, plan_maintenance
        from tmi_ops.settings import Purpose

        report = environment.report(context.log)
        with failures_explained(tried_again=False):
            variables = environment.variables
            limits = _limits(config, variables)
            how = Examination(PROBES, exact_bloat=config.exact_bloat, variables=variables)
            plan = plan_maintenance(examine(environment.settings_for(Purpose.OWNER), how, report).results, limits)
            if config.plan_only and plan.steps:
                plan = within_rights(environment.settings_for(Purpose.OWNER).postgres, plan)
            for step in plan.steps:
                context.log.info(f"planned: {step.sql} {step.subject}: {step.reason}")
            for one in plan.left_out:
                context.log.warning(f"left out: {one.subject}: {one.reason}")
            taken = (
                ()
                if config.plan_only
                else execute(environment.settings_for(Purpose.OWNER).postgres, plan, limits, report)
            )
        metadata = _metadata(plan, taken)
        failed = [one for one in taken if one.outcome == "failed"]
        if failed:
            raise Failure(
                description=f"{len(failed)} of {len(taken)} steps failed: {failed[0].step.sql} {failed[0].note}",
                metadata=metadata,
                allow_retries=False,
            )
        context.add_output_metadata(metadata)

    @job(
        name=here.called("maintenance"),
        resource_defs=here.of_its_jobs,
        description="Do the maintenance that the health probes ask for, within limits.",
        tags=job_tags(here, Lane.UPKEEP, LONGEST_RUN),
        executor_def=EXECUTOR,
    )
    def maintenance() -> None:
        maintain()

    schedule = scheduled(
        here,
        "nightly_maintenance",
        maintenance,
        here.timetable.maintenance,
        "does the maintenance that the health probes ask for, after the nightly backup. Off until you start it.",
        begins_stopped=True,
    )
    return Definitions(jobs=[maintenance], schedules=[schedule])


def _limits(config: MaintenanceConfig, variables: Mapping[str, str]) -> "Limits":
    from tmi_ops.health.maintenance.limits import TIMEZONE_VARIABLE, WINDOW_VARIABLE, Limits, parse_window
    from tmi_ops.settings import parse_duration

    wanted: dict[Kind, bool] = {
        "connections": config.terminate,
        "vacuum": config.vacuum,
        "analyze": config.analyze,
        "reindex": config.reindex,
    }
    hours = config.window or variables.get(WINDOW_VARIABLE)
    try:
        return Limits(
            kinds=frozenset(kind for kind, chosen in wanted.items() if chosen),
            terminate=config.terminate,
            idle_s=parse_duration(config.idle_longer_than).total_seconds(),
            running_s=parse_duration(config.running_longer_than).total_seconds(),
            window=parse_window(hours, variables.get(TIMEZONE_VARIABLE) or "UTC") if hours else None,
            max_duration_s=parse_duration(config.max_duration).total_seconds(),
            lock_timeout_s=parse_duration(config.lock_timeout).total_seconds(),
        )
    except ValueError as error:
        raise SettingsError(
            f"The run's configuration is malformed: {error}.", hint="write durations like `10m`"
        ) from None


def _metadata(plan: "Plan", taken: tuple["Taken", ...]) -> dict[str, MetadataValue[Any]]:
    rows: list[dict[str, str | float]] = [
        {
            "outcome": one.outcome,
            "step": one.step.sql,
            "why": one.step.reason,
            "note": one.note,
            "seconds": round(one.seconds, 2),
        }
        for one in taken
    ] or [
        {"outcome": "planned", "step": step.sql, "why": step.reason, "note": f"locks: {step.locks}", "seconds": 0.0}
        for step in plan.steps
    ]
    rows += [
        {"outcome": "left to you", "step": one.subject, "why": one.reason, "note": "", "seconds": 0.0}
        for one in plan.left_out
    ]
    columns = [TableColumn(name, "string") for name in ("outcome", "step", "why", "note")]
    return {
        "steps": MetadataValue.table(
            [TableRecord(row) for row in rows], TableSchema([*columns, TableColumn("seconds", "float")])
        ),
        "planned": MetadataValue.int(len(plan.steps)),
        "done": MetadataValue.int(sum(one.outcome == "done" for one in taken)),
        "duration (s)": MetadataValue.float(round(sum((one.seconds for one in taken), 0.0), 2)),
    }
