"""Walking the chain: a link is looked at once those it rests on hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tmi_ops.checks.finding import Answer, Outcome, Result, judged, unknown
from tmi_ops.diagnosis.finding import Area
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
    look: Callable[[Patient], Answer]
    needs: tuple[str, ...] = ()


def walk(links: Iterable[Link], patient: Patient) -> Iterator[Result]:
    """Look at every link in turn. One that breaks takes with it those that rest on it, and no others."""
    results: dict[str, Result] = {}
    for link in links:
        broken = next((results[name] for name in link.needs if results[name].outcome not in _HOLDS), None)
        result = _skipped(link, broken) if broken else Result(link.name, link.title, link.area, _look(link, patient))
        results[link.name] = result
        yield result


def _skipped(link: Link, broken: Result) -> Result:
    """What rests on something broken waits for it; what rests on something that is not there is not there either."""
    root = broken.because or broken.name
    if broken.outcome is Outcome.CRITICAL:
        answer = judged(Outcome.SKIPPED, f"waits for: {broken.title}")
    else:
        answer = judged(broken.outcome, broken.answer.seen)
    return Result(link.name, link.title, link.area, answer, because=root)


def _look(link: Link, patient: Patient) -> Answer:
    try:
        return link.look(patient)
    except OpsError as error:
        return unknown(error.message, *([error.hint] if error.hint else ()))
    except Exception as error:  # noqa: BLE001 - one link that cannot be looked at must not hide the others
        return unknown(f"could not look: {type(error).__name__}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "it said nothing")
