from __future__ import annotations

import pytest
from dagster import DagsterInstance, Definitions, ExecuteInProcessResult

from tmi_ops.orchestration.policies import EXECUTOR
from tmi_ops.orchestration.protected import protected
from tmi_ops.orchestration.resources import Environment
from tmi_ops.orchestration.wal import wal_definitions
from tmi_ops.settings import Settings
from tmi_ops.store.objects import open_store
from tmi_ops_tests.orchestration.conftest import key
from tmi_ops_tests.wal.receiving.receivers import flushed, reaches, receiving, until

ENVIRONMENT = "development"


def _run(instance: DagsterInstance | None = None) -> ExecuteInProcessResult:
    resources = Definitions(resources={"environment": Environment(name=ENVIRONMENT)}, executor=EXECUTOR)
    job = Definitions.merge(wal_definitions(protected(ENVIRONMENT)), resources).resolve_job_def("wal_catch_up")
    return job.execute_in_process(instance=instance or DagsterInstance.ephemeral(), raise_on_error=False)


@pytest.mark.slow
def test_a_run_brings_the_archive_level_with_the_server_and_its_check_measures_the_rpo(as_variables: Settings) -> None:
    here = flushed(as_variables.postgres)
    result = _run()
    assert result.success
    assert reaches(open_store(as_variables.store, ENVIRONMENT), here)
    (event,) = result.get_asset_materialization_events()
    assert event.asset_key == key("backup", "wal")
    shown = {name: entry.value for name, entry in event.step_materialization_data.materialization.metadata.items()}
    assert float(str(shown["achieved RPO (s)"])) < 60
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("within_the_rpo", True)


@pytest.mark.slow
def test_where_a_receiver_is_at_work_a_run_leaves_it_alone_and_looks_how_far_it_is(as_variables: Settings) -> None:
    store = open_store(as_variables.store, ENVIRONMENT)
    with receiving(as_variables, slot="tmi_ops") as receiver:
        here = flushed(as_variables.postgres)
        until(lambda: reaches(store, here), "it receives")
        result = _run()
        assert result.success
        (event,) = result.get_asset_materialization_events()
        assert "receiver" in event.step_materialization_data.materialization.metadata
    assert receiver.error is None
