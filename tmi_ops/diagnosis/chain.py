"""Walking the chain: a link is looked at once those it rests on hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tmi_ops.diagnosis.finding import Area, Finding, Outcome, Step, could_not_look
from tmi_ops.errors import OpsError

if TYPE_CHECKING:
    from tmi_ops.diagnosis.patient import Patient

# What could not be looked at may be whole, so what rests on it is tried.
_HOLDS = (Outcome.OK, Outcome.WARNING, Outcome.UNKNOWN)


@dataclass(frozen=True)
class Link:
    """One thing to look at. `needs` are the names of earlier links without which there is nothing to see."""

    name: str
    title: str
    area: Area
    look: Callable[[Patient], Finding]
    needs: tuple[str, ...] = ()


def walk(links: Iterable[Link], patient: Patient) -> Iterator[Step]:
    """Look at every link in turn. One that breaks takes with it those that rest on it, and no others."""
    steps: dict[str, Step] = {}
    for link in links:
        broken = next((steps[name] for name in link.needs if steps[name].outcome not in _HOLDS), None)
        step = _skipped(link, broken) if broken else Step(link.name, link.title, link.area, _look(link, patient))
        steps[link.name] = step
        yield step


def _skipped(link: Link, broken: Step) -> Step:
    root = broken.because or broken.name
    seen = broken.finding.seen if broken.outcome is Outcome.SKIPPED else f"waits for: {broken.title}"
    return Step(link.name, link.title, link.area, Finding(Outcome.SKIPPED, seen), because=root)


def _look(link: Link, patient: Patient) -> Finding:
    try:
        return link.look(patient)
    except OpsError as error:
        return could_not_look(error.what, *([error.next_step] if error.next_step else ()))
    except Exception as error:  # noqa: BLE001 - one link that cannot be looked at must not hide the others
        return could_not_look(f"could not look: {type(error).__name__}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "it said nothing")
