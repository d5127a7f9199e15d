"""When an asset turns stale in Dagster's catalog, from the timetable alone: it does so with every sensor off."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from dagster import AssetSpec, FreshnessPolicy

from tmi_ops.objectives.timetable import Cadence, Timetable
from tmi_ops.orchestration.protected import Protected
from tmi_ops.settings import Objectives

# A shadow's reports are recorded every minute; one that is silent for this long is gone.
SHADOW = "recovery/shadow"
SHADOW_SILENT_AFTER = timedelta(minutes=10)
CARRY_THE_RPO = ("backup/wal", "recovery/heartbeat")


def with_freshness(spec: AssetSpec, here: Protected) -> AssetSpec:
    """With a policy if the timetable materializes the asset; what only a person launches is never stale."""
    window = stale_after("/".join(spec.key.path[len(here.path) :]), here.timetable, here.objectives)
    if window is None:
        return spec
    return spec.replace_attributes(freshness_policy=FreshnessPolicy.time_window(fail_window=window))


def stale_after(asset: str, timetable: Timetable, objectives: Objectives) -> timedelta | None:
    """How old it may become; None if no schedule or sensor materializes it.

    Args:
        asset: its path within the environment, such as `backup/wal`.
    """
    if asset == SHADOW:
        return SHADOW_SILENT_AFTER
    cadence = _cadences(timetable).get(asset) or (timetable.health if asset.startswith("health/") else None)
    if cadence is None:
        return None
    return max(cadence.late_after, objectives.rpo) if asset in CARRY_THE_RPO else cadence.late_after


def _cadences(timetable: Timetable) -> Mapping[str, Cadence]:
    return {
        "backup/wal": timetable.wal,
        "recovery/heartbeat": timetable.heartbeat,
        "objectives/rpo": timetable.objectives,
        "objectives/rto": timetable.objectives,
        "backup/base": timetable.incremental_base,
        "backup/logical": timetable.logical,
        "backup/logical_verified": timetable.logical,
        "backup/retention": timetable.retention,
        "recovery/drill": timetable.drill,
        "access/roles": timetable.access,
    }
