"""A plan becomes deeds, one step after the other, each written down before it begins and when it has ended.

1. A step that the journal calls done is not done again; one that was cut off is, so every deed must bear repetition.
2. A step that cannot be done now, and that nothing else needs, is deferred: the run goes on and tells of it at its end.
   Resuming the run, also one that is done otherwise, tries it again.
3. Before the first step that the application feels, and again before the first that cannot be taken back, somebody is
   asked. A yes is written down, and holds when the run is resumed.
4. Whatever fails, the journal says so, and the error names what is done, how to go on and how to go back.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

from tmi_ops.error_codes import Code
from tmi_ops.errors import OpsError, RecoveryError
from tmi_ops.progress import Report
from tmi_ops.runbooks.journal import (
    Answer,
    Attempt,
    Consent,
    Journal,
    Outcome,
    new_journal,
    with_answer,
    with_attempt,
    with_fact,
    with_left,
    without_fact,
)
from tmi_ops.runbooks.logbook import Logbook, logbook_of
from tmi_ops.runbooks.plan import Effect, Fact, Plan, Step
from tmi_ops.runbooks.recording import record_evidence
from tmi_ops.settings import Settings
from tmi_ops.store.objects import ObjectStore

Moment = Literal["begun", "deed done", "recorded"]
# Called between the deeds with a step's name; a test has it raise, or end the process, there.
Fault = Callable[[str, Moment], None]
# Asked with the journal as it stands and the step that is next; a no ends the run where it is.
Confirm = Callable[[Journal, Step], bool]
Known = TypeVar("Known", bound=Fact)
INTERRUPTED = "interrupted by Ctrl-C or a signal"


@dataclass(frozen=True)
class Action:
    """How a step is done, and how it is taken back (None: there is nothing to take back, or no way to).

    Both may be cut off at any point and are called again then: they look at what is there before they act.

    Args:
        needs: steps whose outcome it works upon; a plan need not have them.
        lost: asked of a step that is done and whose outcome is still needed: what of it is not on this machine (any
            more), a sentence; empty: nothing. Where it is something, the step is done again. None: its outcome lies in
            no machine that could be another one.
    """

    do: Callable[[Work], None]
    undo: Callable[[Work], None] | None = None
    needs: tuple[str, ...] = ()
    lost: Callable[[Work], str] | None = None


Actions = Mapping[str, Action]


class DeclinedError(OpsError):
    """Somebody said no. The run waits where it is."""

    default_code = Code.DECLINED


class DeferredError(OpsError):
    """Raised by a deed that cannot be done now; the run goes on without it. `hint`: how it is done later."""

    default_code = Code.DEFERRED


class RunbookError(RecoveryError):
    """A step failed. The journal knows how far the run came."""

    default_code = Code.RUNBOOK


@dataclass
class Work:
    """What a deed is given: where it works, what is known so far, and where it says what came of it."""

    settings: Settings
    store: ObjectStore
    report: Report
    logbook: Logbook
    journal: Journal
    _said: list[str] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        """For the run's own files; it stays until the run is over."""
        return self.logbook.directory

    def known(self, kind: type[Known]) -> Known:
        """What an earlier step remembered.

        Raises:
            RecoveryError: nothing of that kind was.
        """
        found = self.journal.known(kind)
        if found is None:
            raise RecoveryError(f"The journal of {self.journal.run_id} lacks {kind.__name__}, which this step needs.")
        return found

    def remember(self, fact: Fact) -> None:
        """Write down what later steps, or a repetition of this one, need; on disk when this returns."""
        self.write(with_fact(self.journal, fact))

    def forget(self, kind: type[Fact]) -> None:
        """Write down that what an earlier attempt remembered does not hold any more."""
        self.write(without_fact(self.journal, kind))

    def answer(self, answer: Answer) -> None:
        """Write down what something that was recovered said when it was asked."""
        self.write(with_answer(self.journal, answer))

    def leave(self, sentence: str) -> None:
        """Write down what is left to a person when the run is over."""
        self.write(with_left(self.journal, sentence))

    def say(self, sentence: str) -> None:
        """One line on what came of the step, for the journal, the evidence and the log."""
        self._said.append(sentence)
        self.report.note(sentence)

    def write(self, journal: Journal) -> None:
        self.logbook.write(journal, self.report)
        self.journal = journal

    def taken_said(self) -> tuple[str, ...]:
        said, self._said = tuple(self._said), []
        return said


