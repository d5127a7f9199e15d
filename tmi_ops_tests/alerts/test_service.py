"""Who is told what and when: once, when it worsens, as a reminder, and when it is over."""

from __future__ import annotations

import logging
from datetime import timedelta
from io import StringIO

import pytest
from pydantic import SecretStr

from tmi_ops.alerts.record import DeliveryState, NoticeKind
from tmi_ops.alerts.service import AlertService
from tmi_ops.checks.finding import Severity
from tmi_ops.settings import AlertSettings, Settings
from tmi_ops_tests.alerts.conftest import PASSWORD, START, Clock, address, alert
from tmi_ops_tests.webhook import Webhook, webhook


def test_a_message_says_what_is_at_risk_since_when_what_was_done_and_what_to_do(
    service: AlertService, hook: Webhook, clock: Clock
) -> None:
    clock.forward(minutes=42)
    assert service.raise_alert(alert(Severity.CRITICAL)).sent is NoticeKind.OPENED
    (request,) = hook.requests
    assert request.message["type"] == "failure"
    assert request.message["title"] == "[production] CRITICAL: Recovery point objective breached"
    assert request.message["message"].splitlines() == [
        "At risk: The last 42 min of changes would be lost if the database were lost now (objective: 15 min).",
        "Since: 2026-03-01 03:00 UTC (42 min ago).",
        "Done: A WAL catch-up was started.",
        "To do: Start the receiver: `tmi-ops -e production wal stream`.",
        "",
        "Status: `tmi-ops -e production status`. Open alerts: `tmi-ops -e production alerts`.",
        "(alert rpo)",
    ]


def test_people_are_told_once_then_reminded_and_told_when_it_is_over(
    service: AlertService, hook: Webhook, clock: Clock, alert_settings: Settings
) -> None:
    for _ in range(10):
        service.raise_alert(alert())
        clock.forward(minutes=1)
    assert len(hook.requests) == 1
    clock.forward(seconds=alert_settings.alerts.repeat.total_seconds())
    service.raise_alert(alert())
    service.raise_alert(alert())
    assert hook.titles[1:] == ["[production] WARNING: Recovery point objective breached (reminder)"]
    clock.forward(minutes=5)
    assert service.resolve("rpo", "The receiver is back.").sent is NoticeKind.RESOLVED
    assert service.resolve("rpo", "The receiver is back.").sent is None
    assert hook.titles[2:] == ["[production] RESOLVED: Recovery point objective breached"]
    last = hook.requests[-1].message
    assert last["type"] == "success"
    assert "after 4 h 15 min" in last["message"]
    assert "What helped: The receiver is back." in last["message"]


def test_what_becomes_worse_is_told_at_once_and_what_becomes_better_is_not(
    service: AlertService, hook: Webhook
) -> None:
    for severity in (Severity.WARNING, Severity.CRITICAL, Severity.WARNING, Severity.CRITICAL):
        service.raise_alert(alert(severity))
    assert hook.titles == [
        "[production] WARNING: Recovery point objective breached",
        "[production] CRITICAL: Recovery point objective breached (now worse)",
    ]


def test_what_was_never_so_is_not_over(service: AlertService, hook: Webhook) -> None:
    outcome = service.resolve("rpo", "All is well.")
    assert (outcome.record, outcome.sent) == (None, None)
    assert hook.requests == []
    assert service.records() == []


def test_the_same_trouble_again_is_news(service: AlertService, hook: Webhook, clock: Clock) -> None:
    for _ in range(2):
        service.raise_alert(alert(since=clock.now))
        clock.forward(minutes=1)
        service.resolve("rpo", "It passed.")
        clock.forward(minutes=1)
    assert len(hook.requests) == 4
    (record,) = service.records()
    assert [notice.kind for notice in record.notices] == ["opened", "resolved"] * 2


def test_a_second_process_and_another_machine_tell_nobody_twice(
    alert_settings: Settings, hook: Webhook, clock: Clock
) -> None:
    elsewhere = alert_settings.model_copy(update={"home": alert_settings.home / "of-another-machine"})
    for settings in (alert_settings, alert_settings, elsewhere):
        AlertService(settings, clock).raise_alert(alert())
    assert len(hook.requests) == 1
    AlertService(elsewhere, clock).resolve("rpo", "It passed.")
    AlertService(alert_settings, clock).resolve("rpo", "It passed.")
    assert len(hook.requests) == 2


