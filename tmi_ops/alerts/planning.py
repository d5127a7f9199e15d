"""Decides what to send from the record of an alert: nothing twice, nothing lost.

1. An alert that is not open is opened, and sent.
2. An open alert is sent again when it becomes worse than any notice said, or when `repeat` has passed since the last.
3. When it is resolved, one recovery notice goes to every channel that its worst severity reaches.
4. A notice that did not arrive is sent again, with growing pauses, until a newer notice replaces it.

A step claims its deliveries in the record before anything is sent, so only one of two processes sends; another process
takes over a claim whose process died after `CLAIM`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tmi_ops.alerts.alert import Alert
from tmi_ops.alerts.record import AlertRecord, Delivery, DeliveryState, Notice, NoticeKind
from tmi_ops.checks.finding import Severity

# How old `seen_at` of an open alert may become before the record is written only to update it.
SEEN_EVERY = timedelta(minutes=15)

# The names of the channels that receive a severity; called only if there is something to send.
Routes = Callable[[Severity], Sequence[str]]


@dataclass(frozen=True)
class Step:
    """The record to write, and the notice to send to `channels` once it is written."""

    record: AlertRecord
    notice: Notice | None = None
    channels: tuple[str, ...] = ()


def plan_raise(
    record: AlertRecord | None, alert: Alert, environment: str, now: datetime, repeat: timedelta, routes: Routes
) -> Step | None:
    """The step for a problem that exists now; None if the record needs no change."""
    record = record and record.as_of(now)
    if record is None or not record.is_open:
        before = record.notices if record is not None else ()
        opened = AlertRecord(environment=environment, alert=alert, opened_at=now, seen_at=now, notices=before)
        return _announce(opened, NoticeKind.OPENED, alert, now, routes)
    alert = alert.model_copy(update={"since": min(alert.since, record.alert.since)})
    seen = record.model_copy(update={"alert": alert, "seen_at": now})
    if alert.severity.rank > record.worst.rank:
        return _announce(seen, NoticeKind.ESCALATED, alert, now, routes)
    if now - max((notice.at for notice in record.incident), default=record.opened_at) >= repeat:
        return _announce(seen, NoticeKind.REMINDER, alert, now, routes)
    if (retry := plan_retry(seen, now)) is not None:
        return retry
    return Step(seen) if now - record.seen_at >= SEEN_EVERY or alert != record.alert else None


def plan_resolve(record: AlertRecord | None, resolution: str, now: datetime, routes: Routes) -> Step | None:
    """The step for a problem that is over; None if there is nothing to resolve and nothing to send."""
    if record is None:
        return None
    if not record.is_open:
        return plan_retry(record, now)
    ended = record.model_copy(update={"resolved_at": now})
    channels = tuple(routes(record.worst))
    notice = Notice(
        kind=NoticeKind.RESOLVED,
        alert=record.alert,
        at=now,
        resolution=resolution,
        deliveries=_claims(channels, now),
    )
    return Step(ended.with_notice(notice), notice, channels)


def plan_retry(record: AlertRecord, now: datetime) -> Step | None:
    """The step that sends the newest notice to the channels where it has not arrived yet."""
    if not record.notices:
        return None
    newest = record.notices[-1]
    channels = newest.due(now)
    if not channels:
        return None
    before = {delivery.channel: delivery for delivery in newest.deliveries}
    claimed = newest.with_deliveries(
        before[name].model_copy(update={"state": DeliveryState.CLAIMED, "at": now}) for name in channels
    )
    return Step(record.with_notice(claimed), claimed, channels)


def settled(record: AlertRecord, notice: Notice, problems: Mapping[str, str], now: datetime) -> AlertRecord:
    """The record after sending. `problems`: every channel that was tried, with an empty text if it arrived."""
    before = {delivery.channel: delivery for delivery in notice.deliveries}
    outcome = [
        Delivery(
            channel=channel,
            state=DeliveryState.FAILED if problem else DeliveryState.DELIVERED,
            at=now,
            attempts=before[channel].attempts + 1,
            problem=problem,
        )
        for channel, problem in problems.items()
    ]
    current = next((one for one in record.notices if (one.kind, one.at) == (notice.kind, notice.at)), notice)
    return record.with_notice(current.with_deliveries(outcome))


def _announce(record: AlertRecord, kind: NoticeKind, alert: Alert, now: datetime, routes: Routes) -> Step:
    channels = tuple(routes(alert.severity))
    notice = Notice(kind=kind, alert=alert, at=now, deliveries=_claims(channels, now))
    return Step(record.with_notice(notice), notice, channels)


def _claims(channels: Sequence[str], now: datetime) -> tuple[Delivery, ...]:
    return tuple(Delivery(channel=channel, state=DeliveryState.CLAIMED, at=now) for channel in channels)
