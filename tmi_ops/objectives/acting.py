"""What is done about a judgement that is not good: which cure to begin, what to tell whom, what to remember. Pure.

1. Met: nothing is begun; an alert that is open ends with what helped.
2. Otherwise the cheapest cure that needs no person is begun, once: its key names the trouble and the attempt. It has
   `Pace.cooldown` to help, twice as long after each attempt; then the least tried of the cures is next.
3. People are told of a breach at once. Of a risk they are told when nothing can be begun, or when everything that can
   has been tried and has had its time.
4. What could not be read is told of, too: not to know is a risk that grows into a breach within the objective.
The memory is what Dagster keeps as a sensor's cursor; a lost one costs a repeated cure and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict

from tmi_ops.alerts.alert import Alert, Severity
from tmi_ops.objectives.cures import Action, Cure
from tmi_ops.objectives.standing import Standing

LONGEST_COOLDOWN_FACTOR = 64
# A cure needs some time to help, however short the objective.
SHORTEST_COOLDOWN = timedelta(seconds=30)


class Topic(StrEnum):
    """What is judged; the key of its alert."""

    RPO = "rpo"
    RTO = "rto"
    STREAM = "wal-stream"


class Judged(Protocol):
    """What every judgement of `rpo.py`, `rto.py` and `stream.py` has."""

    @property
    def standing(self) -> Standing: ...
    @property
    def reason(self) -> str: ...
    @property
    def cures(self) -> tuple[Cure, ...]: ...


class Attempt(BaseModel):
    """How often a cure was begun in this trouble, and when last."""

    model_config = ConfigDict(frozen=True)

    times: int
    at: AwareDatetime


class Memory(BaseModel):
    """What one look leaves for the next. `since`: when the trouble began; None: there is none."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    standing: Standing | None = None
    since: AwareDatetime | None = None
    attempts: dict[Action, Attempt] = {}
    unread_since: AwareDatetime | None = None

    @classmethod
    def of(cls, cursor: str | None) -> Memory:
        """A cursor of an older version, or none, is an empty memory."""
        try:
            return cls.model_validate_json(cursor or "{}")
        except ValueError:
            return cls()


@dataclass(frozen=True)
class Pace:
    """How patient the acting is. `cooldown`: what a cure has to help before it, or another, is begun again."""

    cooldown: timedelta
    objective: timedelta

    @classmethod
    def of(cls, objective: timedelta) -> Pace:
        """A third of the objective: two more cures fit into it."""
        return cls(max(objective / 3, SHORTEST_COOLDOWN), objective)


@dataclass(frozen=True)
class Order:
    """A cure to begin now. The same key twice is the same order."""

    cure: Cure
    key: str


@dataclass(frozen=True)
class Decision:
    """What one look leads to. `resolution`: the trouble is over, and what helped. `said`: all of it in one line.

    `standing`: as judged; None: nothing could be read.
    """

    memory: Memory
    said: str
    standing: Standing | None
    order: Order | None = None
    alert: Alert | None = None
    resolution: str | None = None


def decide(
    topic: Topic, judged: Judged, memory: Memory, now: datetime, pace: Pace, running: Collection[Action] = ()
) -> Decision:
    """What to do about a judgement.

    Args:
        running: cures that are at work or wait for their turn.
    """
    if judged.standing is Standing.MET:
        after = Memory(standing=judged.standing)
        return Decision(after, judged.reason, judged.standing, resolution=_what_helped(judged, memory))
    since = memory.since or now
    order = _order(topic, judged, memory, since, now, pace, running)
    attempts = dict(memory.attempts)
    if order is not None:
        before = attempts.get(order.cure.action)
        attempts[order.cure.action] = Attempt(times=before.times + 1 if before else 1, at=now)
    after = Memory(standing=judged.standing, since=since, attempts=attempts)
    alert = _alert(topic, judged, after, order, running) if _is_told(judged, memory, now, pace, running) else None
    said = f"{judged.standing}: {judged.reason} {_done(after, order, running)}"
    return Decision(after, said, judged.standing, order, alert)