def begin(
    settings: Settings, store: ObjectStore, plan: Plan, report: Report, *, since: datetime | None = None
) -> tuple[Logbook, Journal]:
    """Open the journal of a new run. Nothing else happens.

    Args:
        since: when somebody began to wait for it; None: now.

    Raises:
        RecoveryError: the plan has an obstacle.
    """
    if plan.obstacles:
        first, *others = plan.obstacles
        more = f" {' '.join(other.what for other in others)}" if others else ""
        raise RecoveryError(f"The run is not begun: {first.what}{more}", hint=first.hint)
    now = datetime.now(UTC)
    journal = new_journal(plan, settings.environment, settings.objectives.rto.total_seconds(), min(since or now, now))
    logbook = logbook_of(settings, store, journal.run_id)
    logbook.write(journal, report)
    return logbook, journal


def carry_out(
    settings: Settings,
    store: ObjectStore,
    logbook: Logbook,
    actions: Actions,
    report: Report,
    confirm: Confirm,
    *,
    fault: Fault | None = None,
) -> Journal:
    """Do what is not done yet, and leave the evidence.

    Args:
        fault: see `Fault`.

    Returns:
        The journal of the finished run.

    Raises:
        DeclinedError: somebody said no.
        RunbookError: a step failed.
        RecoveryError: another process carries out this run, it is being taken back, or what it put into service is on
            another machine.
    """
    with logbook.locked():
        work = Work(settings, store, report, logbook, logbook.read())
        _refuse_returning(work.journal)
        _reopen_lost(work, actions)
        for name in work.journal.pending:
            step = work.journal.plan.step(name)
            _ask(work, step, confirm)
            _do(work, step, actions[name].do, "done", fault or _no_fault)
        record_evidence(work.journal, logbook, report)
        return work.journal


def take_back(settings: Settings, store: ObjectStore, logbook: Logbook, actions: Actions, report: Report) -> Journal:
    """Bring back how it was before the run, step by step from the last one that was begun.

    Raises:
        RecoveryError: it is done, a step was begun that cannot be taken back, or another process carries it out.
        RunbookError: taking back a step failed; it may be repeated.
    """
    with logbook.locked():
        work = Work(settings, store, report, logbook, logbook.read())
        _refuse_to_return(work.journal, actions)
        if work.journal.returning_at is None:
            work.write(work.journal.model_copy(update={"returning_at": datetime.now(UTC)}))
        for step in reversed(work.journal.plan.steps):
            undo, attempt = actions[step.name].undo, work.journal.last(step.name)
            if undo is not None and attempt is not None and attempt.outcome != "taken back":
                _do(work, step, undo, "taken back", _no_fault)
        work.write(work.journal.model_copy(update={"returned_at": datetime.now(UTC)}))
        record_evidence(work.journal, logbook, report)
        return work.journal


def _reopen_lost(work: Work, actions: Actions) -> None:
    """Have the steps done again whose outcome is needed still and lay on another machine, or is gone from this one."""
    for name in _still_needed(work.journal, actions):
        lost = actions[name].lost
        if lost is None or not work.journal.is_done(name):
            continue
        again = [need for need in actions[name].needs if need in work.journal.pending]
        why = f"It builds upon {again[0]}, which is done again." if again else lost(work)
        if why:
            work.report.note(f"{name} is done again: {why}")
            now = datetime.now(UTC)
            attempt = Attempt(
                step=name, outcome="failed", begun_at=now, ended_at=now, said=(why,), host=platform.node()
            )
            work.write(with_attempt(work.journal, attempt))


def _still_needed(journal: Journal, actions: Actions) -> tuple[str, ...]:
    """The steps, in the plan's order, that those which are not done need, and those that these need."""
    needed = set(journal.pending)
    for step in reversed(journal.plan.steps):
        if step.name in needed:
            needed.update(actions[step.name].needs)
    return tuple(step.name for step in journal.plan.steps if step.name in needed)


def _ask(work: Work, step: Step, confirm: Confirm) -> None:
    if step.effect == "beside" or _consented(work.journal, step.effect):
        return
    if not confirm(work.journal, step):
        raise DeclinedError(
            f"{work.journal.run_id} waits before its step {step.name}.",
            detail=standing(work.journal),
            hint=ways_on(work.journal),
        )
    given = Consent(effect=step.effect, step=step.name, given_at=datetime.now(UTC))
    work.write(work.journal.model_copy(update={"consents": (*work.journal.consents, given)}))


def _consented(journal: Journal, effect: Effect) -> bool:
    """A yes to what cannot be taken back is one to interrupting, too."""
    return any(one.effect in (effect, "irreversible") for one in journal.consents)


