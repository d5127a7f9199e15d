"""What a runbook has done so far: every attempt at every step with its times, what was learnt, what was asked.

It is all that another process needs to go on, or to go back, after a crash at any moment. It holds no secret.
"""

from __future__ import annotations

import platform
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, TypeVar

from pydantic import AwareDatetime, Field, JsonValue

from tmi_ops.drill.evidence import CheckOutcome
from tmi_ops.runbooks.plan import Fact, Plan

Outcome = Literal["running", "done", "deferred", "failed", "taken back"]
State = Literal["under way", "stopped", "done", "taken back"]
Known = TypeVar("Known", bound=Fact)


class Attempt(Fact):
    """One attempt at a step, on a `host`.

    `said`: what came of it, or why it failed; one without an end was cut off by a crash. `left`: what a deferred one
    leaves to a person, a sentence each.
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
        """0 where it has no end."""
        return (self.ended_at - self.begun_at).total_seconds() if self.ended_at else 0.0


class Answer(Fact):
    """A question that what was recovered had to answer. `findings` are what is wrong or worth knowing."""

    title: str
    outcome: CheckOutcome
    detail: str
    findings: tuple[str, ...] = ()
    seconds: float = 0.0


class Consent(Fact):
    """A yes: to what, and when."""

    effect: Literal["interrupts", "irreversible"]
    step: str
    given_at: AwareDatetime


class Journal(Fact):
    """One run of a runbook.

    Args:
        attempts: in the order of time; the last one of a step tells how that step stands.
        facts: what steps learnt and later ones need, by the name of its type.
        rto_objective_seconds: what the environment promises.
        found_left: what a step found is left to a person, beside what the plan says.
        returning_at: when taking it back began, after which it is not gone on with; `returned_at`: when that was over.
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
        """How a step stands; None: it was not begun."""
        return next((one for one in reversed(self.attempts) if one.step == step), None)

    def is_done(self, step: str) -> bool:
        attempt = self.last(step)
        return attempt is not None and attempt.outcome == "done"

    @property
    def done(self) -> tuple[str, ...]:
        """The steps that are done, in the plan's order."""
        return tuple(step.name for step in self.plan.steps if self.is_done(step.name))

    @property
    def pending(self) -> tuple[str, ...]:
        """The steps that are not, deferred ones included."""
        return tuple(step.name for step in self.plan.steps if not self.is_done(step.name))

    @property
    def deferred(self) -> tuple[str, ...]:
        """The steps that could not be done, and that the run went on without."""
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
        """The end of what was last done; the beginning, where nothing was."""
        return max((one.ended_at or one.begun_at for one in self.attempts), default=self.started_at)

    @property
    def last_host(self) -> str:
        """The machine on which the last attempt was made."""
        return next((one.host for one in reversed(self.attempts) if one.host), self.host)

    @property
    def left(self) -> tuple[str, ...]:
        """What is left to a person, a sentence each, what was found first."""
        deferred = [attempt for attempt in map(self.last, self.deferred) if attempt is not None]
        return (*(one for attempt in deferred for one in attempt.left), *self.found_left, *self.plan.afterwards)

    @property
    def in_service_at(self) -> datetime:
        """The end of the last step, without what was done later of those that had been deferred."""
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
        """Of two copies of a run's journal the one with the greater progress tells more."""
        return self.ended_at, self.returning_at is not None, self.returned_at is not None

    def known(self, kind: type[Known]) -> Known | None:
        """What a step remembered; None: nothing of that kind."""
        found = self.facts.get(kind.__name__)
        return None if found is None else kind.model_validate(found)


def new_journal(plan: Plan, environment: str, rto_objective_seconds: float, now: datetime) -> Journal:
    """The journal of a run that begins now: `20261124T120000Z-corruption-7f3a`, which sorts by time."""
    return Journal(
        run_id=f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{plan.runbook}-{secrets.token_hex(2)}",
        environment=environment,
        host=platform.node(),
        started_at=now,
        rto_objective_seconds=rto_objective_seconds,
        plan=plan,
    )


def with_attempt(journal: Journal, attempt: Attempt) -> Journal:
    """With one more attempt; one that runs is replaced by its end."""
    kept: Sequence[Attempt] = journal.attempts
    if kept and kept[-1].outcome == "running" and kept[-1].begun_at == attempt.begun_at:
        kept = kept[:-1]
    return journal.model_copy(update={"attempts": (*kept, attempt)})


def with_fact(journal: Journal, fact: Fact) -> Journal:
    """With something learnt; what was known of that kind is replaced."""
    return journal.model_copy(update={"facts": {**journal.facts, type(fact).__name__: fact.model_dump(mode="json")}})


def without_fact(journal: Journal, kind: type[Fact]) -> Journal:
    """With something that was learnt forgotten."""
    return journal.model_copy(update={"facts": {k: fact for k, fact in journal.facts.items() if k != kind.__name__}})


def with_left(journal: Journal, sentence: str) -> Journal:
    """With something more that is left to a person; said twice, it is there once."""
    others = tuple(one for one in journal.found_left if one != sentence)
    return journal.model_copy(update={"found_left": (*others, sentence)})


def with_answer(journal: Journal, answer: Answer) -> Journal:
    """With an answer; an older one to the same question is replaced."""
    others = tuple(one for one in journal.answers if one.title != answer.title)
    return journal.model_copy(update={"answers": (*others, answer)})
