from __future__ import annotations

from collections.abc import Callable

import pytest
from dagster import AssetKey, DagsterInstance, ExecuteInProcessResult

from tmi_ops.definitions import environment_definitions
from tmi_ops.settings import Settings
from tmi_ops_tests.variables import variables_of

ENVIRONMENT = "development"


def key(*path: str) -> AssetKey:
    """An asset's key in the tests' environment."""
    return AssetKey([ENVIRONMENT, *path])


@pytest.fixture
def as_variables(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings, given as a run's process is given them: by variables alone."""
    for name, value in variables_of(settings).items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.fixture
def run_job(as_variables: Settings) -> Callable[..., ExecuteInProcessResult]:
    """Runs a job of the real definitions in this process, on the real servers."""

    def run(name: str, run_config: dict[str, object] | None = None) -> ExecuteInProcessResult:
        job = environment_definitions(ENVIRONMENT).resolve_job_def(name)
        return job.execute_in_process(instance=DagsterInstance.ephemeral(), run_config=run_config, raise_on_error=False)

    return run
