"""Base backups as an asset, a job and two schedules: full every week, incremental as often as the RTO requires."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetExecutionContext,
    AssetSelection,
    Config,
    Definitions,
    MetadataValue,
    RunConfig,
    asset,
)
from pydantic import Field

from tmi_ops.orchestration.policies import OWNERS, Lane, backup_pool, job_tags
from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.resources import Environment, failures_explained
from tmi_ops.orchestration.results import Materialized, megabytes, seconds
from tmi_ops.orchestration.schedules import scheduled
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.store.manifest import BaseManifest

JOB = "base_backup"
LONGEST_RUN = timedelta(days=1)
MEGABYTE = 10**6


class BaseBackupConfig(Config):
    """How the base backup is taken."""

    incremental: bool = Field(
        default=False,
        description="Back up only what changed since the newest base backup. If that is not possible, a full backup is "
        "taken and the metadata says why.",
    )
    max_rate_mb: int | None = Field(
        default=None, ge=1, description="Limit the transfer rate, in MB per second. Default: no limit."
    )


def base_backup_definitions(here: Protected) -> Definitions:
    """Asset `<environment>/backup/base`, its job, and the schedules of full and incremental backups."""
    base_key = here.key("backup", "base")

    @asset(
        key=base_key,
        group_name="backup",
        kinds={"postgres", "s3"},
        owners=OWNERS,
        pool=backup_pool(here),
        description=here.for_people(
            "A base backup: the files of the cluster, streamed from the server to the store. The manifest, written "
            "last, completes it. With archived WAL it can be recovered to any moment after it. Command: "
            "`tmi-ops backup base`."
        ),
    )
    @here.given
    def base(context: AssetExecutionContext, config: BaseBackupConfig, environment: Environment) -> Materialized:
        from tmi_ops.backup.base import back_up_base

        with failures_explained():
            manifest = back_up_base(
                environment.settings_for(Purpose.BACKUP),
                environment.open_store(),
                environment.report(context.log),
                incremental=config.incremental,
                max_rate=config.max_rate_mb * MEGABYTE if config.max_rate_mb else None,
            )
        return Materialized(metadata=_metadata(manifest))

    job = here.asset_job(
        JOB,
        selection=AssetSelection.assets(base_key),
        description="Take a base backup.",
        tags=job_tags(here, Lane.BACKUP, LONGEST_RUN),
    )
    timetable = here.timetable
    weekly = scheduled(
        here, "weekly_base_backup", job, timetable.full_base, "takes a full base backup, which begins a new chain."
    )
    between = scheduled(
        here,
        "incremental_base_backup",
        job,
        timetable.incremental_base,
        "takes an incremental base backup, so that the WAL after it replays within half of the RTO. Full if the server "
        "cannot take incremental ones (before PostgreSQL 17, or without summarize_wal).",
        run_config=RunConfig(ops={base_key.to_python_identifier(): BaseBackupConfig(incremental=True)}),
    )
    return Definitions(assets=[base], jobs=[job], schedules=[weekly, between])


def _metadata(manifest: "BaseManifest") -> dict[str, MetadataValue[Any]]:
    duration = max(manifest.duration_seconds, 0.001)
    metadata: dict[str, MetadataValue[Any]] = {
        "backup": MetadataValue.text(manifest.backup_id),
        "format": MetadataValue.text(manifest.format),
        "size (MB)": megabytes(manifest.total_size),
        "cluster size (MB)": megabytes(manifest.cluster_size),
        "duration (s)": seconds(manifest.duration_seconds),
        "speed (MB/s)": megabytes(manifest.cluster_size / duration),
        "chain length": MetadataValue.int(len(manifest.chain) + 1),
        "consistent at": MetadataValue.timestamp(manifest.consistent_at),
        "timeline": MetadataValue.int(manifest.timeline),
        "WAL": MetadataValue.text(f"{manifest.start_lsn} to {manifest.stop_lsn}"),
        "PostgreSQL": MetadataValue.text(manifest.server_version),
        "tablespaces": MetadataValue.int(len(manifest.tablespaces)),
        "data checksums": MetadataValue.bool(manifest.data_checksums),
        "encrypted": MetadataValue.bool(manifest.encrypted),
        "restore with": MetadataValue.md(
            "`tmi-ops restore --latest --into NEW_DIRECTORY`, or `--to-time` for any moment after "
            f"{manifest.consistent_at:%Y-%m-%d %H:%M:%S %Z}"
        ),
    }
    if manifest.parent is not None:
        metadata["parent"] = MetadataValue.text(manifest.parent)
    if manifest.full_because is not None:
        metadata["full because"] = MetadataValue.text(manifest.full_because)
    return metadata
