"""Walks the chain: a link is checked only if the links it depends on hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tmi_ops.checks.finding import Answer, Outcome, Result, judged, unknown
from tmi_ops.diagnosis.finding import Area
from tmi_ops.errors import OpsError
from tmi_ops.progress import waiting_for

if TYPE_CHECKING:
    from tmi_ops.diagnosis.context import DiagnosisContext

# An unknown link may hold, so the links that depend on it are checked.
_HOLDS = (Outcome.OK, Outcome.WARNING, Outcome.UNKNOWN)


@dataclass(frozen=True)
class Link:
    """One thing to check. `needs`: the names of earlier links it depends on."""

    name: str
    title: str
    area: Area
    look: Callable[[DiagnosisContext], Answer]
    needs: tuple[str, ...] = ()


def walk(links: Iterable[Link], context: DiagnosisContext) -> Iterator[Result]:
    """Check every link in turn. A broken link skips those that depend on it, and no others."""
    results: dict[str, Result] = {}
    for link in links:
        broken = next((results[name] for name in link.needs if results[name].outcome not in _HOLDS), None)
        result = _skipped(link, broken) if broken else Result(link.name, link.title, link.area, _look(link, context))
        results[link.name] = result
        yield result


def _skipped(link: Link, broken: Result) -> Result:
    """A link that depends on a broken one is skipped; one that depends on one that is not applicable is not either."""
    root = broken.because or broken.name
    if broken.outcome is Outcome.CRITICAL:
        answer = judged(Outcome.SKIPPED, f"depends on: {broken.title}")
    else:
        answer = judged(broken.outcome, broken.answer.seen)
    return Result(link.name, link.title, link.area, answer, because=root)


def _look(link: Link, context: DiagnosisContext) -> Answer:
    try:
        with waiting_for(f"the check: {link.title}"):
            return link.look(context)
    except OpsError as error:
        return unknown(error.message, *([error.hint] if error.hint else ()))
    except Exception as error:  # noqa: BLE001 - a link that fails must not hide the others
        return unknown(f"could not check: {type(error).__name__}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
