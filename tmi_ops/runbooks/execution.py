"""Executes a plan step by step; each step is recorded before it begins and after it ends.

1. A step that the journal records as done is not repeated. One that was cut off is, so every action must be idempotent.
2. A step that cannot be done now and that no other step needs is deferred: the run continues and reports it at the end.
   Resuming the run retries it, even if everything else is done.
3. The user is asked before the first step that interrupts the application, and again before the first one that cannot
   be undone. A yes is recorded and still holds when the run is resumed.
4. A failure is recorded, and the error says what is done, how to continue and how to undo it.
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
from tmi_ops.runbooks.evidence import record_evidence
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
from tmi_ops.settings import Settings
from tmi_ops.store.objects import ObjectStore

Moment = Literal["begun", "action done", "recorded"]
# Called at each point of a step; tests raise or kill the process there.
Fault = Callable[[str, Moment], None]
# Asked with the current journal and the next step; a no stops the run there.
Confirm = Callable[[Journal, Step], bool]
Known = TypeVar("Known", bound=Fact)
INTERRUPTED = "interrupted by Ctrl-C or a signal"


@dataclass(frozen=True)
class Action:
    """How to do a step, and how to undo it (None: nothing to undo, or not possible).

    Both may be cut off at any point and are then called again, so they check the current state before they act.

    Args:
        needs: steps whose result it uses; a plan need not contain them.
        lost: called for a done step whose result is still needed: says what of it is missing on this machine, as a
            sentence; empty if nothing is. If something is missing, the step is repeated. None: its result does not
            depend on the machine.
    """

    do: Callable[[Work], None]
    undo: Callable[[Work], None] | None = None
    needs: tuple[str, ...] = ()
    lost: Callable[[Work], str] | None = None


Actions = Mapping[str, Action]


class DeclinedError(OpsError):
    """The user said no. The run waits."""

    default_code = Code.DECLINED


class DeferredError(OpsError):
    """Raised by an action that cannot be done now; the run continues without it. `hint`: how to do it later."""

    default_code = Code.DEFERRED


class RunbookError(RecoveryError):
    """A step failed, with the code of its cause. The journal records how far the run got."""

    default_code = Code.RUNBOOK


@dataclass
class Work:
    """What an action works with: settings, store, facts so far, and where to report its result."""

    settings: Settings
    store: ObjectStore
    report: Report
    logbook: Logbook
    journal: Journal
    _said: list[str] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        """For the run's own files; kept until the run ends."""
        return self.logbook.directory

    def known(self, kind: type[Known]) -> Known:
        """A fact that an earlier step recorded.

        Raises:
            RecoveryError: there is none of that kind.
        """
        found = self.journal.known(kind)
        if found is None:
            raise RecoveryError(
                f"The journal of {self.journal.run_id} has no {kind.__name__}, which this step needs.",
                code=Code.JOURNAL_UNREADABLE,
            )
        return found

    def remember(self, fact: Fact) -> None:
        """Record a fact for later steps or a repetition of this one; durable when this returns."""
        self.write(with_fact(self.journal, fact))

    def forget(self, kind: type[Fact]) -> None:
        """Remove a fact of an earlier attempt that no longer holds."""
        self.write(without_fact(self.journal, kind))

    def answer(self, answer: Answer) -> None:
        """Record the result of a check."""
        self.write(with_answer(self.journal, answer))

    def leave(self, sentence: str) -> None:
        """Record what a person must do when the run is finished."""
        self.write(with_left(self.journal, sentence))

    def say(self, sentence: str) -> None:
        """Add one line on the step's result to the journal, the evidence and the log."""
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
    """Create the journal of a new run; nothing else.

    Args:
        since: when the user started the command; None: now.

    Raises:
        RecoveryError: the plan has an obstacle.
    """
    if plan.obstacles:
        first, *others = plan.obstacles
        more = f" {' '.join(other.what for other in others)}" if others else ""
        raise RecoveryError(
            f"The run was not started: {first.what}{more}", hint=first.hint, code=Code.RUN_HAS_OBSTACLES
        )
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
    """Do the steps that are not done yet, and write the evidence.

    Args:
        fault: see `Fault`.

    Returns:
        The journal of the finished run.

    Raises:
        DeclinedError: the user said no.
        RunbookError: a step failed.
        RecoveryError: another process executes this run, it is being undone, or the server it put into service is on
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


def undo_run(settings: Settings, store: ObjectStore, logbook: Logbook, actions: Actions, report: Report) -> Journal:
    """Undo a run, step by step from the last one that was started.

    Raises:
        RecoveryError: it is done, a step that cannot be undone was started, or another process executes it.
        RunbookError: undoing a step failed; it may be repeated.
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
    """Mark steps for repetition whose result is still needed but is not on this machine."""
    for name in _still_needed(work.journal, actions):
        lost = actions[name].lost
        if lost is None or not work.journal.is_done(name):
            continue
        again = [need for need in actions[name].needs if need in work.journal.pending]
        why = f"It depends on {again[0]}, which is repeated." if again else lost(work)
        if why:
            work.report.note(f"Repeating {name}. {why}")
            now = datetime.now(UTC)
            attempt = Attempt(
                step=name, outcome="failed", begun_at=now, ended_at=now, said=(why,), host=platform.node()
            )
            work.write(with_attempt(work.journal, attempt))