def decide_unread(topic: Topic, problem: str, next_step: str, memory: Memory, now: datetime, pace: Pace) -> Decision:
    """What to do where nothing could be read, and so nothing judged."""
    since = memory.unread_since or now
    blind_too_long = now - since > pace.objective
    after = memory.model_copy(update={"unread_since": since})
    alert = Alert(
        key=topic.value,
        severity=Severity.CRITICAL if blind_too_long else Severity.WARNING,
        summary=f"What can be recovered is not known ({topic.upper()})",
        at_risk=f"{problem} Nobody can tell how much would be lost, were the server lost now.",
        since=since,
        done="Nothing: nothing can be decided without reading.",
        to_do=next_step or "tmi-ops doctor",
    )
    return Decision(after, f"could not be read: {problem}", None, alert=alert)


def _order(
    topic: Topic,
    judged: Judged,
    memory: Memory,
    since: datetime,
    now: datetime,
    pace: Pace,
    running: Collection[Action],
) -> Order | None:
    automatic = _automatic(judged)
    if not automatic or _is_busy(memory, automatic, now, pace, running):
        return None
    cure = min(automatic, key=lambda one: _times(memory, one))
    return Order(cure, f"{topic}-{cure.action.name.lower()}-{since:%Y%m%dT%H%M%S}-{_times(memory, cure) + 1}")


def _automatic(judged: Judged) -> list[Cure]:
    """Cures that need no person; none where the database must be reached before any of them could work."""
    if any(cure.action is Action.REACH_DATABASE for cure in judged.cures):
        return []
    return [cure for cure in judged.cures if cure.action.is_automatic]


def _is_busy(memory: Memory, automatic: list[Cure], now: datetime, pace: Pace, running: Collection[Action]) -> bool:
    """Whether a cure is at work, or has not yet had its time to help."""
    if _helping(memory, automatic) & frozenset(running):
        return True
    last = max(memory.attempts.values(), key=lambda attempt: attempt.at, default=None)
    if last is None:
        return False
    tries = sum(attempt.times for attempt in memory.attempts.values())
    factor = min(2.0 ** (tries - 1), LONGEST_COOLDOWN_FACTOR)
    return now - last.at < pace.cooldown * factor


def _helping(memory: Memory, automatic: list[Cure]) -> frozenset[Action]:
    """Whatever may still end the trouble. While WAL is caught up with, a receiver is at work, and so the cures are not
    those that began it: it is waited for all the same.
    """
    return frozenset(cure.action for cure in automatic) | frozenset(memory.attempts) | {Action.CATCH_UP_WAL}


def _times(memory: Memory, cure: Cure) -> int:
    attempt = memory.attempts.get(cure.action)
    return attempt.times if attempt else 0


def _is_told(judged: Judged, memory: Memory, now: datetime, pace: Pace, running: Collection[Action]) -> bool:
    if judged.standing is Standing.BREACHED:
        return True
    automatic = _automatic(judged)
    if not automatic:
        return bool(judged.cures) or judged.standing is Standing.AT_RISK
    tried = all(_times(memory, cure) for cure in automatic)
    return tried and not _is_busy(memory, automatic, now, pace, running)


def _alert(topic: Topic, judged: Judged, memory: Memory, order: Order | None, running: Collection[Action]) -> Alert:
    if memory.since is None:  # there is trouble, so it began
        raise AssertionError
    breached = judged.standing is Standing.BREACHED
    return Alert(
        key=topic.value,
        severity=Severity.CRITICAL if breached else Severity.WARNING,
        summary=f"{_SUBJECTS[topic]} is {judged.standing}",
        at_risk=judged.reason,
        since=memory.since,
        done=_done(memory, order, running),
        to_do=_to_do(judged),
    )


_SUBJECTS = {
    Topic.RPO: "The recovery point objective",
    Topic.RTO: "The recovery time objective",
    Topic.STREAM: "The stream of WAL into the archive",
}


def _done(memory: Memory, order: Order | None, running: Collection[Action]) -> str:
    if order is not None:
        return f"tmi_ops begins now: {order.cure.action.value}."
    if running:
        return f"At work: {', '.join(sorted(action.value for action in running))}."
    if memory.attempts:
        tried = ", ".join(
            f"{action.value} ({attempt.times}x, last {attempt.at:%H:%M:%S} UTC)"
            for action, attempt in memory.attempts.items()
        )
        return f"Tried: {tried}."
    return "Nothing: a person is needed."


def _to_do(judged: Judged) -> str:
    if not judged.cures:
        return "See what it says: tmi-ops doctor"
    return "; else ".join(cure.words() for cure in judged.cures[:3])


def _what_helped(judged: Judged, memory: Memory) -> str:
    helped = ", ".join(action.value for action in memory.attempts) or "it came right without us"
    return f"{judged.reason} After: {helped}."
