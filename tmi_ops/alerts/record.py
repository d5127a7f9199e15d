"""The record of an alert: whether it is open, which notices were sent, and which arrived where."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict

from tmi_ops.alerts.alert import Alert
from tmi_ops.checks.finding import Severity

NOTICES_KEPT = 30
# After this, a process that claimed a delivery without recording a result is dead: no delivery takes that long.
CLAIM = timedelta(minutes=2)
_FIRST_PAUSE = timedelta(minutes=1)
_LONGEST_PAUSE = timedelta(hours=1)
_GIVEN_UP_AFTER = timedelta(days=1)


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class DeliveryState(StrEnum):
    CLAIMED = "claimed"
    DELIVERED = "delivered"
    FAILED = "failed"


class Delivery(_Facts):
    """The delivery of a notice to one channel. `channel`: its name, not its address; `problem`: the last failure."""

    channel: str
    state: DeliveryState
    at: AwareDatetime
    attempts: int = 0
    problem: str = ""

    def is_due(self, now: datetime) -> bool:
        """Whether to try again now."""
        if self.state is DeliveryState.DELIVERED:
            return False
        if self.state is DeliveryState.CLAIMED:
            return now - self.at >= CLAIM
        return now - self.at >= min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self.attempts - 1, 10))


class NoticeKind(StrEnum):
    OPENED = "opened"
    ESCALATED = "escalated"
    REMINDER = "reminder"
    RESOLVED = "resolved"


class Notice(_Facts):
    """One message, with its own copy of the alert: the alert may change before the message is delivered."""

    kind: NoticeKind
    alert: Alert
    at: AwareDatetime
    resolution: str = ""
    deliveries: tuple[Delivery, ...] = ()

    def due(self, now: datetime) -> tuple[str, ...]:
        """The channels to send it to now."""
        if now - self.at > _GIVEN_UP_AFTER:
            return ()
        return tuple(delivery.channel for delivery in self.deliveries if delivery.is_due(now))

    def with_deliveries(self, changed: Iterable[Delivery]) -> Notice:
        news = {delivery.channel: delivery for delivery in changed}
        kept = [news.pop(delivery.channel, delivery) for delivery in self.deliveries]
        return self.model_copy(update={"deliveries": (*kept, *news.values())})


class AlertRecord(_Facts):
    """One alert and its history, newest notice last; `seen_at` is when the problem was last found.

    `writing` differs each time it is written: two processes that decide alike must not mistake each other's record for
    their own.
    """

    format_version: int = 1
    writing: str = ""
    environment: str
    alert: Alert
    opened_at: AwareDatetime
    seen_at: AwareDatetime
    resolved_at: AwareDatetime | None = None
    notices: tuple[Notice, ...] = ()

    @property
    def is_open(self) -> bool:
        return self.resolved_at is None

    @property
    def incident(self) -> tuple[Notice, ...]:
        """The notices since the alert was opened."""
        return tuple(notice for notice in self.notices if notice.at >= self.opened_at)

    @property
    def worst(self) -> Severity:
        """The worst severity of any notice since the alert was opened."""
        return max(
            (notice.alert.severity for notice in self.incident), key=lambda one: one.rank, default=Severity.NOTICE
        )

    def as_of(self, now: datetime) -> AlertRecord:
        """The record with no time in the future: such a time was written by a fast clock, and counts as now."""
        ahead = max(self.opened_at, self.seen_at, *(notice.at for notice in self.notices))
        if ahead <= now:
            return self
        notices = tuple(notice.model_copy(update={"at": min(notice.at, now)}) for notice in self.notices)
        update = {"opened_at": min(self.opened_at, now), "seen_at": min(self.seen_at, now), "notices": notices}
        return self.model_copy(update=update)

    def with_notice(self, notice: Notice) -> AlertRecord:
        """The record with this notice added, or replacing the one of the same kind and time."""
        others = [one for one in self.notices if (one.kind, one.at) != (notice.kind, notice.at)]
        notices = sorted([*others, notice], key=lambda one: (one.at, list(NoticeKind).index(one.kind)))
        return self.model_copy(update={"notices": tuple(notices[-NOTICES_KEPT:])})


def merged(one: AlertRecord, other: AlertRecord) -> AlertRecord:
    """Merge two histories of one alert that diverged while the store could not be reached; nothing is lost.

    The later one decides whether the alert is open; if both are open, the earlier opening time counts.
    """
    older, newer = sorted((one, other), key=_last_word)
    joined = newer
    for notice in older.notices:
        same = next((known for known in joined.notices if (known.kind, known.at) == (notice.kind, notice.at)), None)
        joined = joined.with_notice(notice if same is None else _further(same, notice))
    if newer.is_open and older.is_open:
        joined = joined.model_copy(update={"opened_at": min(one.opened_at, other.opened_at)})
    return joined


def _last_word(record: AlertRecord) -> datetime:
    return max(record.seen_at, record.resolved_at or record.seen_at)


def _further(one: Notice, other: Notice) -> Notice:
    """The notice with the most advanced state of each delivery."""
    known = {delivery.channel: delivery for delivery in one.deliveries}
    further = [
        delivery
        for delivery in other.deliveries
        if delivery.channel not in known or _progress(delivery) > _progress(known[delivery.channel])
    ]
    return one.with_deliveries(further)


def _progress(delivery: Delivery) -> tuple[bool, datetime]:
    return delivery.state is DeliveryState.DELIVERED, delivery.at