def _still_needed(journal: Journal, actions: Actions) -> tuple[str, ...]:
    """The pending steps and all steps they need, in plan order."""
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
            f"{work.journal.run_id} stopped before step {step.name}.",
            detail=standing(work.journal),
            hint=how_to_continue(work.journal),
        )
    given = Consent(effect=step.effect, step=step.name, given_at=datetime.now(UTC))
    work.write(work.journal.model_copy(update={"consents": (*work.journal.consents, given)}))


def _consented(journal: Journal, effect: Effect) -> bool:
    """A yes to an irreversible step covers interrupting the application, too."""
    return any(one.effect in (effect, "irreversible") for one in journal.consents)


def _do(work: Work, step: Step, act: Callable[[Work], None], aim: Literal["done", "taken back"], fault: Fault) -> None:
    plan, begun_at = work.journal.plan, datetime.now(UTC)
    outcome: Outcome = aim
    left: tuple[str, ...] = ()
    way = "" if aim == "done" else "undo "
    work.report.note(f"{way}{plan.number(step.name)}/{len(plan.steps)} {step.name}")
    attempt = Attempt(step=step.name, outcome="running", begun_at=begun_at, host=platform.node())
    work.write(with_attempt(work.journal, attempt))
    try:
        fault(step.name, "begun")
        try:
            act(work)
        except DeferredError as later:
            work.say(f"Deferred: {later.message}")
            outcome, left = "deferred", (f"{later.message} To do it {later.hint}.",)
        fault(step.name, "action done")
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
        f"Step {plan.number(step.name)} of {len(plan.steps)} ({step.name}) failed: {error.message}",
        detail=" ".join(part for part in (error.detail, standing(journal)) if part and part != "Nothing was changed."),
        hint=f"{cause}{how_to_continue(journal)}",
        code=None if error.code is Code.FAILED else error.code,
        transient=error.transient,
    )


def standing(journal: Journal) -> str:
    """What is done, and what that means for the application."""
    steps = [journal.plan.step(name) for name in journal.done]
    begun = [step for step in journal.plan.steps if _is_begun(journal, step)]
    done = f"Steps done: {', '.join(journal.done)}." if steps else "No step is done."
    if all(step.effect == "beside" for step in begun):
        return f"{done} The application and its data were not touched."
    if any(map(is_final, begun)):
        return done
    if any(step.effect == "interrupts" for step in steps):
        return f"{done} The application is still shut out."
    return f"{done} The application may already be shut out."


def _is_begun(journal: Journal, step: Step) -> bool:
    attempt = journal.last(step.name)
    return attempt is not None and attempt.outcome != "taken back"


def how_to_continue(journal: Journal) -> str:
    """How to continue the run, and how to undo it where that is possible."""
    run = journal.run_id
    if journal.returning_at is not None:
        return f"finish undoing it: `tmi-ops recover back {run}`"
    final = next((step for step in journal.plan.steps if is_final(step) and _is_begun(journal, step)), None)
    back = "" if final else f", or undo the run: `tmi-ops recover back {run}`"
    return f"continue: `tmi-ops recover resume {run}`{back}"


def is_final(step: Step) -> bool:
    """Whether a run cannot be undone once this step has started."""
    return step.effect == "irreversible" and not step.way_back


def _refuse_returning(journal: Journal) -> None:
    if journal.returning_at is not None:
        state = "was undone" if journal.returned_at else "is being undone"
        raise RecoveryError(
            f"{journal.run_id} {state} and cannot be resumed.",
            hint=f"start a new run: `tmi-ops recover {journal.plan.runbook}`"
            if journal.returned_at
            else f"finish undoing it: `tmi-ops recover back {journal.run_id}`",
            code=Code.RUN_UNDONE,
        )


def _refuse_to_return(journal: Journal, actions: Actions) -> None:
    if journal.state == "done":
        raise RecoveryError(
            f"{journal.run_id} is done and cannot be undone: what it recovered is in service and may have been written "
            "to since.",
            hint="to recover to another moment, start a new run",
            code=Code.CANNOT_UNDO,
        )
    for step in journal.plan.steps:
        if journal.last(step.name) is not None and is_final(step) and actions[step.name].undo is None:
            raise RecoveryError(
                f"{journal.run_id} cannot be undone: step {step.name} was started, and it is irreversible.",
                hint=f"continue: `tmi-ops recover resume {journal.run_id}`",
                code=Code.CANNOT_UNDO,
            )


def _no_fault(_step: str, _moment: Moment) -> None:
    pass
