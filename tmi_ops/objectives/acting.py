"""Decides what to do if an objective is not met: which cure to start, whether to alert, what to remember. Pure.

1. Met: start nothing; resolve an open alert with what helped.
2. Otherwise start the cheapest automatic cure, once: its key names the problem and the attempt. It has
   `Pace.cooldown` to help, twice as long at each further attempt; then the least tried cure is next. A cure that is
   already running also has that time, no matter what started it, but only if it can help.
3. An open alert describes the present: it is resolved when its problem is over, though another may have begun.
4. Alert to a breach at once; to a risk if nothing can be started, or once every automatic cure was tried and has had
   its time.
5. Also alert if the facts cannot be read: unknown is a risk, and becomes critical once it lasts longer than the
   objective.
6. After met, check again after `sensor_interval`; otherwise at the next tick, so that an alert ends with its problem.
The memory is the sensor's cursor in Dagster; losing it only repeats a cure. Times in the future come from a wrong clock
and count as now.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict

from tmi_ops.alerts.alert import Alert
from tmi_ops.checks.finding import Severity
from tmi_ops.objectives.cures import Action, Cure
from tmi_ops.objectives.standing import Standing

LONGEST_COOLDOWN_FACTOR = 64
# A cure needs some time, however short the objective is.
SHORTEST_COOLDOWN = timedelta(seconds=30)


class Topic(StrEnum):
    """What a guard watches; the key of its alert."""

    RPO = "rpo"
    RTO = "rto"
    STREAM = "wal-stream"
    DUMPS = "logical-backups"


class Judged(Protocol):
    """What the readings of `rpo.py`, `rto.py`, `stream.py` and `dumps.py` have in common."""

    @property
    def standing(self) -> Standing: ...
    @property
    def reason(self) -> str: ...
    @property
    def cures(self) -> tuple[Cure, ...]: ...


class Attempt(BaseModel):
    """How often a cure was started for this problem, and when last."""

    model_config = ConfigDict(frozen=True)

    times: int
    at: AwareDatetime


class Memory(BaseModel):
    """What one tick leaves for the next. `since`: when the problem began; None: there is none. `at_work`: since when a
    cure was running at every tick of this problem. `stuck_since`: since when automation is stuck. `looked_at`: the time
    of the tick."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    standing: Standing | None = None
    since: AwareDatetime | None = None
    attempts: dict[Action, Attempt] = {}
    at_work: dict[Action, AwareDatetime] = {}
    unread_since: AwareDatetime | None = None
    stuck_since: AwareDatetime | None = None
    looked_at: AwareDatetime | None = None

    @classmethod
    def of(cls, cursor: str | None) -> Memory:
        """The memory in a cursor; empty if there is none or it cannot be read."""
        try:
            return cls.model_validate_json(cursor or "{}")
        except ValueError:
            return cls()

    def is_well_since(self, now: datetime, interval: timedelta) -> bool:
        """Whether the objective was met at the last check, less than `interval` ago, so that no check is due."""
        in_trouble = self.standing is not Standing.MET or self.unread_since or self.stuck_since
        return not in_trouble and self.looked_at is not None and timedelta(0) <= now - self.looked_at < interval

    def as_of(self, now: datetime) -> Memory:
        """The memory with times in the future replaced by now."""
        return self.model_copy(
            update={
                "since": self.since and min(self.since, now),
                "unread_since": self.unread_since and min(self.unread_since, now),
                "stuck_since": self.stuck_since and min(self.stuck_since, now),
                "attempts": {
                    action: attempt.model_copy(update={"at": min(attempt.at, now)})
                    for action, attempt in self.attempts.items()
                },
                "at_work": {action: min(since, now) for action, since in self.at_work.items()},
            }
        )


@dataclass(frozen=True)
class Pace:
    """`cooldown`: the time a cure has to help before it, or another, is started."""

    cooldown: timedelta
    objective: timedelta

    @classmethod
    def of(cls, objective: timedelta) -> Pace:
        """A third of the objective, so that two more cures fit into it."""
        return cls(max(objective / 3, SHORTEST_COOLDOWN), objective)


@dataclass(frozen=True)
class Order:
    """A cure to start now. The same key twice is the same order."""

    cure: Cure
    key: str


@dataclass(frozen=True)
class Decision:
    """The result of one tick.

    Args:
        said: the status, the reason and what is done, in one line.
        standing: the status; None: nothing could be read.
        alert: the alert to raise.
        amended: no alert to raise, but an open one is updated to this.
        resolution: why an open alert ends, and what helped.
    """

    memory: Memory
    said: str
    standing: Standing | None
    order: Order | None = None
    alert: Alert | None = None
    amended: Alert | None = None
    resolution: str | None = None


def decide(
    topic: Topic, judged: Judged, memory: Memory, now: datetime, pace: Pace, running: Collection[Action] = ()
) -> Decision:
    """Decide what to do.

    Args:
        running: cures that run or are queued.
    """
    if judged.standing is Standing.MET:
        after = Memory(standing=judged.standing)
        return Decision(after, judged.reason, judged.standing, resolution=_what_helped(judged, memory))
    memory = memory.as_of(now)
    helping = {action: memory.at_work.get(action, now) for action in running if action in _helping(judged)}
    memory = memory.model_copy(update={"since": memory.since or now, "at_work": helping, "unread_since": None})
    order = _order(topic, judged, memory, now, pace)
    attempts = dict(memory.attempts)
    if order is not None:
        attempts[order.cure.action] = Attempt(times=_times(memory, order.cure) + 1, at=now)
    after = memory.model_copy(update={"standing": judged.standing, "attempts": attempts})
    alert = _alert(topic, judged, after, order)
    said = f"{judged.standing}: {judged.reason} {_done(after, order)}"
    if _is_told(judged, memory, now, pace):
        return Decision(after, said, judged.standing, order, alert)
    if judged.standing is Standing.UNKNOWN:
        return Decision(after, said, judged.standing, order, resolution=_what_helped(judged, memory))
    return Decision(after, said, judged.standing, order, amended=alert)


