"""When schedules begin next, read from the tables that Dagster itself has made and filled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.types import DaemonHeartbeat
from dagster._serdes import serialize_value

from tmi_ops.automation.facts import AutomationFacts, Instigator, Kind
from tmi_ops.automation.reading import crons_of, is_of, name_of
from tmi_ops.objectives.next_runs import next_runs, read_automatic
from tmi_ops.postgres.cluster import free_port
from tmi_ops.postgres.connections import connect
from tmi_ops.settings import PostgresSettings

NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def state_of(name: str, data: Any, status: InstigatorStatus, location: str = "production") -> InstigatorState:
    code = ManagedGrpcPythonEnvCodeLocationOrigin(
        LoadableTargetOrigin(module_name="tmi_ops.definitions"), location_name=location
    )
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(code, "__repository__"), name)
    kind = InstigatorType.SENSOR if isinstance(data, SensorInstigatorData) else InstigatorType.SCHEDULE
    return InstigatorState(origin, kind, status, data)


def body_of(crons: Any, location: str = "production") -> dict[str, Any]:
    state = state_of("nightly", ScheduleInstigatorData(crons, 1.0), InstigatorStatus.RUNNING, location)
    return json.loads(serialize_value(state))  # type: ignore[no-any-return]


def schedule_of(crons: Any, location: str = "production") -> AutomationFacts:
    body = body_of(crons, location)
    schedule = Instigator(name_of(body), Kind.SCHEDULE, True, NOON, crons=crons_of(body))
    return AutomationFacts(NOON, instigators=(schedule,) if is_of(body, "production") else ())


def test_a_schedule_begins_at_the_soonest_of_its_times() -> None:
    (run,) = next_runs(schedule_of(["0 1 * * 0", "0 2 * * *"]), "UTC", NOON)
    assert (run.schedule, run.at) == ("nightly", datetime(2026, 11, 26, 2, 0, tzinfo=UTC))


def test_another_environments_schedules_are_not_ours() -> None:
    assert next_runs(schedule_of("0 2 * * *", "staging"), "UTC", NOON) == []
    assert len(next_runs(schedule_of("0 2 * * *", "tmi_ops"), "UTC", NOON)) == 1


def test_a_cron_that_cannot_be_read_is_left_out() -> None:
    assert next_runs(schedule_of("@hourly"), "UTC", NOON) == []


@pytest.fixture
def records(database: PostgresSettings) -> dict[str, str]:
    assert database.password is not None
    return {
        "DAGSTER_PG_HOST": database.host,
        "DAGSTER_PG_PORT": str(database.port),
        "DAGSTER_PG_USERNAME": database.user,
        "DAGSTER_PG_PASSWORD": database.password.get_secret_value(),
        "DAGSTER_PG_DB": database.database,
    }


@pytest.fixture
def instance(records: dict[str, str], tmp_path: Path) -> Iterator[DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text(
        "storage:\n  postgres:\n    postgres_db:\n"
        f"      hostname: {records['DAGSTER_PG_HOST']}\n      port: {records['DAGSTER_PG_PORT']}\n"
        f"      username: {records['DAGSTER_PG_USERNAME']}\n      password: {records['DAGSTER_PG_PASSWORD']}\n"
        f"      db_name: {records['DAGSTER_PG_DB']}\n      scheme: postgresql+psycopg2\n"
        "telemetry:\n  enabled: false\n"
    )
    with DagsterInstance.from_config(str(tmp_path)) as made:
        yield made


@pytest.mark.slow
def test_what_dagster_has_on_record_is_told_and_a_silent_daemon_too(
    instance: DagsterInstance, records: dict[str, str], database: PostgresSettings
) -> None:
    assert instance.schedule_storage is not None
    now = datetime.now(UTC)
    daily = ScheduleInstigatorData("0 2 * * *", now.timestamp())
    for state in (
        state_of("minutely", ScheduleInstigatorData("* * * * *", 1.0), InstigatorStatus.RUNNING),
        state_of("daily", daily, InstigatorStatus.DECLARED_IN_CODE),
        state_of("switched_off", daily, InstigatorStatus.STOPPED),
        state_of("of_staging", daily, InstigatorStatus.RUNNING, "staging"),
        state_of("a_sensor", SensorInstigatorData(), InstigatorStatus.RUNNING),
    ):
        instance.schedule_storage.add_instigator_state(state)
    found = read_automatic(records, "production", "UTC", now)
    assert [run.schedule for run in found.runs] == ["minutely", "daily"]
    assert found.runs[0].at - now <= timedelta(minutes=1)
    assert found.sensors == 1
    assert "has never reported" in str(found.problem)
    instance.add_daemon_heartbeat(DaemonHeartbeat(now.timestamp(), "SCHEDULER", "a", []))
    # The daemon is there, and the schedule that comes every minute since 1970 was never looked at.
    looked = read_automatic(records, "production", "UTC", now)
    assert looked.stuck
    assert "minutely was due" in str(looked.problem)
    assert instance.schedule_storage is not None
    for state in instance.schedule_storage.all_instigator_state():
        if state.instigator_name == "minutely":
            young = state.with_data(ScheduleInstigatorData("* * * * *", now.timestamp()))
            instance.schedule_storage.update_instigator_state(young)
    assert read_automatic(records, "production", "UTC", now).problem is None
    with connect(database) as connection:
        connection.execute("UPDATE daemon_heartbeats SET timestamp = timestamp - interval '17 minutes'")
    assert "not reported for 17 min" in str(read_automatic(records, "production", "UTC", now).problem)


@pytest.mark.slow
def test_records_that_cannot_be_asked_are_a_sentence(records: dict[str, str]) -> None:
    assert "does not exist" in str(read_automatic(records, "production", "UTC", NOON).problem)
    away = read_automatic({**records, "DAGSTER_PG_PORT": str(free_port())}, "production", "UTC", NOON)
    assert "Dagster's database could not be queried" in str(away.problem)
    assert records["DAGSTER_PG_PASSWORD"] not in str(away.problem)


def test_records_that_cannot_be_asked_are_stuck_where_something_should_run_by_itself() -> None:
    """As for the guards and the doctor; the status is red, too."""
    nowhere = {"DAGSTER_PG_HOST": "127.0.0.1", "DAGSTER_PG_PORT": str(free_port()), "DAGSTER_PG_PASSWORD": "secret"}
    away = read_automatic(nowhere, "production", "UTC", NOON)
    assert away.stuck
    assert away.findings[0].what == away.problem
    unasked = read_automatic(nowhere, "development", "UTC", NOON, expected=False)
    assert not unasked.stuck
    assert unasked.problem == away.problem


def test_without_an_address_nothing_is_known_to_run() -> None:
    assert "DAGSTER_PG_HOST" in str(read_automatic({}, "production", "UTC", NOON).problem)
