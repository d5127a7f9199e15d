"""The journal of a run: every attempt at every step with its times, facts, checks and confirmations.

It is all another process needs to resume or undo the run after a crash. It contains no secrets.
"""

from __future__ import annotations

import platform
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, TypeVar

from pydantic import AwareDatetime, Field, JsonValue

from tmi_ops.drill.findings import CheckOutcome
from tmi_ops.runbooks.plan import Fact, Plan

Outcome = Literal["running", "done", "deferred", "failed", "taken back"]
State = Literal["under way", "stopped", "done", "taken back"]
Known = TypeVar("Known", bound=Fact)


class Attempt(Fact):
    """One attempt at a step, on a `host`. Without `ended_at` it was cut off by a crash.

    `said`: its result, or why it failed. `left`: what a person must do after a deferred one, one sentence each.
    """

    step: str
    outcome: Outcome
    begun_at: AwareDatetime
    ended_at: AwareDatetime | None = None
    said: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    host: str = ""

    @property
    def seconds(self) -> float:
        """0 if it has no end."""
        return (self.ended_at - self.begun_at).total_seconds() if self.ended_at else 0.0


class Answer(Fact):
    """The result of a check of what was recovered. `findings`: what is wrong or worth knowing."""

    title: str
    outcome: CheckOutcome
    detail: str
    findings: tuple[str, ...] = ()
    seconds: float = 0.0


class Consent(Fact):
    """A confirmation: of what, and when."""

    effect: Literal["interrupts", "irreversible"]
    step: str
    given_at: AwareDatetime


class Journal(Fact):
    """One run of a runbook.

    Args:
        attempts: oldest first; the last one of a step gives the step's state.
        facts: what steps learnt and later ones need, by the name of its type.
        rto_objective_seconds: the environment's RTO.
        found_left: what a person must do in addition to the plan's `afterwards`.
        returning_at: when undoing the run began, after which it cannot be resumed; `returned_at`: when that ended.
    """

    format_version: Literal[1] = 1
    run_id: str
    environment: str
    host: str
    started_at: AwareDatetime
    rto_objective_seconds: float
    plan: Plan
    attempts: tuple[Attempt, ...] = ()
    facts: dict[str, JsonValue] = Field(default_factory=dict)
    answers: tuple[Answer, ...] = ()
    consents: tuple[Consent, ...] = ()
    found_left: tuple[str, ...] = ()
    returning_at: AwareDatetime | None = None
    returned_at: AwareDatetime | None = None

    def last(self, step: str) -> Attempt | None:
        """The last attempt at a step; None if it was not started."""
        return next((one for one in reversed(self.attempts) if one.step == step), None)

    def is_done(self, step: str) -> bool:
        attempt = self.last(step)
        return attempt is not None and attempt.outcome == "done"

    @property
    def done(self) -> tuple[str, ...]:
        """The steps that are done, in plan order."""
        return tuple(step.name for step in self.plan.steps if self.is_done(step.name))

    @property
    def pending(self) -> tuple[str, ...]:
        """The steps that are not done, including deferred ones."""
        return tuple(step.name for step in self.plan.steps if not self.is_done(step.name))

    @property
    def deferred(self) -> tuple[str, ...]:
        """The steps that could not be done and that the run continued without."""
        last = {name: self.last(name) for name in self.pending}
        return tuple(name for name, attempt in last.items() if attempt is not None and attempt.outcome == "deferred")

    @property
    def state(self) -> State:
        if self.returned_at is not None:
            return "taken back"
        if set(self.pending) == set(self.deferred) and self.returning_at is None:
            return "done"
        running = bool(self.attempts) and self.attempts[-1].outcome == "running"
        return "under way" if running or not self.attempts else "stopped"

    @property
    def ended_at(self) -> datetime:
        """The end of the last attempt; the start of the run if there was none."""
        return max((one.ended_at or one.begun_at for one in self.attempts), default=self.started_at)

    @property
    def last_host(self) -> str:
        """The machine of the last attempt."""
        return next((one.host for one in reversed(self.attempts) if one.host), self.host)

    @property
    def left(self) -> tuple[str, ...]:
        """What a person must do, one sentence each: deferred steps, findings, then the plan's `afterwards`."""
        deferred = [attempt for attempt in map(self.last, self.deferred) if attempt is not None]
        return (*(one for attempt in deferred for one in attempt.left), *self.found_left, *self.plan.afterwards)

    @property
    def in_service_at(self) -> datetime:
        """The end of the last step, without later attempts at deferred steps."""
        seen: set[str] = set()
        ends = [self.started_at]
        for attempt in self.attempts:
            if attempt.step not in seen:
                ends.append(attempt.ended_at or attempt.begun_at)
            if attempt.outcome == "deferred":
                seen.add(attempt.step)
        return max(ends)

    @property
    def progress(self) -> tuple[datetime, bool, bool]:
        """Orders two copies of a journal: the greater one is newer."""
        return self.ended_at, self.returning_at is not None, self.returned_at is not None

    def known(self, kind: type[Known]) -> Known | None:
        """A recorded fact; None if there is none of that kind."""
        found = self.facts.get(kind.__name__)
        return None if found is None else kind.model_validate(found)


def shown(outcome: str) -> str:
    """An outcome or state as shown to people; the stored literal `taken back` must not change."""
    return "undone" if outcome == "taken back" else outcome


def new_journal(plan: Plan, environment: str, rto_objective_seconds: float, now: datetime) -> Journal:
    """The journal of a new run. Its id sorts by time: `20261124T120000Z-corruption-7f3a`."""
    return Journal(
        run_id=f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{plan.runbook}-{secrets.token_hex(2)}",
        environment=environment,
        host=platform.node(),
        started_at=now,
        rto_objective_seconds=rto_objective_seconds,
        plan=plan,
    )


def with_attempt(journal: Journal, attempt: Attempt) -> Journal:
    """Add an attempt; its end replaces its running entry."""
    kept: Sequence[Attempt] = journal.attempts
    if kept and kept[-1].outcome == "running" and kept[-1].begun_at == attempt.begun_at:
        kept = kept[:-1]
    return journal.model_copy(update={"attempts": (*kept, attempt)})


def with_fact(journal: Journal, fact: Fact) -> Journal:
    """Add a fact; replaces an older one of that kind."""
    return journal.model_copy(update={"facts": {**journal.facts, type(fact).__name__: fact.model_dump(mode="json")}})


def without_fact(journal: Journal, kind: type[Fact]) -> Journal:
    """Remove a fact."""
    return journal.model_copy(update={"facts": {k: fact for k, fact in journal.facts.items() if k != kind.__name__}})


def with_left(journal: Journal, sentence: str) -> Journal:
    """Add something that a person must do, once."""
    others = tuple(one for one in journal.found_left if one != sentence)
    return journal.model_copy(update={"found_left": (*others, sentence)})


def with_answer(journal: Journal, answer: Answer) -> Journal:
    """Add a check's result; replaces an older one of the same check."""
    others = tuple(one for one in journal.answers if one.title != answer.title)
    return journal.model_copy(update={"answers": (*others, answer)})
