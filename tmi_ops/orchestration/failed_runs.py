"""Two sensors on runs: one that finally failed raises an alert, the next success of its job ends it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dagster import (
    DagsterRun,
    DagsterRunStatus,
    Definitions,
    RunFailureSensorContext,
    RunStatusSensorContext,
    run_failure_sensor,
    run_status_sensor,
)

from tmi_ops.orchestration.policies import ENVIRONMENT_TAG, LANE_TAG, Lane
from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.resources import REFUSED, Environment

if TYPE_CHECKING:
    from tmi_ops.alerts.alert import Alert

LOOK_EVERY_S = 60
# A job's name, and its name in older releases, of which an alert may still be open.
FORMER_NAME = ("verify_backup", "prove_backup")
# Dagster's tags of a run that no person launched.
_BEGUN_BY_ITSELF = ("dagster/schedule_name", "dagster/sensor_name")
# Dagster's tag of a failed run that it will retry.
WILL_RETRY_TAG = "dagster/will_retry"
_AT_RISK: Mapping[Lane, str] = {
    Lane.ARCHIVE: "The WAL archive falls behind, and so does the recovery point.",
    Lane.BACKUP: "No new backup was taken; the last one is getting older.",
    Lane.VERIFICATION: "It is not known whether the newest backup can be restored, nor how long that takes.",
    Lane.WATCH: "Problems that this job would report may go unnoticed.",
    Lane.RECOVERY: "The recovery is not complete; its journal, if it was started, says which steps are done.",
    Lane.UPKEEP: "This maintenance was not done.",
}


@dataclass(frozen=True)
class FailedRun:
    """A run that will not be retried. `what` and `hint` are the error's."""

    job: str
    run_id: str
    lane: Lane
    what: str
    hint: str
    at: datetime


def failed_run_alert(run: FailedRun) -> "Alert":
    """Only a warning: the guards of the objectives tell whether an objective is breached."""
    from tmi_ops.alerts.alert import Alert
    from tmi_ops.checks.finding import Severity

    return Alert(
        key=alert_key(run.job),
        severity=Severity.WARNING,
        summary=f"The job {run.job} failed",
        at_risk=_AT_RISK[run.lane],
        since=run.at,
        done=f"Run {run.run_id[:8]}: {run.what}",
        to_do=run.hint or f"see run {run.run_id[:8]} in Dagster, then launch {run.job} again",
    )


def alert_key(job: str) -> str:
    return f"run-failed.{job}"


def failed_run_definitions(here: Protected, capabilities: Definitions) -> Definitions:
    """The sensors `failed_run` and `recovered_run` of the jobs of `capabilities`.

    Neither returns a SkipReason for a run: Dagster accepts either one SkipReason or reactions, so a tick over two runs
    of both kinds would fail, and all after it.
    """
    status = here.sensor_status
    jobs = list(capabilities.jobs or ())

    @run_failure_sensor(
        name=here.called("failed_run"),
        monitored_jobs=jobs,
        minimum_interval_seconds=LOOK_EVERY_S,
        default_status=status,
        description="Raises an alert for a job whose run failed and will not be retried. Ignores runs that a person "
        "launched from an asset's page.",
    )
    @here.looking
    def failed_run(context: RunFailureSensorContext, environment: Environment) -> None:
        from tmi_ops.alerts.service import AlertService

        run = context.dagster_run
        if not is_ours(run.tags, environment.name):
            return
        if why := nobodys_concern(run, refused=_refused(context)):
            context.log.info(why)
            return
        outcome = AlertService(environment.settings).raise_alert(failed_run_alert(_read(context)))
        context.log.info(outcome.text)

    @run_status_sensor(
        run_status=DagsterRunStatus.SUCCESS,
        name=here.called("recovered_run"),
        monitored_jobs=jobs,
        minimum_interval_seconds=LOOK_EVERY_S,
        default_status=status,
        description="Ends the alert of a failed job when the job succeeds.",
    )
    @here.looking
    def recovered_run(context: RunStatusSensorContext, environment: Environment) -> None:
        from tmi_ops.alerts.service import AlertService

        run = context.dagster_run
        if is_ours(run.tags, environment.name):
            alerts = AlertService(environment.settings)
            for job in {run.job_name, run.job_name.replace(*FORMER_NAME)}:
                alerts.resolve(alert_key(job), f"Run {run.run_id[:8]} succeeded.")

    return Definitions(sensors=[failed_run, recovered_run])


def nobodys_concern(run: DagsterRun, *, refused: bool) -> str:
    """Why a failed run needs no alert; empty if it needs one.

    Args:
        refused: its configuration or the settings were refused before anything was started.
    """
    if run.tags.get(WILL_RETRY_TAG) == "true":
        return f"{run.job_name} will be retried."
    if refused and not any(tag in run.tags for tag in _BEGUN_BY_ITSELF):
        return f"{run.job_name} was refused before it started anything: the person who launched it was told why."
    if run.tags[LANE_TAG].endswith(Lane.RECOVERY) and not _confirmed(run):
        return f"{run.job_name} was launched to show a plan: nothing was started."
    return ""


def _confirmed(run: DagsterRun) -> bool:
    steps = run.run_config.get("ops")
    return isinstance(steps, Mapping) and any((step.get("config") or {}).get("confirm") for step in steps.values())


def _refused(context: RunFailureSensorContext) -> bool:
    failures = [event.step_failure_data.user_failure_data for event in context.get_step_failure_events()]
    return bool(failures) and all(failure is not None and REFUSED in failure.metadata for failure in failures)


def is_ours(tags: Mapping[str, str], environment: str) -> bool:
    return tags.get(ENVIRONMENT_TAG) == environment and LANE_TAG in tags


def _read(context: RunFailureSensorContext) -> FailedRun:
    what, hint = context.failure_event.message or "", ""
    for event in context.get_step_failure_events():
        failure = event.step_failure_data.user_failure_data
        if failure is not None:
            said = {name: str(value.value) for name, value in failure.metadata.items()}
            what, hint = said.get("what happened", failure.description or what), said.get("next step", "")
        elif event.step_failure_data.error is not None:
            what = event.step_failure_data.error.message.strip()
    run = context.dagster_run
    lane = Lane(run.tags[LANE_TAG].rpartition("/")[2])
    return FailedRun(run.job_name, run.run_id, lane, what, hint, datetime.now(UTC))
