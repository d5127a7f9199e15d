from __future__ import annotations

from collections.abc import Callable

import pytest
from dagster import AssetKey, DagsterInstance, ExecuteInProcessResult

from tmi_ops.definitions import environment_definitions
from tmi_ops.settings import Settings

ENVIRONMENT = "development"


def key(*path: str) -> AssetKey:
    """An asset's key in the tests' environment."""
    return AssetKey([ENVIRONMENT, *path])


@pytest.fixture
def as_variables(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings, given as a run's process is given them: by variables alone."""
    postgres, store = settings.postgres, settings.store
    assert postgres.password is not None
    assert store.access_key_id is not None
    assert store.secret_access_key is not None
    variables = {
        "TMI_ENV": ENVIRONMENT,
        "POSTGRES_HOST": postgres.host,
        "POSTGRES_PORT": str(postgres.port),
        "POSTGRES_USER": postgres.user,
        "POSTGRES_PASSWORD": postgres.password.get_secret_value(),
        "POSTGRES_DB": postgres.database,
        "POSTGRES_SSLMODE": postgres.sslmode,
        "TMI_OPS_S3_ENDPOINT_URL": store.endpoint_url or "",
        "TMI_OPS_S3_BUCKET": store.bucket,
        "TMI_OPS_S3_PREFIX": store.prefix,
        "AWS_ACCESS_KEY_ID": store.access_key_id.get_secret_value(),
        "AWS_SECRET_ACCESS_KEY": store.secret_access_key.get_secret_value(),
        "TMI_OPS_HOME": str(settings.home),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.fixture
def run_job(as_variables: Settings) -> Callable[..., ExecuteInProcessResult]:
    """Runs a job of the real definitions in this process, on the real servers."""

    def run(name: str, run_config: dict[str, object] | None = None) -> ExecuteInProcessResult:
        job = environment_definitions(ENVIRONMENT).resolve_job_def(name)
        return job.execute_in_process(instance=DagsterInstance.ephemeral(), run_config=run_config, raise_on_error=False)

    return run
