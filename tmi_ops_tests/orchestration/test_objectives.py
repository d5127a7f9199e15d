from __future__ import annotations

from collections.abc import Callable

import pytest
from dagster import (
    AssetCheckSeverity,
    ExecuteInProcessResult,
    FloatMetadataValue,
    TableMetadataValue,
    TextMetadataValue,
)

from tmi_ops.settings import Settings
from tmi_ops.store.objects import open_store
from tmi_ops_tests.orchestration.conftest import ENVIRONMENT, key

RunJob = Callable[..., ExecuteInProcessResult]


def shown(result: ExecuteInProcessResult, name: str) -> dict[str, object]:
    (event,) = [
        event for event in result.get_asset_materialization_events() if event.asset_key == key("objectives", name)
    ]
    return dict(event.step_materialization_data.materialization.metadata)


def test_an_unprotected_database_fails_both_checks_and_says_what_would_help(
    run_job: RunJob, as_variables: Settings
) -> None:
    result = run_job("objectives")
    assert result.success
    rpo, rto = shown(result, "rpo"), shown(result, "rto")
    assert rpo["status"] == TextMetadataValue("breached")
    assert rpo["cheapest cure"] == TextMetadataValue("take a logical backup: tmi-ops backup logical")
    assert "achieved RPO (s)" not in rpo
    assert rto["reason"] == TextMetadataValue("There is nothing to restore from.")
    checks = result.get_asset_check_evaluations()
    assert {(check.asset_key, check.passed, check.severity) for check in checks} == {
        (key("objectives", "rpo"), False, AssetCheckSeverity.ERROR),
        (key("objectives", "rto"), False, AssetCheckSeverity.ERROR),
    }
    assert list(open_store(as_variables.store, ENVIRONMENT).list_objects("objectives/"))


@pytest.mark.slow
def test_after_a_proven_backup_the_numbers_that_plot_stand_beside_the_promises(run_job: RunJob) -> None:
    assert run_job("protect").success
    result = run_job("objectives")
    rpo, rto = shown(result, "rpo"), shown(result, "rto")
    assert rpo["status"] == TextMetadataValue("met")
    for name in (
        "achieved RPO (s)",
        "objective (s)",
        "share of the objective (%)",
        "worst RPO of the last 24 h (s)",
        "worst RPO of the last 30 d (s)",
        "measured of the last 24 h (%)",
        "stored (MB)",
    ):
        assert isinstance(rpo[name], FloatMetadataValue), name
    assert isinstance(rpo["storage"], TableMetadataValue)
    for name in ("RTO forecast (s)", "objective (s)", "share of the objective (%)"):
        assert isinstance(rto[name], FloatMetadataValue), name
    assert isinstance(rto["phases"], TableMetadataValue)
    (check,) = [c for c in result.get_asset_check_evaluations() if c.asset_key == key("objectives", "rpo")]
    assert check.passed