def decide_unread(topic: Topic, problem: str, hint: str, memory: Memory, now: datetime, pace: Pace) -> Decision:
    """Decide what to do if the facts could not be read."""
    memory = memory.as_of(now)
    since = memory.unread_since or now
    blind_too_long = now - since > pace.objective
    after = memory.model_copy(update={"unread_since": since})
    alert = Alert(
        key=topic.value,
        severity=Severity.CRITICAL if blind_too_long else Severity.WARNING,
        summary=f"Recoverability is unknown ({topic.upper()})",
        at_risk=f"{problem} It is not known how much would be lost if the server were lost now.",
        since=since,
        done="Nothing: no cure can be chosen without these facts.",
        to_do=hint or "tmi-ops doctor",
    )
    return Decision(after, f"unknown: {problem}", None, alert=alert)


def _order(topic: Topic, judged: Judged, memory: Memory, now: datetime, pace: Pace) -> Order | None:
    startable = [cure for cure in _automatic(judged) if cure.action not in memory.at_work]
    if not startable or memory.since is None:
        return None
    cure = min(startable, key=lambda one: _times(memory, one))
    if _must_wait(cure, judged, memory, now, pace):
        return None
    return Order(cure, f"{topic}-{cure.action.name.lower()}-{memory.since:%Y%m%dT%H%M%S}-{_times(memory, cure) + 1}")


def _automatic(judged: Judged) -> list[Cure]:
    """Cures that need no person; none if the database must be reachable first."""
    if any(cure.action is Action.REACH_DATABASE for cure in judged.cures):
        return []
    return [cure for cure in judged.cures if cure.action.is_automatic]


def _must_wait(cure: Cure, judged: Judged, memory: Memory, now: datetime, pace: Pace) -> bool:
    """Whether the cure that runs, or was started last, still has time to help."""
    if any(now - since < pace.cooldown for since in memory.at_work.values()):
        return True
    begun = [attempt.at for action, attempt in memory.attempts.items() if action in _helping(judged)]
    if not begun:
        return False
    factor = min(2.0 ** max(0, _tries(memory) - 1), LONGEST_COOLDOWN_FACTOR) if _times(memory, cure) else 1
    return now - max(begun) < pace.cooldown * factor


def _helping(judged: Judged) -> frozenset[Action]:
    """The actions that may end the problem. A catch-up counts as a running receiver, which removes it from the cures;
    it is still waited for if WAL can help.
    """
    cures = frozenset(cure.action for cure in judged.cures)
    return cures | {Action.CATCH_UP_WAL} if Action.START_RECEIVER in cures else cures


def _tries(memory: Memory) -> int:
    return sum(attempt.times for attempt in memory.attempts.values())


def _times(memory: Memory, cure: Cure) -> int:
    attempt = memory.attempts.get(cure.action)
    return attempt.times if attempt else 0


def _is_told(judged: Judged, memory: Memory, now: datetime, pace: Pace) -> bool:
    if judged.standing is Standing.BREACHED:
        return True
    automatic = _automatic(judged)
    if not automatic:
        return bool(judged.cures) or judged.standing is Standing.AT_RISK
    tried = all(_times(memory, cure) or cure.action in memory.at_work for cure in automatic)
    return tried and not any(_must_wait(cure, judged, memory, now, pace) for cure in automatic)


def _alert(topic: Topic, judged: Judged, memory: Memory, order: Order | None) -> Alert:
    if memory.since is None:
        raise AssertionError
    breached = judged.standing is Standing.BREACHED
    return Alert(
        key=topic.value,
        severity=Severity.CRITICAL if breached else Severity.WARNING,
        summary=f"{_SUBJECTS[topic]} is {judged.standing}",
        at_risk=judged.reason,
        since=memory.since,
        done=_done(memory, order),
        to_do=_to_do(judged),
    )


_SUBJECTS = {
    Topic.RPO: "The recovery point objective",
    Topic.RTO: "The recovery time objective",
    Topic.STREAM: "WAL archiving",
    Topic.DUMPS: "The age of the newest verified logical backup",
}


def _done(memory: Memory, order: Order | None) -> str:
    if order is not None:
        return f"Starting now: {order.cure.action.label}."
    if memory.at_work:
        return f"Running: {', '.join(sorted(action.label for action in memory.at_work))}."
    if memory.attempts:
        tried = ", ".join(
            f"{action.label} ({attempt.times}x, last {attempt.at:%H:%M:%S} UTC)"
            for action, attempt in memory.attempts.items()
        )
        return f"Tried: {tried}."
    return "Nothing; a person must act."


def _to_do(judged: Judged) -> str:
    if not judged.cures:
        return "Run: tmi-ops doctor"
    return "; or ".join(cure.describe() for cure in judged.cures[:3])


def _what_helped(judged: Judged, memory: Memory) -> str:
    helped = ", ".join(action.label for action in memory.attempts) or "no action of tmi_ops"
    return f"{judged.reason} After: {helped}."
