"""What is done about a judgement that is not good: which cure to begin, what to tell whom, what to remember. Pure.

1. Met: nothing is begun; an alert that is open ends with what helped.
2. Otherwise the cheapest cure that needs no person is begun, once: its key names the trouble and the attempt. It has
   `Pace.cooldown` to help, twice as long each time it is tried again; then the least tried of the cures is next.
   What is at work already has its time as well, whoever began it, but only where it can help.
3. An open alert says what is so now: it ends when the trouble it told of is over, though another may have begun.
4. People are told of a breach at once. Of a risk they are told when nothing can be begun, or when everything that can
   has been tried and has had its time.
5. What could not be read is told of, too: not to know is a risk that grows into a breach within the objective.
6. Where all was well, the next look is `sensor_interval` later; otherwise as soon as Dagster comes again, so that an
   alert does not outlive its trouble.
The memory is what Dagster keeps as a sensor's cursor; a lost one costs a repeated cure and nothing else. Moments in it
that lie in the future are of a clock that was wrong: they count as now.
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
# A cure needs some time to help, however short the objective.
SHORTEST_COOLDOWN = timedelta(seconds=30)


class Topic(StrEnum):
    """What is judged; the key of its alert."""

    RPO = "rpo"
    RTO = "rto"
    STREAM = "wal-stream"
    DUMPS = "logical-backups"


class Judged(Protocol):
    """What every judgement of `rpo.py`, `rto.py`, `stream.py` and `dumps.py` has."""

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
    """What one look leaves for the next. `since`: when the trouble began; None: there is none. `at_work`: since when,
    in this trouble, a cure was seen at work at every look. `stuck_since`: of what should run by itself. `looked_at`:
    when this look was."""

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
        """A cursor of an older version, or none, is an empty memory."""
        try:
            return cls.model_validate_json(cursor or "{}")
        except ValueError:
            return cls()

    def is_well_since(self, now: datetime, interval: timedelta) -> bool:
        """Whether all was well at the last look, less than `interval` ago: nothing need be looked at yet."""
        in_trouble = self.standing is not Standing.MET or self.unread_since or self.stuck_since
        return not in_trouble and self.looked_at is not None and timedelta(0) <= now - self.looked_at < interval

    def as_of(self, now: datetime) -> Memory:
        """Without the future."""
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
    """What one look leads to.

    Args:
        said: all of it in one line.
        standing: as judged; None: nothing could be read.
        alert: what people are told.
        amended: nobody need be told, but an alert that is still open says this from now on.
        resolution: what an alert told of is over, and what helped.
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
    """What to do about a judgement.

    Args:
        running: cures that are at work or wait for their turn.
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
    """What to do where nothing could be read, and so nothing judged."""
    memory = memory.as_of(now)
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
        to_do=hint or "tmi-ops doctor",
    )
    return Decision(after, f"could not be read: {problem}", None, alert=alert)


def _order(topic: Topic, judged: Judged, memory: Memory, now: datetime, pace: Pace) -> Order | None:
    startable = [cure for cure in _automatic(judged) if cure.action not in memory.at_work]
    if not startable or memory.since is None:
        return None
    cure = min(startable, key=lambda one: _times(memory, one))
    if _must_wait(cure, judged, memory, now, pace):
        return None
    return Order(cure, f"{topic}-{cure.action.name.lower()}-{memory.since:%Y%m%dT%H%M%S}-{_times(memory, cure) + 1}")


def _automatic(judged: Judged) -> list[Cure]:
    """Cures that need no person; none where the database must be reached before any of them could work."""
    if any(cure.action is Action.REACH_DATABASE for cure in judged.cures):
        return []
    return [cure for cure in judged.cures if cure.action.is_automatic]


def _must_wait(cure: Cure, judged: Judged, memory: Memory, now: datetime, pace: Pace) -> bool:
    """Whether what is at work, or was begun last, has not yet had its time to help."""
    if any(now - since < pace.cooldown for since in memory.at_work.values()):
        return True
    begun = [attempt.at for action, attempt in memory.attempts.items() if action in _helping(judged)]
    if not begun:
        return False
    factor = min(2.0 ** max(0, _tries(memory) - 1), LONGEST_COOLDOWN_FACTOR) if _times(memory, cure) else 1
    return now - max(begun) < pace.cooldown * factor


def _helping(judged: Judged) -> frozenset[Action]:
    """What may still end the trouble: its cures. While WAL is caught up with, a receiver is at work, and so to catch up
    is no longer among them: where WAL helps at all, it is waited for all the same.
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
    if memory.since is None:  # there is trouble, so it began
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
    Topic.STREAM: "The stream of WAL into the archive",
    Topic.DUMPS: "The proof of the database's logical backups",
}


def _done(memory: Memory, order: Order | None) -> str:
    if order is not None:
        return f"tmi_ops begins now: {order.cure.action.value}."
    if memory.at_work:
        return f"At work: {', '.join(sorted(action.value for action in memory.at_work))}."
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
