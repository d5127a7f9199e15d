"""The sensors over runs, as the daemon calls them: several runs of several environments in one look."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dagster import DagsterEvent, DagsterInstance, DagsterRunStatus, Definitions, build_sensor_context
from dagster._core.test_utils import create_run_for_test

from tmi_ops.orchestration.resources import Environment
from tmi_ops.orchestration.serving import fleet_definitions

FROM_THE_BEGINNING = json.dumps({"__class__": "RunStatusSensorCursor", "record_id": 0, "update_timestamp": None})
EVENTS = {
    DagsterRunStatus.SUCCESS: ("recovered_run", "PIPELINE_SUCCESS"),
    DagsterRunStatus.FAILURE: ("failed_run", "PIPELINE_FAILURE"),
}


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Definitions:
    monkeypatch.delenv("TMI_ENV", raising=False)
    monkeypatch.chdir(tmp_path)
    environments = "".join(f'[environments.{name}]\nPOSTGRES_HOST = "127.0.0.1"\n' for name in ("shop", "tmi"))
    promised = '[defaults]\nTMI_OPS_RPO = "1h"\nTMI_OPS_RTO = "2h"\nTMI_OPS_PROFILE = "none"\n'
    (tmp_path / "tmi-ops.toml").write_text(promised + environments)
    return fleet_definitions(("shop", "tmi"))


def end(instance: DagsterInstance, environment: str, job: str, status: DagsterRunStatus, **tags: str) -> str:
    """A run of a job that has ended so."""
    own = {"tmi_ops/environment": environment, "tmi_ops/lane": f"{environment}/archive", **tags}
    run = create_run_for_test(instance, job_name=job, status=status, tags=own)
    instance.report_dagster_event(DagsterEvent(EVENTS[status][1], job_name=job), run_id=run.run_id)
    return run.run_id


@pytest.mark.parametrize("status", list(EVENTS))
def test_runs_of_others_and_of_no_concern_beside_its_own_do_not_end_a_look(
    fleet: Definitions, status: DagsterRunStatus
) -> None:
    instance = DagsterInstance.ephemeral()
    own = end(instance, "shop", "shop__wal_catch_up", status)
    end(instance, "tmi", "tmi__wal_catch_up", status)
    repeated = end(instance, "shop", "shop__base_backup", status, **{"dagster/will_retry": "true"})
    end(instance, "tmi", "tmi__base_backup", status)
    last = end(instance, "shop", "shop__logical_backup", status)
    sensor = fleet.resolve_sensor_def(f"shop__{EVENTS[status][0]}")
    with build_sensor_context(
        instance=instance,
        definitions=fleet,
        cursor=FROM_THE_BEGINNING,
        resources={"shop__environment": Environment(name="shop")},
    ) as context:
        looked = sensor.evaluate_tick(context)
    seen = [reaction.dagster_run.run_id for reaction in looked.dagster_run_reactions if reaction.dagster_run]
    assert seen == [own, repeated, last], "those of its own jobs alone"
    assert [reaction.error for reaction in looked.dagster_run_reactions] == [None, None, None]
    assert json.loads(looked.cursor or "")["record_id"] == 5, "the next look begins behind all of them"
