"""What to send, decided from what is remembered: nothing twice, nothing forgotten.

1. An alert that is not open is opened, and sent.
2. An open one is sent again when it became worse than anybody was told, or when `repeat` has passed since it was sent.
3. A resolved one is followed by one recovery notice, to every channel that its worst severity reaches.
4. What did not arrive is sent again at the next occasion, with growing pauses, until it is overtaken by a newer notice.

A step claims its deliveries in the record before anything is sent: of two processes one does it, and a claim whose
process died is taken up after `CLAIM`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tmi_ops.alerts.alert import Alert
from tmi_ops.alerts.record import AlertRecord, Delivery, DeliveryState, Notice, NoticeKind
from tmi_ops.checks.finding import Severity

# How old the word of an open alert may grow before a record is written only to renew its moment.
SEEN_EVERY = timedelta(minutes=15)

# The names of the channels that hear of a severity; asked only when something is to be sent.
Routes = Callable[[Severity], Sequence[str]]


@dataclass(frozen=True)
class Step:
    """The record as it is to be written, and the notice that whoever wrote it sends to `channels`."""

    record: AlertRecord
    notice: Notice | None = None
    channels: tuple[str, ...] = ()


def plan_raise(
    record: AlertRecord | None, alert: Alert, environment: str, now: datetime, repeat: timedelta, routes: Routes
) -> Step | None:
    """The step for an alert that is so now; None where the record says everything already."""
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
    """The step for an alert that is no longer so; None where there is nothing to end and nothing to send."""
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
    """The step that sends the newest notice where it did not arrive yet."""
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
    """The record after the sending; `problems` has every channel that was tried, and an empty text where it arrived."""
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
