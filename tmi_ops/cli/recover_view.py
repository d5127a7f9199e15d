"""Screens of a runbook: the plan, the questions, and the state of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from tmi_ops.cli.environment import reporting
from tmi_ops.cli.streams import through_hangups
from tmi_ops.cli.terminal import TerminalReport, err, out
from tmi_ops.text import format_duration

if TYPE_CHECKING:
    from tmi_ops.runbooks.execution import Actions, Confirm
    from tmi_ops.runbooks.journal import Attempt, Journal
    from tmi_ops.runbooks.logbook import Logbook
    from tmi_ops.runbooks.plan import Plan, Step
    from tmi_ops.settings import Settings
    from tmi_ops.store.objects import ObjectStore

COULD_NOT, INTERRUPTED = 2, 130
_ANSWERS = {"passed": "green", "failed": "red", "not run": "yellow", "not applicable": "dim"}
_OUTCOMES = {
    "done": "green",
    "deferred": "yellow",
    "running": "yellow",
    "failed": "red",
    "taken back": "yellow",
    "": "dim",
}


def run_plan(
    settings: Settings,
    store: ObjectStore,
    plan: Plan,
    *,
    yes: bool,
    dry_run: bool,
    quiet: bool,
    actions: Actions | None = None,
) -> int:
    """Show a plan, and execute it unless only the plan was requested. Returns the exit code.

    Args:
        actions: None: those of the plan's runbook.
    """
    from tmi_ops.cli.started import command_started
    from tmi_ops.runbooks.catalogue import actions_for
    from tmi_ops.runbooks.execution import begin

    actions = actions or actions_for(plan)
    show_plan(plan)
    if plan.obstacles:
        out.print("[red]Nothing was changed.[/] Resolve the problems above, then run the same command again.")
        return COULD_NOT
    if dry_run:
        return 0
    with reporting(quiet) as report:
        logbook, journal = begin(settings, store, plan, report, since=command_started())
    err.print(f"Run {journal.run_id}; its journal is in {logbook.directory}", soft_wrap=True)
    return go_on(settings, store, logbook, actions, yes=yes, quiet=quiet)


def go_on(settings: Settings, store: ObjectStore, logbook: Logbook, actions: Actions, *, yes: bool, quiet: bool) -> int:
    """Execute the steps of a run that are not done, and show the result. Returns the exit code."""
    from tmi_ops.runbooks.execution import DeclinedError, carry_out

    try:
        with through_hangups(), reporting(quiet) as report:
            done = carry_out(settings, store, logbook, actions, report, ask(report, yes=yes))
    except DeclinedError as no:
        for line in (no.message, no.detail, f"To {no.hint}."):
            err.say(escape(line))
        return no.exit_code
    except KeyboardInterrupt:
        return show_interruption(logbook)
    show_run(done, settings, store)
    return 0


def show_interruption(logbook: Logbook) -> int:
    """Show the state of the run, and how to continue or undo it. Returns the exit code."""
    from tmi_ops.runbooks.execution import how_to_continue, standing

    journal = logbook.read()
    last = journal.attempts[-1] if journal.attempts else None
    where = f" in step {journal.plan.number(last.step)} of {len(journal.plan.steps)}, {last.step}" if last else ""
    for line in (f"Interrupted{where}.", standing(journal), f"To {how_to_continue(journal)}."):
        err.say(escape(line))
    return INTERRUPTED


def show_plan(plan: Plan, journal: Journal | None = None) -> None:
    """Every step, with its effect, its state if the run has started, and how to undo it."""
    from tmi_ops.runbooks.journal import shown

    out.print(f"[bold]{escape(plan.title)}[/]: {escape(plan.subject)}")
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    asked: set[str] = set()
    for number, step in enumerate(plan.steps, 1):
        effects = _effects(step, asked)
        back = f"\n[dim]undo: {escape(step.way_back)}[/]" if step.way_back else ""
        attempt = journal.last(step.name) if journal else None
        state = f"[{_OUTCOMES[attempt.outcome]}]{shown(attempt.outcome)}:[/] " if attempt else ""
        table.add_row(f"{number}.", step.name, f"{state}{escape(step.does)}{effects}{back}")
    out.print(table)
    out.print(escape(plan.untouched))
    for obstacle in plan.obstacles:
        out.print(f"[red]Blocked:[/] {escape(obstacle.what)}\n    {escape(obstacle.hint)}")
    for note in plan.notes:
        out.print(f"[yellow]Note:[/] {escape(note)}")
    if plan.afterwards:
        out.print("Left to do afterwards:")
        out.print(_numbered(plan.afterwards))


def _effects(step: Step, asked: set[str]) -> str:
    """In brackets: what a step means for the application, and whether it asks first. Adds to `asked`."""
    from tmi_ops.runbooks.execution import is_final

    words = {"interrupts": ["interrupts the application"]}.get(step.effect, [])
    words = ["cannot be undone"] if is_final(step) else words
    if step.effect != "beside" and step.effect not in asked:
        words = [*words, "you are asked first"]
        asked.add(step.effect)
    colour = "yellow" if step.effect == "interrupts" else "red"
    return f" [{colour}]({'; '.join(words)})[/]" if words else ""


def ask(report: TerminalReport, *, yes: bool) -> Confirm:
    """Asks at the terminal, unless `yes`. No terminal means no."""

    def confirm(journal: Journal, step: Step) -> bool:
        if yes:
            return True
        with report.paused():
            if journal.answers:
                out.print(_answers(journal))
            effect = ", which interrupts the application" if step.effect == "interrupts" else ""
            out.print(f"Next step: [bold]{step.name}[/]{effect}: {escape(step.does)}.")
            out.print(_outlook(journal, step))
            try:
                return click.confirm(f"Continue ({escape(journal.plan.subject)})?")
            except (click.Abort, OSError):  # no input, or the terminal is gone
                out.print()
                return False

    return confirm


def _outlook(journal: Journal, step: Step) -> str:
    """Whether the user is asked again, and how long the run can be undone."""
    from tmi_ops.runbooks.execution import is_final

    plan = journal.plan
    again = step.effect == "interrupts" and any(one.effect == "irreversible" for one in plan.steps)
    final = next((one.name for one in plan.steps if is_final(one)), None)
    until = f"until {final} starts" if final else "until the run is finished"
    once_more = "You will be asked once more" if again else "You will not be asked again"
    if final == step.name:
        return f"{once_more}. From here on, the run cannot be undone."
    return f"{once_more}. You can undo the run {until}: `tmi-ops recover back {journal.run_id}`."


def show_run(journal: Journal, settings: Settings, store: ObjectStore) -> None:
    """The result of each step and check, the time against the RTO, and where the evidence is."""
    from tmi_ops.runbooks.evidence import PAGE, evidence_of
    from tmi_ops.runbooks.journal import shown
    from tmi_ops.runbooks.logbook import FOLDER

    evidence = evidence_of(journal)
    colour = {"recovered": "green", "taken back": "yellow", "unfinished": "red"}[evidence.outcome]
    out.print(
        f"[bold {colour}]{shown(evidence.outcome).upper()}[/] [bold]{journal.run_id}[/]: {escape(journal.plan.title)} "
        f"({escape(journal.plan.subject)})"
    )
    table = Table(show_header=False, box=None, padding=(0, 2))
    for step in journal.plan.steps:
        attempt = journal.last(step.name)
        outcome, took = (attempt.outcome, format_duration(evidence.phases[step.name])) if attempt else ("", "")
        table.add_row(f"[{_OUTCOMES[outcome]}]{shown(outcome) or 'not started'}[/]", step.name, took, _said(attempt))
    out.print(table)
    if journal.answers:
        out.print("Checks:")
        out.print(_answers(journal))
    objective = f"the RTO is {format_duration(evidence.rto_objective_seconds)}"
    met = ": [green]met[/]" if evidence.rto_met else (": [red]missed[/]" if evidence.outcome == "recovered" else "")
    for answer in journal.answers:
        if answer.outcome == "failed":
            out.print(f"[bold red]{escape(answer.title)}: failed.[/] {escape(answer.detail)}")
    out.print(
        f"Total time [bold]{format_duration(evidence.rto_seconds)}[/], including planning and questions; "
        f"{objective}{met}."
    )
    if evidence.outcome == "recovered" and journal.left:
        out.print("[bold]Left to do:[/]")
        out.print(_numbered(journal.left))
    if evidence.outcome == "unfinished":
        out.print(f"Continue: tmi-ops recover resume {journal.run_id}", soft_wrap=True)
        return
    out.print(f"Evidence: {settings.home / FOLDER / journal.run_id / PAGE}", soft_wrap=True)
    where = store.url(f"{FOLDER}/{journal.run_id}/{PAGE}")
    out.print(f"In the store: {escape(where)}", soft_wrap=True)


def _answers(journal: Journal) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2))
    for answer in journal.answers:
        detail = "\n".join([answer.detail, *(f"- {finding}" for finding in answer.findings)])
        table.add_row(f"[{_ANSWERS[answer.outcome]}]{answer.outcome}[/]", escape(answer.title), escape(detail))
    return table


def _numbered(sentences: tuple[str, ...]) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for number, sentence in enumerate(sentences, 1):
        table.add_row(f"{number}.", escape(sentence))
    return table


def _said(attempt: Attempt | None) -> str:
    return "\n".join(map(escape, attempt.said)) if attempt else ""
