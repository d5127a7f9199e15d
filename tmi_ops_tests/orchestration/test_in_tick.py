"""What a schedule's tick does itself: no run is begun, and the assets show what one would have shown."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetCheckKey,
    AssetKey,
    AssetMaterialization,
    DagsterInstance,
    IntMetadataValue,
    MetadataValue,
    TextMetadataValue,
    build_schedule_context,
)
from dagster._core.definitions.schedule_definition import ScheduleExecutionData

from tmi_ops.alerts.service import AlertService
from tmi_ops.backup.base import back_up_base
from tmi_ops.definitions import environment_definitions
from tmi_ops.drill.heartbeat import read_chain
from tmi_ops.objectives.history import read_history
from tmi_ops.orchestration.failed_runs import FailedRun, failed_run_alert
from tmi_ops.orchestration.policies import Lane
from tmi_ops.progress import SilentReport
from tmi_ops.settings import Settings
from tmi_ops.store.objects import open_store
from tmi_ops.wal.lease import hold_lease
from tmi_ops_tests.orchestration.conftest import ENVIRONMENT, key


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    with DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


def tick(instance: DagsterInstance, schedule: str) -> ScheduleExecutionData:
    with build_schedule_context(instance=instance) as context:
        return environment_definitions(ENVIRONMENT).resolve_schedule_def(schedule).evaluate_tick(context)


def shown(instance: DagsterInstance, asset: AssetKey) -> dict[str, MetadataValue[Any]] | None:
    event = instance.get_latest_materialization_event(asset)
    if event is None:
        return None
    assert isinstance(event.asset_materialization, AssetMaterialization)
    return dict(event.asset_materialization.metadata)


def result(instance: DagsterInstance, asset: AssetKey, name: str) -> tuple[bool, str | None]:
    (one,) = instance.event_log_storage.get_asset_check_execution_history(AssetCheckKey(asset, name), limit=5)
    assert one.event is not None
    evaluation = one.event.asset_check_evaluation
    assert evaluation is not None
    return evaluation.passed, evaluation.description


def test_a_beat_is_written_without_a_run(as_variables: Settings, instance: DagsterInstance) -> None:
    service = AlertService(as_variables)
    service.raise_alert(
        failed_run_alert(FailedRun("heartbeat", "0" * 36, Lane.WATCH, "No beat.", "", datetime.now(UTC)))
    )
    before = read_chain(as_variables.postgres) or []
    done = tick(instance, "heartbeat_within_the_rpo")
    assert not done.run_requests
    written = (read_chain(as_variables.postgres) or [])[len(before) :]
    assert [f"Done without a run: heartbeat {one.id}" for one in written] == [done.skip_message]
    metadata = shown(instance, key("recovery", "heartbeat"))
    assert metadata is not None
    assert metadata["heartbeat"] == IntMetadataValue(written[0].id)
    assert metadata["hash"] == TextMetadataValue(written[0].hash)
    assert [record.is_open for record in service.records()] == [False]


def test_what_a_tick_cannot_do_is_a_runs(
    as_variables: Settings, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_PORT", "1")
    assert len(tick(instance, "heartbeat_within_the_rpo").run_requests or []) == 1
    assert shown(instance, key("recovery", "heartbeat")) is None


def test_the_objectives_are_measured_without_a_run(as_variables: Settings, instance: DagsterInstance) -> None:
    done = tick(instance, "objectives_within_the_rpo")
    assert not done.run_requests
    for name in ("rpo", "rto"):
        metadata = shown(instance, key("objectives", name))
        assert metadata is not None
        assert metadata["status"] == TextMetadataValue("breached")
        met, why = result(instance, key("objectives", name), "objective_met")
        assert not met
        assert metadata["reason"] == TextMetadataValue(str(why))
        assert str(why) in str(done.skip_message)
    assert read_history(open_store(as_variables.store, ENVIRONMENT), datetime.now(UTC))


def test_where_no_receiver_is_at_work_a_run_brings_the_archive_level(
    as_variables: Settings, instance: DagsterInstance
) -> None:
    assert len(tick(instance, "wal_catch_up_within_the_rpo").run_requests or []) == 1
    assert shown(instance, key("backup", "wal")) is None


@pytest.mark.slow
def test_where_a_receiver_is_at_work_no_run_is_begun_to_look_how_far_it_is(
    as_variables: Settings, instance: DagsterInstance
) -> None:
    wal = key("backup", "wal")
    store = open_store(as_variables.store, ENVIRONMENT)
    cluster = back_up_base(as_variables, store, SilentReport()).system_identifier
    progress: dict[str, object] = {"lsn": "0/5000000", "timeline": 1, "level_at": datetime.now(UTC)}
    with hold_lease(store, cluster, "tmi_ops", lambda: progress, stop=threading.Event(), note=print) as lease:
        assert lease is not None
        lease._write(progress)
        done = tick(instance, "wal_catch_up_within_the_rpo")
    assert not done.run_requests
    metadata = shown(instance, wal)
    assert metadata is not None
    assert (metadata["archived to"], metadata["timeline"]) == (TextMetadataValue("0/5000000"), IntMetadataValue(1))
    assert result(instance, wal, "within_the_rpo")[0]
