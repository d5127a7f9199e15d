"""The definitions of one protected database, or of several side by side: wiring only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from dagster import AssetSelection, Definitions

from tmi_ops.orchestration.access import access_definitions
from tmi_ops.orchestration.backup import backup_definitions
from tmi_ops.orchestration.base_backup import base_backup_definitions
from tmi_ops.orchestration.drill import drill_definitions
from tmi_ops.orchestration.failed_runs import failed_run_definitions
from tmi_ops.orchestration.freshness import with_freshness
from tmi_ops.orchestration.guarding import guarding_definitions
from tmi_ops.orchestration.health import health_definitions
from tmi_ops.orchestration.heartbeat import heartbeat_definitions
from tmi_ops.orchestration.maintenance import maintenance_definitions
from tmi_ops.orchestration.objectives import objectives_definitions
from tmi_ops.orchestration.policies import EXECUTOR, Lane, grouped_by_environment, job_tags
from tmi_ops.orchestration.protected import Protected, protected
from tmi_ops.orchestration.records import records_definitions
from tmi_ops.orchestration.recovery_runbooks import recovery_runbook_definitions
from tmi_ops.orchestration.retention import retention_definitions
from tmi_ops.orchestration.row_rescue import row_rescue_definitions
from tmi_ops.orchestration.schema import schema_definitions
from tmi_ops.orchestration.schema_drift import schema_drift_definitions
from tmi_ops.orchestration.shadow import shadow_definitions
from tmi_ops.orchestration.sweeping import sweeping_definitions
from tmi_ops.orchestration.wal import wal_definitions

PROTECT_JOB = "protect"
LONGEST_RUN = timedelta(days=1)


def main_job_definitions(here: Protected) -> Definitions:
    """The job `protect`."""
    schema = (("schema", "migration"), ("schema", "validation")) if here.profile.has_models else ()
    backup = (("backup", "logical"), ("backup", "logical_verified"))
    assets = [here.key(*path) for path in (*schema, *backup)]
    job = here.asset_job(
        PROTECT_JOB,
        selection=AssetSelection.assets(*assets),
        description=("Migrate and validate the schema, take" if schema else "Take")
        + " a logical backup and verify it by a restore.",
        tags=job_tags(here, Lane.BACKUP, LONGEST_RUN),
    )
    return Definitions(jobs=[job])


def environment_definitions(environment: str) -> Definitions:
    """The definitions of one environment, with plain names. Connects to nothing and reads no secret."""
    return Definitions.merge(definitions_of([protected(environment)]), Definitions(executor=EXECUTOR))


def fleet_definitions(names: Iterable[str]) -> Definitions:
    """The definitions of several environments: names with the environment in them, schedules shifted."""
    served = [protected(name).at_place(number) for number, name in enumerate(names)]
    return Definitions.merge(definitions_of(served), Definitions(executor=EXECUTOR))


def definitions_of(served: Sequence[Protected]) -> Definitions:
    """The definitions of these; the code location sets the executor."""
    return Definitions.merge(*(part for here in served for part in _parts(here)))


def _parts(here: Protected) -> list[Definitions]:
    capabilities = [
        *([schema_definitions(here)] if here.profile.has_models else []),
        backup_definitions(here),
        row_rescue_definitions(here),
        main_job_definitions(here),
        health_definitions(here),
        *([access_definitions(here)] if here.profile.has_roles else []),
        maintenance_definitions(here),
        recovery_runbook_definitions(here),
        records_definitions(here),
        *(_of_the_cluster(here) if here.is_environment else []),
    ]
    together = Definitions.merge(*capabilities)
    return [
        together.map_asset_specs(func=lambda spec: with_freshness(grouped_by_environment(spec, here), here)),
        guarding_definitions(here, together),
        *([schema_drift_definitions(here, together)] if here.profile.has_models else []),
        failed_run_definitions(here, together),
        Definitions(resources={here.resource: here.made()}),
    ]


def _of_the_cluster(here: Protected) -> list[Definitions]:
    """The databases of a cluster share its base backups, its WAL and its folder in the store."""
    return [
        base_backup_definitions(here),
        wal_definitions(here),
        retention_definitions(here),
        drill_definitions(here),
        heartbeat_definitions(here),
        shadow_definitions(here),
        objectives_definitions(here),
        sweeping_definitions(here),
    ]
