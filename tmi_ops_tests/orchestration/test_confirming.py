"""What changes or removes is out of the reach of "Materialize all"."""

from __future__ import annotations

from datetime import timedelta

import pytest
from dagster import AssetKey, DagsterInstance, ExecuteInProcessResult

from tmi_ops.definitions import environment_definitions
from tmi_ops.postgres.connections import connect
from tmi_ops.retention import planning
from tmi_ops.settings import Settings
from tmi_ops.store.objects import open_store
from tmi_ops_tests.orchestration.conftest import ENVIRONMENT, key
from tmi_ops_tests.retention.stored import write_backup


def materialize(asset: AssetKey, confirm: str = "") -> ExecuteInProcessResult:
    """As the UI does for assets that are picked by hand."""
    job = environment_definitions(ENVIRONMENT).get_implicit_global_asset_job_def()
    config = {"ops": {asset.to_python_identifier(): {"config": {"confirm": confirm}}}}
    return job.execute_in_process(
        asset_selection=[asset],
        run_config=config if confirm else None,
        instance=DagsterInstance.ephemeral(),
        raise_on_error=False,
    )


def tables(settings: Settings) -> int:
    with connect(settings.postgres) as connection:
        row = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        assert row is not None
        return int(row[0])


def test_a_migration_picked_by_hand_only_plans_until_the_environment_is_named(as_variables: Settings) -> None:
    planned = materialize(key("schema", "migration"))
    assert planned.success
    assert tables(as_variables) == 0
    (event,) = planned.get_asset_materialization_events()
    shown = {name: entry.value for name, entry in event.step_materialization_data.materialization.metadata.items()}
    assert str(shown["outcome"]).startswith("only planned")
    assert int(str(shown["steps planned"])) > 0
    assert not materialize(key("schema", "migration"), confirm="production").success
    assert tables(as_variables) == 0
    assert materialize(key("schema", "migration"), confirm=ENVIRONMENT).success
    assert tables(as_variables) > 0


@pytest.mark.parametrize(("confirm", "stays"), [("", True), (ENVIRONMENT, False)])
def test_retention_picked_by_hand_only_plans_until_the_environment_is_named(
    as_variables: Settings, monkeypatch: pytest.MonkeyPatch, confirm: str, stays: bool
) -> None:
    monkeypatch.setattr(planning, "HALF_MADE_AFTER", timedelta(0))
    store = open_store(as_variables.store, ENVIRONMENT)
    write_backup(store)
    half_made = "logical/20200101T000000Z-logical-0000/dump"
    store.put_bytes(half_made, b"half made")
    assert materialize(key("backup", "retention"), confirm).success
    assert (half_made in {item.key for item in store.list_objects("logical/")}) is stays
