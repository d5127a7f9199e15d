"""When an asset turns stale in Dagster's catalogue, from the timetable alone: it does so with every sensor off."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from dagster import AssetSpec, FreshnessPolicy

from tmi_ops.objectives.timetable import DAY, Cadence, Timetable
from tmi_ops.orchestration.protected import Protected
from tmi_ops.settings import Objectives

# Work takes its time, and what was due at two need not be there at two.
LONGEST_GRACE = DAY
SHORTEST_GRACE = timedelta(minutes=5)
# A shadow's word is carried over every minute; one that is silent for so long is gone.
SHADOW = "recovery/shadow"
SHADOW_SILENT_AFTER = timedelta(minutes=10)
CARRY_THE_RPO = ("backup/wal", "recovery/heartbeat")


def with_freshness(spec: AssetSpec, here: Protected) -> AssetSpec:
    """With a policy where the timetable brings the asset about; what only a person begins is never stale."""
    window = stale_after("/".join(spec.key.path[len(here.path) :]), here.timetable, here.objectives)
    if window is None:
        return spec
    return spec.replace_attributes(freshness_policy=FreshnessPolicy.time_window(fail_window=window))


def stale_after(asset: str, timetable: Timetable, objectives: Objectives) -> timedelta | None:
    """How old it may grow; None: nothing brings it about by itself.

    Args:
        asset: its path within the environment, such as `backup/wal`.
    """
    if asset == SHADOW:
        return SHADOW_SILENT_AFTER
    cadence = _cadences(timetable).get(asset) or (timetable.health if asset.startswith("health/") else None)
    if cadence is None:
        return None
    window = cadence.every + min(max(cadence.every / 2, SHORTEST_GRACE), LONGEST_GRACE)
    return max(window, objectives.rpo) if asset in CARRY_THE_RPO else window


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
