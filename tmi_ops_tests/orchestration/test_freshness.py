"""When an asset turns stale by itself."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tmi_ops.definitions import environment_definitions
from tmi_ops.objectives.timetable import plan_timetable
from tmi_ops.orchestration.freshness import stale_after
from tmi_ops.settings import OBJECTIVES

HOUR = timedelta(hours=1)
BY_A_PERSON = {"schema/migration", "schema/validation"}


@pytest.mark.parametrize(
    ("asset", "window"),
    [
        ("backup/wal", timedelta(minutes=15)),  # the RPO
        ("recovery/heartbeat", timedelta(minutes=15)),
        ("objectives/rpo", timedelta(minutes=10)),
        ("backup/base", 18 * HOUR),
        ("backup/logical", 36 * HOUR),
        ("recovery/drill", timedelta(days=8)),
        ("health/wal_and_replication", 1.5 * HOUR),
        ("recovery/shadow", timedelta(minutes=10)),
        ("schema/migration", None),
    ],
)
def test_production_goes_stale_half_a_turn_after_what_was_due(asset: str, window: timedelta | None) -> None:
    promised = OBJECTIVES["production"]
    assert stale_after(asset, plan_timetable(promised), promised) == window


@pytest.mark.parametrize("environment", ["development", "production"])
def test_whatever_the_timetable_brings_about_has_a_policy_that_its_pace_can_hold(environment: str) -> None:
    specs = {
        "/".join(spec.key.path[1:]): spec.freshness_policy
        for spec in environment_definitions(environment).resolve_all_asset_specs()
    }
    assert {path for path, policy in specs.items() if policy is None} == BY_A_PERSON
