"""What becomes of a step that failed, was cancelled, or belongs to a run that was given up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from dagster import DagsterInstance, DagsterRunStatus, ExecuteInProcessResult, job, op
from dagster._core.errors import DagsterExecutionInterruptedError

from tmi_ops.errors import OpsError, SettingsError
from tmi_ops.orchestration import policies, presence, resources
from tmi_ops.orchestration.policies import EXECUTOR, MAX_RETRIES
from tmi_ops.orchestration.resources import PARENT_TAG, Environment, failures_explained


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "FIRST_RETRY_AFTER_S", 0.0)


def run(error: BaseException, *, tried_again: bool = True) -> ExecuteInProcessResult:
    """A run of one step that raises it."""

    @op
    def work() -> None:
        with failures_explained(tried_again=tried_again):
            raise error

    @job(executor_def=EXECUTOR)
    def working() -> None:
        work()

    return working.execute_in_process(instance=DagsterInstance.ephemeral(), raise_on_error=False)


def attempts(result: ExecuteInProcessResult) -> int:
    return 1 + sum(event.is_step_up_for_retry for event in result.all_events)


def test_what_may_pass_by_itself_is_tried_again_and_what_it_said_last_is_kept() -> None:
    result = run(OpsError("The store is away.", hint="start it", transient=True))
    assert attempts(result) == 1 + MAX_RETRIES
    (failure,) = (event.step_failure_data for event in result.all_events if event.is_step_failure)
    assert failure.user_failure_data is not None
    said = {name: value.value for name, value in failure.user_failure_data.metadata.items()}
    assert said == {"what happened": "The store is away.", "kept safe": "Nothing was changed.", "next step": "start it"}


def test_what_only_a_person_may_begin_again_and_what_will_not_pass_are_tried_once() -> None:
    transient = OpsError("The store is away.", transient=True)
    assert attempts(run(transient, tried_again=False)) == 1
    assert attempts(run(OpsError("The password is wrong."))) == 1


def test_a_connection_that_broke_in_a_place_that_does_not_explain_it_is_tried_again() -> None:
    assert attempts(run(ConnectionResetError("gone"))) == 1 + MAX_RETRIES


def test_a_step_that_was_cancelled_is_not_tried_again() -> None:
    cancelled = run(DagsterExecutionInterruptedError())
    assert not cancelled.success
    assert attempts(cancelled) == 1


def test_a_setting_that_makes_no_sense_is_marked_as_refused_before_anything_was_begun() -> None:
    (failure,) = (event.step_failure_data for event in run(SettingsError("Which?")).all_events if event.is_step_failure)
    assert failure.user_failure_data is not None
    assert resources.REFUSED in failure.user_failure_data.metadata


@pytest.mark.parametrize(("tried", "least", "most"), [(0, 7.5, 22.5), (1, 15.0, 45.0), (2, 30.0, 90.0)])
def test_each_attempt_waits_twice_as_long_as_the_one_before_give_or_take_half(
    monkeypatch: pytest.MonkeyPatch, tried: int, least: float, most: float
) -> None:
    monkeypatch.setattr(policies, "FIRST_RETRY_AFTER_S", 15.0)
    delays = [policies.retry_delay_s(tried) for _ in range(100)]
    assert least <= min(delays) < max(delays) <= most


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ExecuteInProcessResult]:
    """A run of a step that needs the environment, told of a run that it repeats."""
    done: list[str] = []

    @op
    def work(environment: Environment) -> None:
        done.append("worked")

    @job(executor_def=EXECUTOR, resource_defs={"environment": Environment(name="development")})
    def working() -> None:
        work()

    def run_it(parent_lives: bool) -> ExecuteInProcessResult:
        monkeypatch.setattr(resources, "PARENT_TIMEOUT_S", 0.0)
        monkeypatch.setattr(presence, "is_present", lambda _instance, _run: parent_lives)
        instance = DagsterInstance.ephemeral()
        parent = instance.create_run_for_job(working, status=DagsterRunStatus.FAILURE)
        return working.execute_in_process(instance=instance, raise_on_error=False, tags={PARENT_TAG: parent.run_id})

    return run_it


def test_a_run_that_repeats_one_that_was_given_up_too_early_does_not_work_beside_it(
    begin: Callable[..., ExecuteInProcessResult],
) -> None:
    assert begin(parent_lives=False).success
    beside = begin(parent_lives=True)
    assert not beside.success
    assert any("is still running" in repr(event.event_specific_data) for event in beside.all_events)
