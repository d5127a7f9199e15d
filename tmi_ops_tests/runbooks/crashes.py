"""Crashes at chosen places between the deeds of a run."""

from __future__ import annotations

from collections.abc import Iterable

from tmi_ops.runbooks.execution import Fault, Moment

MOMENTS: tuple[Moment, ...] = ("begun", "action done", "recorded")


class Crash(BaseException):
    """Nothing of ours catches it, as nothing of ours survives a power cut."""


def crash_at(step: str, moment: Moment) -> Fault:
    def fault(name: str, at: Moment) -> None:
        if (name, at) == (step, moment):
            raise Crash(f"{name}, {at}")

    return fault


def every_place(steps: Iterable[str]) -> list[tuple[str, Moment]]:
    return [(step, moment) for step in steps for moment in MOMENTS]
