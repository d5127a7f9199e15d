from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from dagster import DagsterInstance, Definitions, ExecuteInProcessResult, IntMetadataValue, TableMetadataValue

from tmi_ops.orchestration.policies import EXECUTOR
from tmi_ops.orchestration.protected import protected
from tmi_ops.orchestration.resources import Environment
from tmi_ops.orchestration.retention import retention_definitions
from tmi_ops.retention.holds import hold_backup
from tmi_ops.settings import Settings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops_tests.orchestration.conftest import ENVIRONMENT, key
from tmi_ops_tests.retention.stored import write_backup

NOW = datetime.now(UTC)


@pytest.fixture
def store(as_variables: Settings, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    for period in ("DAILY", "WEEKLY", "MONTHLY"):
        monkeypatch.setenv(f"TMI_OPS_KEEP_{period}", "0")
    monkeypatch.setenv("TMI_OPS_KEEP_LAST", "1")
    return open_store(as_variables.store, ENVIRONMENT)


def run(config: dict[str, object] | None = None) -> ExecuteInProcessResult:
    resources = Definitions(resources={"environment": Environment(name=ENVIRONMENT)}, executor=EXECUTOR)
    job = Definitions.merge(retention_definitions(protected(ENVIRONMENT)), resources).resolve_job_def("retention")
    op = "__".join(key("backup", "retention").path)
    run_config = {"ops": {op: {"config": config}}} if config else None
    return job.execute_in_process(instance=DagsterInstance.ephemeral(), run_config=run_config, raise_on_error=False)


def shown(result: ExecuteInProcessResult) -> dict[str, object]:
    (event,) = result.get_asset_materialization_events()
    return dict(event.step_materialization_data.materialization.metadata)


def test_the_plan_is_a_table_with_a_reason_for_everything_and_the_numbers_can_be_plotted(store: ObjectStore) -> None:
    held, verified = write_backup(store), write_backup(store)
    hold_backup(store, held, "the auditors want it")
    result = run()
    assert result.success
    metadata = shown(result)
    plan = metadata["plan"]
    assert isinstance(plan, TableMetadataValue)
    rows = {str(row.data["what"]): row.data for row in plan.records}
    assert set(rows) == {held, verified}
    assert all(row["outcome"] == "keep" and row["reason"] for row in rows.values())
    assert "held: the auditors want it" in str(rows[held]["reason"])
    assert metadata["kept backups"] == IntMetadataValue(2)
    assert metadata["removed backups"] == IntMetadataValue(0)
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("nothing_spared", True)


def test_what_the_policy_no_longer_wants_is_gone_after_a_run_and_still_there_after_a_dry_one(
    store: ObjectStore,
) -> None:
    forgotten = "logical/20200101T000000Z-logical-0000/dump"
    write_backup(store)
    store.put_bytes(forgotten, b"half made")
    planned = run({"dry_run": True})
    assert planned.success
    assert "Only planned" in str(shown(planned)["summary"])
    assert store.size(forgotten)


def test_a_store_that_cannot_be_read_whole_fails_the_run_and_loses_nothing(store: ObjectStore) -> None:
    backup = write_backup(store)
    broken = f"logical/{(NOW - timedelta(days=1)):%Y%m%dT%H%M%SZ}-logical-0000/manifest.json"
    store.put_bytes(broken, b"{}")
    result = run()
    assert not result.success
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert "manifest.json cannot be read" in str(failed.step_failure_data.user_failure_data)
    assert store.size(f"logical/{backup}/manifest.json")
