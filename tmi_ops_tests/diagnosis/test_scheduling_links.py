"""Set-ups in which nothing runs by itself. Dagster makes its own tables and writes its own rows here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.types import DaemonHeartbeat
from dagster._utils.error import SerializableErrorInfo

from tmi_ops.checks.finding import Outcome
from tmi_ops.diagnosis.diagnose import diagnose
from tmi_ops.diagnosis.finding import Diagnosis
from tmi_ops.postgres.cluster import free_port
from tmi_ops_tests.diagnosis.asserting import assert_cause
from tmi_ops_tests.diagnosis.conftest import Variables
from tmi_ops_tests.house import House

HOUR_S = 3600.0
DAEMONS = ("SCHEDULER", "SENSOR", "QUEUED_RUN_COORDINATOR")


@pytest.fixture(scope="module")
def records(server_house: House) -> dict[str, str]:
    """Where Dagster's records are; a database of their own."""
    server_house.run("CREATE DATABASE dagster")
    address = server_house.address
    assert address.password is not None
    return {
        "DAGSTER_PG_HOST": address.host,
        "DAGSTER_PG_PORT": str(address.port),
        "DAGSTER_PG_USERNAME": address.user,
        "DAGSTER_PG_PASSWORD": address.password.get_secret_value(),
        "DAGSTER_PG_DB": "dagster",
    }


@pytest.fixture(scope="module")
def instance(records: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterInstance]:
    home = tmp_path_factory.mktemp("dagster")
    (home / "dagster.yaml").write_text(
        "storage:\n  postgres:\n    postgres_db:\n"
        f"      hostname: {records['DAGSTER_PG_HOST']}\n      port: {records['DAGSTER_PG_PORT']}\n"
        f"      username: {records['DAGSTER_PG_USERNAME']}\n      password: {records['DAGSTER_PG_PASSWORD']}\n"
        "      db_name: dagster\n      scheme: postgresql+psycopg2\n"
        "telemetry:\n  enabled: false\n"
    )
    with DagsterInstance.from_config(str(home)) as made:
        yield made


@pytest.fixture
def examine(healthy: Variables, records: dict[str, str], tmp_path: Path) -> Callable[..., Diagnosis]:
    here = {**healthy, "TMI_ENV": "staging", "TMI_OPS_RPO": "24h"}
    return lambda **changes: diagnose(here, tmp_path, dagster={**records, **changes})


def test_records_that_cannot_be_opened_are_named(examine: Callable[..., Diagnosis]) -> None:
    port = str(free_port())
    assert_cause(examine(DAGSTER_PG_PORT=port), "dagster-records", f"127.0.0.1:{port}", "DAGSTER_PG_HOST")
    wrong = examine(DAGSTER_PG_PASSWORD="wrong")
    assert_cause(wrong, "dagster-records", "password authentication failed", "tmi-ops stack env")


def test_a_dagster_that_never_ran_is_named(examine: Callable[..., Diagnosis]) -> None:
    assert_cause(examine(), "dagster-daemon", "has no tables yet", "dagster-daemon run")


@pytest.mark.slow
def test_a_daemon_that_never_started_or_died_is_told_from_one_that_runs(
    examine: Callable[..., Diagnosis], instance: DagsterInstance
) -> None:
    assert_cause(examine(), "dagster-daemon", "has never reported", "dagster-daemon run")
    beat(instance, seconds_ago=2 * HOUR_S)
    assert_cause(examine(), "dagster-daemon", "has not reported for 2 h", "no schedule or sensor will run")
    beat(instance)
    assert examine().result("dagster-daemon").outcome is Outcome.OK


def test_a_daemon_that_fails_at_its_work_is_named_with_its_error(
    examine: Callable[..., Diagnosis], instance: DagsterInstance
) -> None:
    beat(instance, error="ImportError: No module named tmi_ops")
    assert_cause(examine(), "dagster-daemon", "SCHEDULER: ImportError: No module named tmi_ops", "restart the daemon")


@pytest.mark.slow
def test_schedules_that_are_missing_failing_or_switched_off_are_named(
    examine: Callable[..., Diagnosis], instance: DagsterInstance
) -> None:
    beat(instance)
    assert_cause(examine(), "schedules", "hold no schedule", "dagster schedule")
    state = schedule("nightly_logical_backup")
    instance.add_instigator_state(state)
    assert examine().root_cause is None

    tick(instance, state, TickStatus.SUCCESS, seconds_ago=2 * HOUR_S)
    tick(instance, state, TickStatus.FAILURE, seconds_ago=HOUR_S, error="KeyError: 'POSTGRES_PASSWORD'")
    assert_cause(examine(), "schedules", "nightly_logical_backup failed", "KeyError: 'POSTGRES_PASSWORD'")
    tick(instance, state, TickStatus.SUCCESS, seconds_ago=1)
    assert examine().root_cause is None

    instance.update_instigator_state(state.with_status(InstigatorStatus.STOPPED))
    fix = assert_cause(examine(), "schedules", "switched off: nightly_logical_backup", outcome=Outcome.WARNING)
    assert fix == ("dagster schedule start -m tmi_ops.definitions nightly_logical_backup",)


def test_a_setting_with_which_the_code_location_would_not_load_is_named(
    healthy: Variables, records: dict[str, str], tmp_path: Path
) -> None:
    diagnosis = diagnose({**healthy, "TMI_OPS_TIMEZONE": "Mars/Phobos"}, tmp_path, dagster=records)
    step = diagnosis.result("automation")
    assert step.outcome is Outcome.CRITICAL
    assert "Mars/Phobos" in step.answer.seen
    assert "cannot load the code location" in step.answer.cause


def test_development_needs_no_schedule(
    healthy: Variables, records: dict[str, str], instance: DagsterInstance, tmp_path: Path
) -> None:
    beat(instance)
    for state in instance.all_instigator_state():
        instance.delete_instigator_state(state.instigator_origin_id, state.selector_id)
    assert diagnose(healthy, tmp_path, dagster=records).result("schedules").outcome is Outcome.OK


def beat(instance: DagsterInstance, *, seconds_ago: float = 0, error: str | None = None) -> None:
    errors = [SerializableErrorInfo(error, [], None)] if error else []
    for daemon in DAEMONS:
        instance.add_daemon_heartbeat(
            DaemonHeartbeat(time.time() - seconds_ago, daemon, "id", errors if daemon == "SCHEDULER" else [])
        )


def schedule(name: str) -> InstigatorState:
    location = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="tmi_ops.definitions"))
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)
    return InstigatorState(
        origin, InstigatorType.SCHEDULE, InstigatorStatus.RUNNING, ScheduleInstigatorData("0 2 * * *", time.time())
    )


def tick(
    instance: DagsterInstance, state: InstigatorState, status: TickStatus, *, seconds_ago: float, error: str = ""
) -> None:
    instance.create_tick(
        TickData(
            instigator_origin_id=state.instigator_origin_id,
            selector_id=state.selector_id,
            instigator_name=state.instigator_name,
            instigator_type=InstigatorType.SCHEDULE,
            status=status,
            timestamp=time.time() - seconds_ago,
            run_ids=["a-run"] if status is TickStatus.SUCCESS else [],
            error=SerializableErrorInfo(error, [], None) if error else None,
        )
    )
