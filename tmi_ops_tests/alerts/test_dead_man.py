"""The outside monitor is pinged by success, told of failure, and cannot hold anything up."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from tmi_ops.alerts import dead_man
from tmi_ops.alerts.dead_man import ping_heartbeat
from tmi_ops.settings import AlertSettings, Settings
from tmi_ops_tests.alerts.conftest import PASSWORD
from tmi_ops_tests.webhook import Webhook


def pinging(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"alerts": AlertSettings(heartbeat_url=SecretStr(url))})


@pytest.fixture
def watched(alert_settings: Settings, hook: Webhook) -> Settings:
    return pinging(alert_settings, f"http://127.0.0.1:{hook.port}/{PASSWORD}")


def test_success_pings_the_address_and_failure_the_one_for_failures(watched: Settings, hook: Webhook) -> None:
    assert ping_heartbeat(watched, "production: recoverable up to 12 s ago") == ""
    assert ping_heartbeat(watched, "production: RPO breached", failed=True) == ""
    assert [(request.path, request.body) for request in hook.requests] == [
        (f"/{PASSWORD}", "production: recoverable up to 12 s ago"),
        (f"/{PASSWORD}/fail", "production: RPO breached"),
    ]


def test_an_address_with_a_query_has_no_place_for_failures_and_is_left_silent(
    alert_settings: Settings, hook: Webhook
) -> None:
    settings = pinging(alert_settings, f"http://127.0.0.1:{hook.port}/push?status=up")
    ping_heartbeat(settings, "it failed", failed=True)
    assert hook.requests == []
    ping_heartbeat(settings, "it is well")
    assert [request.path for request in hook.requests] == ["/push?status=up"]


def test_without_a_monitor_nothing_happens(alert_settings: Settings) -> None:
    assert ping_heartbeat(alert_settings, "it is well") == ""


def test_a_monitor_that_refuses_is_absent_or_never_answers_is_told_apart_and_its_address_not_shown(
    watched: Settings,
    alert_settings: Settings,
    hook: Webhook,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(dead_man, "PATIENCE_S", 0.5)
    hook.status = 404
    assert ping_heartbeat(watched, "it is well") == "HTTP 404"
    hook.status = None
    assert ping_heartbeat(watched, "it is well").startswith("no answer within")
    absent = pinging(alert_settings, f"http://127.0.0.1:1/{PASSWORD}")
    assert ping_heartbeat(absent, "it is well") == "ConnectionRefusedError"
    assert caplog.text
    assert PASSWORD not in caplog.text
