"""Logical backups and their verification: assets, jobs and the nightly schedule."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

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

from tmi_ops.orchestration.policies import OWNERS, Lane, backup_pool, job_tags, pool
from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.resources import Environment, failures_explained
from tmi_ops.orchestration.results import Materialized, bullets, megabytes, seconds
from tmi_ops.orchestration.schedules import scheduled
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.recovery.verify import VerifyResult
    from tmi_ops.store.manifest import Manifest

JOB = "logical_backup"
VERIFY_JOB = "verify_backup"
VERIFIED_CHECK = "equal_to_source"
LONGEST_RUN = timedelta(days=1)


class LogicalBackupConfig(Config):
    """How the backup is taken."""

    format: Literal["custom", "directory", "plain", "schema-only"] = Field(
        default="custom",
        description="custom: streamed to the store. directory: parallel, needs local disk. plain: SQL. schema-only: no "
        "rows.",
    )


class VerifyConfig(Config):
    """Which backup is verified."""

    backup: str = Field(default="latest", description="Backup id, a unique prefix of one, or `latest`.")


def backup_definitions(here: Protected) -> Definitions:
    """Assets `<environment>/backup/logical` and `<environment>/backup/logical_verified`, their jobs and schedule."""
    logical_key = here.key("backup", "logical")
    verified_key = here.key("backup", "logical_verified")

    @asset(
        key=logical_key,
        deps=[here.key("schema", "migration")] if here.profile.has_models else [],
        group_name="backup",
        kinds={"postgres", "s3"},
        owners=OWNERS,
        pool=backup_pool(here),
        description=here.for_people(
            "A logical backup: pg_dump of one snapshot, streamed to the store, with row count and digest of every "
            "table. The manifest, written last, completes it. Command: `tmi-ops backup logical`."
        ),
    )
    @here.given
    def logical(context: AssetExecutionContext, config: LogicalBackupConfig, environment: Environment) -> Materialized:
        from tmi_ops.backup.logical import back_up_logical

        with failures_explained():
            manifest = back_up_logical(
                environment.settings_for(Purpose.BACKUP),
                environment.open_store(),
                config.format,
                environment.report(context.log),
            )
        return Materialized(metadata=_backup_metadata(manifest))

    @asset(
        key=verified_key,
        deps=[logical_key],
        group_name="backup",
        kinds={"postgres", "s3"},
        owners=OWNERS,
        pool=pool(here, "scratch_cluster"),
        check_specs=[
            AssetCheckSpec(
                VERIFIED_CHECK,
                asset=verified_key,
                blocking=True,
                description="The restored copy equals its source: SHA-256 of every object, rows of every table, every "
                "definition, every sequence.",
            )
        ],
        description=here.for_people(
            "Verification of the newest logical backup: restored into a scratch cluster and compared with its source. "
            "The result is kept in the store. Command: `tmi-ops verify latest`."
        ),
    )
    @here.given
    def logical_verified(
        context: AssetExecutionContext, config: VerifyConfig, environment: Environment
    ) -> Materialized:
        from tmi_ops.recovery.verify import verify_backup
        from tmi_ops.store.catalogue import find_backup

        with failures_explained():
            settings, store = environment.settings_for(Purpose.BACKUP), environment.open_store()
            chosen = find_backup(store, config.backup, settings.postgres.database)
            result = verify_backup(settings, store, chosen, environment.report(context.log))
        return Materialized(metadata=_verification_metadata(result), check_results=[_verification_check(result)])

    job = here.asset_job(
        JOB,
        selection=AssetSelection.assets(logical_key, verified_key),
        description="Take a logical backup and verify it by a restore.",
        tags=job_tags(here, Lane.BACKUP, LONGEST_RUN),
    )
    result = here.asset_job(
        VERIFY_JOB,
        selection=AssetSelection.assets(verified_key),
        description="Verify a logical backup by a restore; the newest one by default.",
        tags=job_tags(here, Lane.VERIFICATION, LONGEST_RUN),
    )
    schedule = scheduled(
        here,
        "nightly_logical_backup",
        job,
        here.timetable.logical,
        "takes a logical backup and verifies it in the same run.",
    )
    return Definitions(assets=[logical, logical_verified], jobs=[job, result], schedules=[schedule])


def _backup_metadata(manifest: "Manifest") -> dict[str, MetadataValue[Any]]:
    rows = sum(fingerprint.rows for fingerprint in manifest.fingerprints.values())
    return {
        "backup": MetadataValue.text(manifest.backup_id),
        "format": MetadataValue.text(manifest.format),
        "size (MB)": megabytes(manifest.total_size),
        "database size (MB)": megabytes(manifest.database_size),
        "duration (s)": seconds(manifest.duration_seconds),
        "tables": MetadataValue.int(len(manifest.fingerprints)),
        "dagster/row_count": MetadataValue.int(rows),
        "snapshot at": MetadataValue.timestamp(manifest.snapshot_at),
        "PostgreSQL": MetadataValue.text(manifest.server_version),
        "encrypted": MetadataValue.bool(manifest.encrypted),
        "restore with": MetadataValue.md(f"`tmi-ops restore --backup {manifest.backup_id} --into NEW_DATABASE`"),
        "fingerprints": _fingerprint_table(manifest),
    }


def _fingerprint_table(manifest: "Manifest") -> MetadataValue[Any]:
    largest_first = sorted(manifest.fingerprints.items(), key=lambda item: -item[1].rows)
    return MetadataValue.table(
        records=[
            TableRecord({"table": name, "rows": fingerprint.rows, "digest": fingerprint.digest})
            for name, fingerprint in largest_first
        ],
        schema=TableSchema(
            [
                TableColumn("table", "string"),
                TableColumn("rows", "int", description="in the snapshot"),
                TableColumn("digest", "string", description="order-independent SHA-256 of every row"),
            ]
        ),
    )


def _verification_metadata(result: "VerifyResult") -> dict[str, MetadataValue[Any]]:
    verification = result.verification
    return {
        "backup": MetadataValue.text(verification.backup_id),
        "outcome": MetadataValue.text(verification.outcome),
        "restore time (s)": seconds(verification.restore_seconds),
        "tables compared": MetadataValue.int(verification.tables),
        "dagster/row_count": MetadataValue.int(verification.rows),
        **{f"{phase} (s)": seconds(taken) for phase, taken in verification.phases.items()},
        "restored into": MetadataValue.text(f"PostgreSQL {verification.server_version}, a scratch cluster"),
        "schema errors in the source": MetadataValue.int(_schema_errors(result)),
    }


def _verification_check(result: "VerifyResult") -> AssetCheckResult:
    verification = result.verification
    return AssetCheckResult(
        check_name=VERIFIED_CHECK,
        passed=verification.passed,
        severity=AssetCheckSeverity.ERROR,
        description="Verified." if verification.passed else verification.reasons[0],
        metadata={
            "backup": verification.backup_id,
            "reasons": bullets(verification.reasons, "Nothing differs."),
            "not compared": bullets(verification.but_for, "Everything was compared."),
        },
    )


def _schema_errors(result: "VerifyResult") -> int:
    if result.validation is None:
        return 0
    return sum(finding.level == "ERROR" for finding in result.validation.findings)
