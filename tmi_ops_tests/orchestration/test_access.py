"""The access asset, run on the real server: drift is a failed check, with what helps beside it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetCheckSeverity,
    DagsterInstance,
    DefaultScheduleStatus,
    Definitions,
    TableMetadataValue,
)

from tmi_ops.access.declared import NAME_VARIABLE, RoleKind
from tmi_ops.access.execution import apply_access
from tmi_ops.access.inspection import inspect_access
from tmi_ops.access.passwords import passwords_to_set
from tmi_ops.orchestration.access import access_definitions
from tmi_ops.orchestration.policies import EXECUTOR
from tmi_ops.orchestration.protected import protected
from tmi_ops.orchestration.resources import Environment
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.settings import Settings
from tmi_ops_tests.orchestration.conftest import ENVIRONMENT, key

Look = Callable[[], AssetCheckEvaluation]


def definitions_of(environment: str) -> Definitions:
    resources = Definitions(resources={"environment": Environment(name=environment)}, executor=EXECUTOR)
    return Definitions.merge(access_definitions(protected(environment)), resources)


@pytest.fixture
def names(as_variables: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    suffix = secrets.token_hex(4)
    names = {f"{NAME_VARIABLE}{kind.upper()}": f"tmi_{kind}_{suffix}" for kind in RoleKind}
    for variable, name in names.items():
        monkeypatch.setenv(variable, name)
    yield names
    with connect(as_variables.postgres) as connection:
        for name in names.values():
            if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (name,)).fetchone() is not None:
                for statement in ("REASSIGN OWNED BY {} TO CURRENT_USER", "DROP OWNED BY {}", "DROP ROLE {}"):
                    connection.execute(statement.format(name).encode())


@pytest.fixture
def look(names: dict[str, str]) -> Look:
    definitions = definitions_of(ENVIRONMENT)

    def run() -> AssetCheckEvaluation:
        result = definitions.resolve_job_def("access").execute_in_process(
            instance=DagsterInstance.ephemeral(), raise_on_error=False
        )
        assert result.success
        (materialization,) = result.get_asset_materialization_events()
        assert materialization.asset_key == key("access", "roles")
        table = materialization.step_materialization_data.materialization.metadata["findings"]
        assert isinstance(table, TableMetadataValue)
        assert table.records
        (evaluation,) = result.get_asset_check_evaluations()
        return evaluation

    return run


@pytest.mark.slow
def test_the_check_fails_on_missing_roles_passes_once_applied_and_fails_on_drift(
    as_variables: Settings, names: dict[str, str], look: Look
) -> None:
    missing = look()
    assert (missing.passed, missing.severity) == (False, AssetCheckSeverity.WARN)
    assert "is missing" in (missing.description or "")
    with connect(as_variables.postgres) as connection:
        inspection = inspect_access(connection, as_variables, names)
        plan = inspection.plan()
        passwords = passwords_to_set(plan.statements, inspection.known, inspection.file)
        apply_access(connection, plan, inspection.declared, passwords, SilentReport())
    assert look().passed
    with connect(as_variables.postgres) as connection:
        connection.execute(f"ALTER ROLE {names[f'{NAME_VARIABLE}APP']} SUPERUSER".encode())
    drifted = look()
    assert (drifted.passed, drifted.severity) == (False, AssetCheckSeverity.ERROR)
    assert "has SUPERUSER and must not" in (drifted.description or "")


def test_production_looks_every_day_and_a_laptop_only_when_asked() -> None:
    for environment, status in (
        ("production", DefaultScheduleStatus.RUNNING),
        ("development", DefaultScheduleStatus.STOPPED),
    ):
        schedule = definitions_of(environment).resolve_schedule_def("daily_access")
        assert (schedule.cron_schedule, schedule.default_status) == ("37 5 * * *", status)
