"""The runbooks as jobs: refused without a confirmation, and otherwise the same run as by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from dagster import DagsterInvalidConfigError, ExecuteInProcessResult

from tmi_ops.backup.logical import back_up_logical
from tmi_ops.postgres.cluster import free_port
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import SilentReport
from tmi_ops.runbooks.logbook import find_run, list_runs
from tmi_ops.runbooks.serving.cluster import stop_server
from tmi_ops.schema.migration import migrate
from tmi_ops.settings import Settings
from tmi_ops.store.objects import open_store
from tmi_ops_tests.entering import let_everybody_enter
from tmi_ops_tests.orchestration.launches import code_for, shown_by
from tmi_ops_tests.runbooks.disasters import NO_HOOKS

Launch = Callable[..., ExecuteInProcessResult]


def config_of(job: str, **fields: object) -> dict[str, object]:
    return {"ops": {f"{job}_steps": {"config": fields}}}


@pytest.fixture(autouse=True)
def no_hooks(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    redis = settings.redis
    password = redis.password.get_secret_value() if redis.password else ""
    told = {**NO_HOOKS, "REDIS_HOST": redis.host, "REDIS_PORT": str(redis.port), "REDIS_PASSWORD": password}
    for name, value in told.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("job", ["recover_corruption", "recover_everything"])
def test_without_the_confirmation_nothing_begins(
    job: str, run_job: Launch, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMI_OPS_RECOVERY_DIRECTORIES", str(tmp_path))
    asked: dict[str, object] = {"latest": True}
    if job == "recover_everything":
        with pytest.raises(DagsterInvalidConfigError, match="into"):
            run_job(job, config_of(job, **asked))
        asked["into"] = str(tmp_path / "new")
    for told in (
        {"confirm": "production"},
        {"confirm": "development"},
        {"confirm": "development", "code": "AAAA-AAAA"},
    ):
        assert "was not confirmed" in why(run_job(job, config_of(job, **told, **asked)))
    assert list_runs(settings, open_store(settings.store, settings.environment), SilentReport()) == []


def why(result: ExecuteInProcessResult) -> str:
    """Why the run's one step failed."""
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert failed.step_failure_data.user_failure_data is not None
    return str(failed.step_failure_data.user_failure_data.description)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"into": "/root/pwned"}, "`into`"),
        ({"into": "/srv/clusters/new", "secret_file": "/root/.ssh/authorized_keys"}, "`secret_file`"),
        ({"into": "/srv/clusters/new", "env_file": "/etc/cron.d/evil"}, "`env_file`"),
        ({"into": "/srv/clusters/new", "listen": "192.0.2.1"}, "`listen`"),
        ({"into": "/srv/clusters/new", "allow": ["0.0.0.0/0"]}, "`allow`"),
        ({"into": "/srv/clusters/new", "host": "evil.example"}, "`host`"),
    ],
)
def test_the_attack_from_the_launchpad_gets_no_path_and_no_address(
    run_job: Launch, monkeypatch: pytest.MonkeyPatch, fields: dict[str, object], said: str
) -> None:
    """Any local user could launch `recover_everything` and choose where a file with a password is written."""
    monkeypatch.setenv("TMI_OPS_RECOVERY_DIRECTORIES", "/srv/clusters")
    refusal = why(run_job("recover_everything", config_of("recover_everything", **fields)))
    assert said in refusal and "is not accepted for" in refusal


@pytest.mark.slow
def test_a_confirmed_job_recovers_and_shows_the_time_of_each_step(
    run_job: Launch, settings: Settings, tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_everybody_enter(tmp_path)
    monkeypatch.setenv("TMI_OPS_RECOVERY_DIRECTORIES", str(tmp_path))
    migrate(settings.postgres, SilentReport())
    store = open_store(settings.store, settings.environment)
    back_up_logical(settings, store, "custom", SilentReport())
    into, job = tmp_path / "new", "recover_everything"
    asked = {"into": str(into), "port": free_port()}
    looked = run_job(job, config_of(job, **asked))
    planned = shown_by(looked)
    assert [record.data["step"] for record in planned["plan"].records][:2] == ["restore", "provision"]
    assert "nothing was changed" in planned["outcome"]
    assert not into.exists()
    assert list_runs(settings, store, SilentReport()) == []
    try:
        yes = {"confirm": "development", "code": code_for(settings, job, looked)}
        other = {**asked, "into": str(tmp_path / "other")}
        assert "the code is for plan" in why(run_job(job, config_of(job, **yes, **other)))
        assert "wrong, used, expired" in why(run_job(job, config_of(job, **yes, **asked))), "it is valid once"
        yes["code"] = code_for(settings, job, looked)
        shown = shown_by(run_job(job, config_of(job, **yes, **asked)))
        _, journal = find_run(settings, store, str(shown["run"]))
        assert (shown["outcome"], journal.state) == ("recovered", "done")
        assert {f"step: {step.name} (s)" for step in journal.plan.steps} <= set(shown)
        assert store.get_bytes(str(shown["evidence"])).startswith(b"<!doctype html>")
        going_on = {"resume": "latest", "into": str(into)}
        yes["code"] = code_for(settings, job, run_job(job, config_of(job, **going_on)))
        again = run_job(job, config_of(job, **yes, **going_on))
        assert again.success, "a run that is done has nothing left to do"
    finally:
        stop_server(into, programs)