def _do(work: Work, step: Step, deed: Callable[[Work], None], aim: Literal["done", "taken back"], fault: Fault) -> None:
    plan, begun_at = work.journal.plan, datetime.now(UTC)
    outcome: Outcome = aim
    left: tuple[str, ...] = ()
    way = "" if aim == "done" else "back: "
    work.report.note(f"{way}{plan.number(step.name)}/{len(plan.steps)} {step.name}")
    attempt = Attempt(step=step.name, outcome="running", begun_at=begun_at, host=platform.node())
    work.write(with_attempt(work.journal, attempt))
    try:
        fault(step.name, "begun")
        try:
            deed(work)
        except DeferredError as later:
            work.say(f"Deferred: {later.message}")
            outcome, left = "deferred", (f"{later.message} To do it {later.hint}.",)
        fault(step.name, "deed done")
    except KeyboardInterrupt:
        ended = attempt.model_copy(update={"outcome": "failed", "ended_at": datetime.now(UTC), "said": (INTERRUPTED,)})
        work.write(with_attempt(work.journal, ended))
        raise
    except Exception as error:
        what = error.message if isinstance(error, OpsError) else f"{type(error).__name__}: {error}"
        said = (*work.taken_said(), what)
        ended = attempt.model_copy(update={"outcome": "failed", "ended_at": datetime.now(UTC), "said": said})
        work.write(with_attempt(work.journal, ended))
        if isinstance(error, OpsError):
            raise _failed(work.journal, step, error) from error
        raise
    ended = attempt.model_copy(
        update={"outcome": outcome, "ended_at": datetime.now(UTC), "said": work.taken_said(), "left": left}
    )
    work.write(with_attempt(work.journal, ended))
    fault(step.name, "recorded")


def _failed(journal: Journal, step: Step, error: OpsError) -> RunbookError:
    plan = journal.plan
    cause = f"{error.hint}; then " if error.hint else ""
    return RunbookError(
        f"Step {plan.number(step.name)} of {len(plan.steps)}, {step.name}, failed: {error.message}",
        detail=" ".join(part for part in (error.detail, standing(journal)) if part and part != "Nothing was changed."),
        hint=f"{cause}{ways_on(journal)}",
        transient=error.transient,
    )


def standing(journal: Journal) -> str:
    """What is done, and what the application and its data are spared by now."""
    steps = [journal.plan.step(name) for name in journal.done]
    begun = [step for step in journal.plan.steps if _is_begun(journal, step)]
    done = f"Done so far: {', '.join(journal.done)}." if steps else "No step is done."
    if all(step.effect == "beside" for step in begun):
        return f"{done} The application and its data were not touched."
    if any(map(is_final, begun)):
        return done
    if any(step.effect == "interrupts" for step in steps):
        return f"{done} The application is still shut out."
    return f"{done} The application may be shut out already."


def _is_begun(journal: Journal, step: Step) -> bool:
    attempt = journal.last(step.name)
    return attempt is not None and attempt.outcome != "taken back"


def ways_on(journal: Journal) -> str:
    """How the run is gone on with, and how it is taken back, as far as it can be."""
    run = journal.run_id
    if journal.returning_at is not None:
        return f"go on taking it back: `tmi-ops recover back {run}`"
    final = next((step for step in journal.plan.steps if is_final(step) and _is_begun(journal, step)), None)
    back = "" if final else f", or bring back how it was: `tmi-ops recover back {run}`"
    return f"go on: `tmi-ops recover resume {run}`{back}"


def is_final(step: Step) -> bool:
    """Whether a run is not taken back once this step was begun."""
    return step.effect == "irreversible" and not step.way_back


def _refuse_returning(journal: Journal) -> None:
    if journal.returning_at is not None:
        state = "was taken back" if journal.returned_at else "is being taken back"
        raise RecoveryError(
            f"{journal.run_id} {state}, so it cannot be gone on with.",
            hint=f"begin anew: `tmi-ops recover {journal.plan.runbook}`"
            if journal.returned_at
            else f"`tmi-ops recover back {journal.run_id}` until it is over",
        )


def _refuse_to_return(journal: Journal, actions: Actions) -> None:
    if journal.state == "done":
        raise RecoveryError(
            f"{journal.run_id} is done: what it recovered is in service, and may have been written to since.",
            hint="to go back in time once more, begin a new run",
        )
    for step in journal.plan.steps:
        if journal.last(step.name) is not None and is_final(step) and actions[step.name].undo is None:
            raise RecoveryError(
                f"{journal.run_id} cannot be taken back: {step.name} was begun, which has no way back.",
                hint=f"go on: `tmi-ops recover resume {journal.run_id}`",
            )


def _no_fault(_step: str, _moment: Moment) -> None:
    pass
