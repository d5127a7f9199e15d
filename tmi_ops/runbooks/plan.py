"""The plan of a runbook: its steps in order, each with its effect and how to undo it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Effect = Literal["beside", "interrupts", "irreversible"]


class Fact(BaseModel):
    """Frozen; can be read from JSON written by a newer version."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, serialize_by_alias=True)


class Step(Fact):
    """One step.

    Args:
        does: what it does, as shown in the plan: a sentence without its full stop.
        effect: `beside` only adds something; `interrupts` interrupts the application and can be undone completely;
            `irreversible` replaces what is in service, and comes only after the replacement has been validated.
        way_back: how it is undone, a sentence without its full stop; empty if there is nothing to undo or no way to.
    """

    name: str
    does: str
    effect: Effect = "beside"
    way_back: str = ""


class Obstacle(Fact):
    """What would make a step of the run fail, a sentence, and its remedy."""

    what: str
    hint: str


class Plan(Fact):
    """Steps, and enough to continue them in another process.

    Args:
        runbook: its name in the catalogue, as in `tmi-ops recover <name>`.
        title: for a heading: `Recover from corruption`.
        subject: what is recovered, and where: `tmi on db.example:5432`.
        untouched: what it does not touch, a sentence.
        notes: what to know before confirming, one sentence each.
        afterwards: what a person must do when all steps are done, one sentence each; a run may add more.
        obstacles: the run does not start while there is one.
        requests: the request, and what was read for it, as the runbook stores it. Contains no secrets.
    """

    runbook: str
    title: str
    subject: str
    steps: tuple[Step, ...]
    untouched: str
    notes: tuple[str, ...] = ()
    afterwards: tuple[str, ...] = ()
    obstacles: tuple[Obstacle, ...] = ()
    requests: dict[str, JsonValue] = Field(default_factory=dict, alias="wishes")

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    def number(self, name: str) -> int:
        """Its number, from 1."""
        return 1 + [step.name for step in self.steps].index(name)
