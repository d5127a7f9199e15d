"""The code location of one environment (TMI_ENV): wiring only."""

from __future__ import annotations

from dagster import Definitions

from tmi_ops.orchestration.access import access_definitions
from tmi_ops.orchestration.backup import backup_definitions
from tmi_ops.orchestration.base_backup import base_backup_definitions
from tmi_ops.orchestration.drill import drill_definitions
from tmi_ops.orchestration.failed_runs import failed_run_definitions
from tmi_ops.orchestration.freshness import with_freshness
from tmi_ops.orchestration.guarding import guarding_definitions
from tmi_ops.orchestration.health import health_definitions
from tmi_ops.orchestration.maintenance import maintenance_definitions
from tmi_ops.orchestration.objectives import objectives_definitions
from tmi_ops.orchestration.policies import EXECUTOR, grouped_by_environment
from tmi_ops.orchestration.protection import protection_definitions
from tmi_ops.orchestration.records import records_definitions
from tmi_ops.orchestration.recovery_runbooks import recovery_runbook_definitions
from tmi_ops.orchestration.resources import Environment
from tmi_ops.orchestration.retention import retention_definitions
from tmi_ops.orchestration.row_rescue import row_rescue_definitions
from tmi_ops.orchestration.schedules import objectives_of, timetable_of
from tmi_ops.orchestration.schema import schema_definitions
from tmi_ops.orchestration.schema_drift import schema_drift_definitions
from tmi_ops.orchestration.shadow import shadow_definitions
from tmi_ops.orchestration.sweeping import sweeping_definitions
from tmi_ops.orchestration.wal import wal_definitions
from tmi_ops.settings import environment_name, profile_of


def environment_definitions(environment: str) -> Definitions:
    """Everything that runs for one environment. Nothing is connected to, and no secret is read."""
    profile = profile_of(environment)
    capabilities = Definitions.merge(
        *([schema_definitions(environment)] if profile.has_models else []),
        backup_definitions(environment),
        base_backup_definitions(environment),
        wal_definitions(environment),
        retention_definitions(environment),
        drill_definitions(environment),
        shadow_definitions(environment),
        row_rescue_definitions(environment),
        protection_definitions(environment),
        health_definitions(environment),
        *([access_definitions(environment)] if profile.has_roles else []),
        maintenance_definitions(environment),
        recovery_runbook_definitions(environment),
        objectives_definitions(environment),
        sweeping_definitions(environment),
        records_definitions(environment),
    )
    timetable, objectives = timetable_of(environment), objectives_of(environment)
    return Definitions.merge(
        capabilities,
        guarding_definitions(environment, capabilities),
        *([schema_drift_definitions(environment, capabilities)] if profile.has_models else []),
        failed_run_definitions(environment),
        Definitions(resources={"environment": Environment(name=environment)}, executor=EXECUTOR),
    ).map_asset_specs(
        func=lambda spec: with_freshness(grouped_by_environment(spec, environment), timetable, objectives)
    )


defs = environment_definitions(environment_name())
