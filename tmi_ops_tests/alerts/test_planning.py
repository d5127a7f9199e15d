"""What is sent, decided from built records alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from tmi_ops.alerts.alert import Alert
from tmi_ops.alerts.planning import SEEN_EVERY, Step, plan_raise, plan_resolve, plan_retry, settled
from tmi_ops.alerts.record import AlertRecord, DeliveryState, NoticeKind
from tmi_ops.checks.finding import Severity

NOW = datetime(2026, 11, 25, 3, tzinfo=UTC)
REPEAT = timedelta(hours=4)
SECOND = timedelta(seconds=1)


def routes(_severity: Severity) -> Sequence[str]:
    return ()


def alert(severity: Severity = Severity.WARNING, at_risk: str = "The archive is behind.") -> Alert:
    return Alert(
        key="rpo",
        severity=severity,
        summary="At risk",
        at_risk=at_risk,
        since=NOW,
        done="Nothing.",
        to_do="tmi-ops doctor",
    )


def raised(record: AlertRecord | None, what: Alert, now: datetime) -> Step | None:
    return plan_raise(record, what, "development", now, REPEAT, routes)


def opened(at: datetime = NOW, severity: Severity = Severity.WARNING) -> AlertRecord:
    step = raised(None, alert(severity), at)
    assert step is not None
    return step.record


def kind(step: Step | None) -> NoticeKind | None:
    return step.notice.kind if step is not None and step.notice is not None else None


@pytest.mark.parametrize(
    ("after", "severity", "told"),
    [
        (SECOND, Severity.WARNING, None),
        (SECOND, Severity.CRITICAL, NoticeKind.ESCALATED),
        (REPEAT - SECOND, Severity.WARNING, None),
        (REPEAT, Severity.WARNING, NoticeKind.REMINDER),
    ],
)
def test_people_are_told_again_when_it_is_worse_and_when_they_may_have_forgotten(
    after: timedelta, severity: Severity, told: NoticeKind | None
) -> None:
    assert kind(raised(opened(), alert(severity), NOW + after)) is told


def test_the_record_follows_what_is_so_though_nobody_is_told() -> None:
    step = raised(opened(severity=Severity.CRITICAL), alert(at_risk="It is nearly level."), NOW + SECOND)
    assert step is not None
    assert step.notice is None
    assert (step.record.alert.severity, step.record.alert.at_risk) == (Severity.WARNING, "It is nearly level.")
    assert step.record.worst is Severity.CRITICAL  # so that its end is told to whoever heard of it


@pytest.mark.parametrize(("after", "written"), [(SEEN_EVERY - SECOND, False), (SEEN_EVERY, True)])
def test_what_says_nothing_new_is_written_only_to_show_that_it_is_still_so(after: timedelta, written: bool) -> None:
    assert (raised(opened(), alert(), NOW + after) is not None) is written


def test_an_alert_of_a_clock_that_ran_ahead_is_told_again_in_time_once_the_clock_is_right() -> None:
    step = raised(opened(NOW + timedelta(days=365)), alert(at_risk="Still."), NOW)
    assert step is not None
    assert kind(step) is None
    assert step.record.opened_at == step.record.seen_at == step.record.notices[-1].at == NOW
    assert kind(raised(step.record, alert(), NOW + REPEAT)) is NoticeKind.REMINDER


def test_what_is_over_is_told_once() -> None:
    step = plan_resolve(opened(), "It is level.", NOW + SECOND, routes)
    assert kind(step) is NoticeKind.RESOLVED
    assert step is not None
    assert not step.record.is_open
    assert plan_resolve(step.record, "It is level.", NOW + 2 * SECOND, routes) is None


def to(*channels: str) -> Callable[[Severity], Sequence[str]]:
    return lambda _severity: channels


def sent(problem: str = "") -> AlertRecord:
    """An alert that was sent to one channel a second ago, and what came of it."""
    step = plan_raise(None, alert(), "development", NOW, REPEAT, to("mail"))
    assert step is not None
    assert step.notice is not None
    return settled(step.record, step.notice, {"mail": problem}, NOW)


def test_what_did_not_arrive_is_sent_again_in_time_and_each_try_is_counted() -> None:
    failed = sent("connection refused")
    (delivery,) = failed.notices[-1].deliveries
    assert (delivery.state, delivery.attempts, delivery.problem) == (DeliveryState.FAILED, 1, "connection refused")
    assert plan_retry(failed, NOW) is None
    again = plan_retry(failed, NOW + timedelta(hours=1))
    assert again is not None
    assert again.notice is not None
    assert again.channels == ("mail",)
    (arrived,) = settled(again.record, again.notice, {"mail": ""}, NOW + timedelta(hours=1)).notices[-1].deliveries
    assert (arrived.state, arrived.attempts) == (DeliveryState.DELIVERED, 2)


def test_what_arrived_is_not_sent_again_nor_is_anything_where_nothing_was_told() -> None:
    assert plan_retry(sent(), NOW + timedelta(days=1)) is None
    silent = AlertRecord(environment="development", alert=alert(), opened_at=NOW, seen_at=NOW)
    assert plan_retry(silent, NOW) is None


def test_the_outcome_belongs_to_the_notice_that_was_sent_though_another_was_made_meanwhile() -> None:
    first = plan_raise(None, alert(), "development", NOW, REPEAT, to("mail"))
    assert first is not None
    assert first.notice is not None
    second = plan_raise(first.record, alert(Severity.CRITICAL), "development", NOW + SECOND, REPEAT, to("pager"))
    assert second is not None
    done = settled(second.record, first.notice, {"mail": ""}, NOW + SECOND)
    states = [(one.kind, [delivery.state for delivery in one.deliveries]) for one in done.notices]
    assert states == [
        (NoticeKind.OPENED, [DeliveryState.DELIVERED]),
        (NoticeKind.ESCALATED, [DeliveryState.CLAIMED]),
    ]


def test_the_trouble_began_when_it_was_first_seen_to_have_begun() -> None:
    earlier, later = NOW - timedelta(hours=1), NOW + timedelta(hours=1)
    for since, known in ((earlier, earlier), (later, NOW)):
        step = raised(opened(), alert(at_risk="Worse.").model_copy(update={"since": since}), NOW + SECOND)
        assert step is not None
        assert step.record.alert.since == known


def test_a_reminder_waits_from_the_last_notice_not_from_the_first() -> None:
    reminded = raised(opened(), alert(), NOW + REPEAT)
    assert reminded is not None
    assert kind(raised(reminded.record, alert(at_risk="Still."), NOW + REPEAT + SECOND)) is None
    assert kind(raised(reminded.record, alert(), NOW + 2 * REPEAT)) is NoticeKind.REMINDER
