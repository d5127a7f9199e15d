"""What a runbook will do, before it does anything: steps in their order, each with its effect and its way back."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Effect = Literal["beside", "interrupts", "irreversible"]


class Fact(BaseModel):
    """Frozen, and read from JSON that a newer version may have written."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Step(Fact):
    """One step.

    Args:
        does: what it does, one sentence without its full stop, as a person reads it in the plan.
        effect: `beside` only adds beside what is there; `interrupts` is felt by the application, and can be taken
            back whole; `irreversible` cannot, and comes only once what it puts in place has been validated.
        way_back: what brings back how it was, a sentence without its full stop; empty where there is nothing to bring
            back, or no way.
    """

    name: str
    does: str
    effect: Effect = "beside"
    way_back: str = ""


class Obstacle(Fact):
    """What would stop the run between two steps, a sentence, and what clears it away."""

    what: str
    hint: str


class Plan(Fact):
    """Steps, and enough to take them up again in another process.

    Args:
        runbook: its name in the catalogue, as in `tmi-ops recover <name>`.
        title: what it is, for a heading: `Recover tmi from corruption`.
        subject: what is recovered, and where: `tmi on db.example:5432`.
        untouched: what it will not touch, a sentence.
        notes: what a person should know before saying yes, a sentence each.
        afterwards: what is left to a person when all steps are done, a sentence each; a run may find more.
        obstacles: as long as there is one, the run is not begun.
        wishes: what was asked for and what was read for it, as the runbook wrote it. No secret is part of it.
    """

    runbook: str
    title: str
    subject: str
    steps: tuple[Step, ...]
    untouched: str
    notes: tuple[str, ...] = ()
    afterwards: tuple[str, ...] = ()
    obstacles: tuple[Obstacle, ...] = ()
    wishes: dict[str, JsonValue] = Field(default_factory=dict)

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    def number(self, name: str) -> int:
        """From 1 on."""
        return 1 + [step.name for step in self.steps].index(name)