@pytest.mark.slow
def test_each_severity_reaches_those_who_asked_for_it_and_the_recovery_reaches_who_was_told(
    alert_settings: Settings, hook: Webhook, clock: Clock
) -> None:
    with webhook() as team, webhook() as pager:
        told = AlertSettings(urls=(address(hook),), urls_warning=(address(team),), urls_critical=(address(pager),))
        service = AlertService(alert_settings.model_copy(update={"alerts": told}), clock)
        service.raise_alert(alert(Severity.NOTICE))
        assert [len(heard.requests) for heard in (hook, team, pager)] == [1, 0, 0]
        service.raise_alert(alert(Severity.WARNING))
        assert [len(heard.requests) for heard in (hook, team, pager)] == [2, 1, 0]
        service.raise_alert(alert(Severity.CRITICAL))
        assert [len(heard.requests) for heard in (hook, team, pager)] == [3, 2, 1]
        service.raise_alert(alert(Severity.NOTICE))
        service.resolve("rpo", "It passed.")
        assert [len(heard.requests) for heard in (hook, team, pager)] == [4, 3, 2]


def test_a_channel_that_refuses_is_recorded_and_tried_again_at_the_next_occasion(
    service: AlertService, hook: Webhook, clock: Clock
) -> None:
    hook.status = 503
    outcome = service.raise_alert(alert())
    (problem,) = outcome.problems.values()
    assert "503" in problem or "Service Unavailable" in problem
    assert outcome.record is not None
    (delivery,) = outcome.record.notices[-1].deliveries
    assert (delivery.state, delivery.attempts) == (DeliveryState.FAILED, 1)
    hook.status = 200
    assert service.raise_alert(alert()).sent is None, "a channel in trouble is not hurried"
    clock.forward(minutes=1)
    assert service.raise_alert(alert()).sent is NoticeKind.OPENED
    assert service.raise_alert(alert()).sent is None
    (record,) = service.records()
    (delivery,) = record.notices[-1].deliveries
    assert (delivery.state, delivery.attempts, delivery.problem) == (DeliveryState.DELIVERED, 2, "")


def test_a_recovery_that_did_not_arrive_is_sent_though_nobody_raises_the_alert_any_more(
    service: AlertService, hook: Webhook, clock: Clock
) -> None:
    service.raise_alert(alert())
    hook.status = 500
    service.resolve("rpo", "It passed.")
    hook.status = 200
    clock.forward(minutes=2)
    (outcome,) = service.retry()
    assert outcome.sent is NoticeKind.RESOLVED
    assert service.retry() == []


def test_a_claim_whose_process_died_is_taken_up_later(service: AlertService, hook: Webhook, clock: Clock) -> None:
    def dies(_: object) -> str:
        raise SystemExit

    real = service.channels[0]
    service.channels[0] = type(real)(real.name, real.hears, dies)
    with pytest.raises(SystemExit):
        _die_between_claim_and_outcome(service)
    service.channels[0] = real
    clock.forward(seconds=30)
    assert service.raise_alert(alert()).sent is None
    clock.forward(minutes=2)
    assert service.raise_alert(alert()).sent is NoticeKind.OPENED
    assert len(hook.requests) == 1


def _die_between_claim_and_outcome(service: AlertService) -> None:
    from tmi_ops.alerts.planning import plan_raise

    now = service._clock()
    service.book.change(
        "rpo", lambda record: plan_raise(record, alert(), "production", now, timedelta(hours=4), service._hearing)
    )
    raise SystemExit


def test_without_a_channel_the_alert_is_kept_and_says_that_nobody_was_told(
    alert_settings: Settings, clock: Clock
) -> None:
    service = AlertService(alert_settings.model_copy(update={"alerts": AlertSettings()}), clock)
    assert "sent to nobody" in service.raise_alert(alert()).text
    (record,) = service.records()
    assert record.is_open


def test_no_address_shows_in_what_is_kept_or_returned(alert_settings: Settings, hook: Webhook, clock: Clock) -> None:
    hook.status = 500
    log = StringIO()
    logging.getLogger().addHandler(handler := logging.StreamHandler(log))
    told = AlertSettings(
        urls=(
            address(hook),
            SecretStr(f"json://x:{PASSWORD}@127.0.0.1:1/{PASSWORD}"),
            SecretStr(f"nonsense://{PASSWORD}"),
            SecretStr(f"slack://{PASSWORD}"),
        )
    )
    service = AlertService(alert_settings.model_copy(update={"alerts": told}), clock)
    outcome = service.raise_alert(alert())
    logging.getLogger().removeHandler(handler)
    assert len([problem for problem in outcome.problems.values() if problem]) == 4
    kept = "".join(file.read_text() for file in alert_settings.home.rglob("*.json"))
    assert kept
    for text in (repr(outcome), outcome.text, kept, log.getvalue(), repr(service.channels)):
        assert PASSWORD not in text


def test_an_alert_began_when_the_trouble_was_first_known_to_have_begun(service: AlertService) -> None:
    service.raise_alert(alert(Severity.WARNING))
    outcome = service.raise_alert(alert(Severity.CRITICAL, since=START + timedelta(minutes=5)))
    assert outcome.record is not None
    assert outcome.record.alert.since == START
