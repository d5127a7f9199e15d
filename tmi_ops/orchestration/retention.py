"""Retention as an asset: what is kept and why, what is removed, and the bytes of both; a job and a daily schedule."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetSelection,
    Config,
    Definitions,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
    asset,
)
from pydantic import Field

from tmi_ops.orchestration.confirming import Confirmation, is_meant
from tmi_ops.orchestration.policies import OWNERS, Lane, job_tags, pool
from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.resources import Environment, failures_explained
from tmi_ops.orchestration.results import Materialized, in_megabytes, megabytes
from tmi_ops.orchestration.schedules import scheduled

if TYPE_CHECKING:
    from tmi_ops.retention.execution import RetentionResult
    from tmi_ops.retention.plan import Decision, RetentionPlan

JOB = "retention"
LONGEST_RUN = timedelta(hours=6)
SPARED_CHECK = "nothing_spared"
_VERIFICATION = {"proven": "verified", "not proven": "not verified"}


class RetentionConfig(Config):
    """Whether anything is removed."""

    dry_run: bool = Field(default=False, description="Show the plan and remove nothing.")
    confirm: str = Confirmation


def retention_definitions(here: Protected) -> Definitions:
    """Asset `<environment>/backup/retention`, its job and the daily schedule."""
    key = here.key("backup", "retention")

    @asset(
        key=key,
        group_name="backup",
        kinds={"s3"},
        owners=OWNERS,
        pool=pool(here, "retention"),
        check_specs=[
            AssetCheckSpec(
                SPARED_CHECK,
                asset=key,
                description="Everything planned for removal was removed. If a hold, Object Lock or a newer backup kept "
                "something, it is listed with the reason.",
            )
        ],
        description=here.for_people(
            "Removes what the retention policy does not keep: backups, their WAL, incomplete backups and unfinished "
            "uploads. Never removes the newest verified backup, nor what a kept backup, the recovery window or a hold "
            "needs. Materialized by hand, it only plans; its job removes. Command: `tmi-ops prune`; plan only: "
            "`tmi-ops prune --dry-run`."
        ),
    )
    @here.given
    def retention(context: AssetExecutionContext, config: RetentionConfig, environment: Environment) -> Materialized:
        from tmi_ops.retention.execution import RetentionResult, execute_retention
        from tmi_ops.retention.locking import extend_locks
        from tmi_ops.retention.planning import plan_retention
        from tmi_ops.retention.reading import read_facts
        from tmi_ops.retention.rights import read_rights, require_rights

        with failures_explained():
            dry_run = config.dry_run or not is_meant(context, config.confirm, environment.name)
            store = environment.open_store()
            facts, now = read_facts(store), datetime.now(UTC)
            plan = plan_retention(facts, environment.settings.retention, now)
            context.log.info(f"{plan.describe()}. Policy: {plan.policy.describe()}.")
            report = environment.report(context.log)
            rights = read_rights(store, plan, now)
            for one in rights:
                context.log.info(f"{one.describe()}.")
            if not dry_run:
                require_rights(rights)
                extend_locks(store, facts, plan, report, now)
            done = RetentionResult() if dry_run else execute_retention(plan, store, report)
        return Materialized(metadata=_metadata(plan, done, dry_run=dry_run), check_results=[_spared(done)])

    job = here.asset_job(
        JOB,
        selection=AssetSelection.assets(key),
        description="Remove what the retention policy does not keep.",
        tags=job_tags(here, Lane.UPKEEP, LONGEST_RUN),
    )
    schedule = scheduled(
        here,
        "daily_retention",
        job,
        here.timetable.retention,
        "removes what the policy does not keep, after the nightly backups are taken and verified.",
    )
    return Definitions(assets=[retention], jobs=[job], schedules=[schedule])


def _metadata(plan: "RetentionPlan", done: "RetentionResult", *, dry_run: bool) -> dict[str, MetadataValue[Any]]:
    return {
        "summary": MetadataValue.text(f"{'Only planned: ' if dry_run else ''}{plan.describe()}"),
        "policy": MetadataValue.text(plan.policy.describe()),
        "plan": _plan_table(plan),
        "kept backups": MetadataValue.int(len(plan.kept)),
        "kept (MB)": megabytes(plan.kept_size),
        "kept WAL files": MetadataValue.int(sum(wal.kept for wal in plan.wal)),
        "kept WAL (MB)": megabytes(sum(wal.kept_size for wal in plan.wal)),
        "held backups": MetadataValue.int(sum(item.backup.hold is not None for item in plan.kept)),
        "removed backups": MetadataValue.int(done.backups),
        "removed WAL files": MetadataValue.int(done.wal_files),
        "removed incomplete backups": MetadataValue.int(done.half_made),
        "removed unfinished uploads": MetadataValue.int(done.uploads),
        "freed (MB)": megabytes(done.freed),
    }


def _plan_table(plan: "RetentionPlan") -> MetadataValue[Any]:
    columns = [
        TableColumn("outcome", "string"),
        TableColumn("what", "string"),
        TableColumn("taken at", "string", description="UTC"),
        TableColumn("size (MB)", "float"),
        TableColumn("verification", "string"),
        TableColumn("reason", "string"),
    ]
    rows = [_backup_row("keep", item) for item in plan.kept] + [_backup_row("remove", item) for item in plan.removed]
    rows += [
        _row("remove", half.backup_id, f"{half.touched_at:%Y-%m-%d %H:%M}", half.size, "", "incomplete and abandoned")
        for half in plan.half_made
    ]
    rows += [
        _row("remove", f"upload of {upload.key}", f"{upload.begun:%Y-%m-%d %H:%M}", 0, "", "never finished")
        for upload in plan.uploads
    ]
    for wal in plan.wal:
        name = f"WAL of cluster {wal.system_identifier}"
        why = "; ".join(wal.reasons) or "in the recovery window"
        rows.append(_row("keep", f"{name}: {wal.kept} files", "", wal.kept_size, "", why))
        if wal.removed:
            gone = f"{name}: {len(wal.removed)} files"
            rows.append(_row("remove", gone, "", wal.removed_size, "", "no kept backup needs it"))
    return MetadataValue.table([TableRecord(row) for row in rows], TableSchema(columns))


def _backup_row(outcome: str, decision: "Decision") -> dict[str, str | float]:
    backup = decision.backup
    taken = f"{backup.taken_at:%Y-%m-%d %H:%M}"
    verification = _VERIFICATION.get(backup.verification, backup.verification)
    return _row(outcome, backup.backup_id, taken, backup.size, verification, "; ".join(decision.reasons))


def _row(outcome: str, what: str, taken_at: str, size: int, verification: str, why: str) -> dict[str, str | float]:
    return {
        "outcome": outcome,
        "what": what,
        "taken at": taken_at,
        "size (MB)": in_megabytes(size),
        "verification": verification,
        "reason": why,
    }


def _spared(done: "RetentionResult") -> AssetCheckResult:
    said = "; ".join(f"{one.what}: {one.because}" for one in done.spared[:5])
    return AssetCheckResult(
        check_name=SPARED_CHECK,
        passed=not done.spared,
        severity=AssetCheckSeverity.WARN,
        description=said or "Everything planned for removal was removed.",
        metadata={"spared": len(done.spared)},
    )
