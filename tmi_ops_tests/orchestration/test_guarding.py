"""The sensors that guard the objectives, look by look, on real servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from dagster import AssetCheckEvaluation, DagsterInstance, DagsterRunStatus, ExecuteInProcessResult
from dagster._core.test_utils import create_run_for_test

from tmi_ops.alerts.service import AlertService
from tmi_ops.backup.logical import back_up_logical
from tmi_ops.checks.finding import Severity
from tmi_ops.orchestration import guarding
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.verify import verify_backup
from tmi_ops.settings import Settings
from tmi_ops.store.objects import open_store
from tmi_ops_tests.orchestration.conftest import ENVIRONMENT, key
from tmi_ops_tests.orchestration.sensing import look_through, passed_over
from tmi_ops_tests.webhook import Webhook, webhook

RunJob = Callable[..., ExecuteInProcessResult]


@pytest.fixture(autouse=True)
def own_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look reads anew, as looks further apart do."""
    monkeypatch.setattr(guarding, "SHARED_FOR", guarding.SHARED_FOR * 0)


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    """Outside, and notices silence."""
    with webhook() as heard:
        monkeypatch.setenv("TMI_OPS_HEARTBEAT_URL", f"http://127.0.0.1:{heard.port}/alive")
        yield heard


def open_alerts(settings: Settings) -> dict[str, Severity]:
    return {record.alert.key: record.alert.severity for record in AlertService(settings).records() if record.is_open}


@pytest.mark.slow
def test_an_unprotected_database_is_backed_up_told_of_and_recovered_from_in_that_order(
    as_variables: Settings, monitor: Webhook
) -> None:
    first = look_through("rpo_guard")
    (request,) = first.run_requests or []
    assert request.job_name == "logical_backup"
    assert open_alerts(as_variables) == {"rpo": Severity.CRITICAL}
    (event,) = first.asset_events
    assert isinstance(event, AssetCheckEvaluation)
    assert (event.asset_key, event.check_name, event.passed) == (key("objectives", "rpo"), "objective_met", False)

    second = look_through("rpo_guard", first.cursor)
    assert not second.run_requests
    assert not second.asset_events

    store = open_store(as_variables.store, ENVIRONMENT)
    backup = back_up_logical(as_variables, store, "custom", SilentReport())
    unverified = look_through("rpo_guard", second.cursor)
    assert open_alerts(as_variables) == {"rpo": Severity.CRITICAL}
    # The backup has had its part: what is missing now is its proof, and that waits for nothing.
    (request,) = unverified.run_requests or []
    assert request.job_name == "verify_backup"

    verify_backup(as_variables, store, backup, SilentReport())
    met = look_through("rpo_guard", unverified.cursor)
    assert not open_alerts(as_variables)
    (event,) = met.asset_events
    assert isinstance(event, AssetCheckEvaluation)
    assert event.passed
    assert "Met at the last check" in passed_over("rpo_guard", met.cursor), "the next look waits"
    # The outside monitor hears of every look: three while the promise was broken, one when it was kept.
    assert [request.path for request in monitor.requests] == ["/alive/fail"] * 3 + ["/alive"]
    assert monitor.requests[-1].body == met.skip_reason.skip_message


def test_a_backup_that_is_at_work_already_is_not_begun_again(as_variables: Settings) -> None:
    with DagsterInstance.ephemeral() as instance:
        create_run_for_test(
            instance,
            job_name="logical_backup",
            status=DagsterRunStatus.STARTED,
            tags={"tmi_ops/environment": ENVIRONMENT},
        )
        look = look_through("rpo_guard", instance=instance)
    assert not look.run_requests
    assert "Running: take a logical backup" in str(look.skip_reason)


def test_a_store_that_does_not_answer_is_told_of_and_nothing_is_begun(
    as_variables: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMI_OPS_S3_BUCKET", "no-such-bucket")
    look = look_through("rto_guard")
    assert not look.run_requests
    assert "unknown: " in str(look.skip_reason)
    assert "unread_since" in str(look.cursor)


def test_where_nothing_can_be_restored_the_rto_asks_for_a_base_backup(as_variables: Settings) -> None:
    look = look_through("rto_guard")
    (request,) = look.run_requests or []
    assert request.job_name == "base_backup"
    assert open_alerts(as_variables) == {"rto": Severity.CRITICAL}


def test_the_stream_of_an_environment_whose_dumps_are_enough_needs_nothing(as_variables: Settings) -> None:
    look = look_through("wal_stream_guard")
    assert not look.run_requests
    assert not open_alerts(as_variables)


def test_without_a_slot_a_short_rpo_is_at_risk_and_only_a_person_can_start_the_receiver(
    as_variables: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMI_OPS_RPO", "15m")
    look = look_through("wal_stream_guard")
    assert not look.run_requests
    assert open_alerts(as_variables) == {"wal-stream": Severity.WARNING}
