"""What a person sees of a runbook: the plan, the questions, how far a run came."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from tmi_ops.cli.environment import reporting
from tmi_ops.cli.lasting import through_hangups
from tmi_ops.cli.terminal import TerminalReport, err, out
from tmi_ops.words import time_words

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
    plan_only: bool,
    quiet: bool,
    actions: Actions | None = None,
) -> int:
    """Show a plan, and carry it out unless only the plan was asked for. Returns the exit code.

    Args:
        actions: the deeds; None: those of the plan's runbook.
    """
    from tmi_ops.cli.beginning import command_began
    from tmi_ops.runbooks.catalogue import actions_for
    from tmi_ops.runbooks.execution import begin

    actions = actions or actions_for(plan)
    show_plan(plan)
    if plan.obstacles:
        out.print("[red]Nothing was changed.[/] Clear away what is in the way, then run the same command again.")
        return COULD_NOT
    if plan_only:
        return 0
    with reporting(quiet) as report:
        logbook, journal = begin(settings, store, plan, report, since=command_began())
    err.print(f"Run {journal.run_id}; its journal is in {logbook.directory}", soft_wrap=True)
    return go_on(settings, store, logbook, actions, yes=yes, quiet=quiet)


def go_on(settings: Settings, store: ObjectStore, logbook: Logbook, actions: Actions, *, yes: bool, quiet: bool) -> int:
    """Carry out what is not done of a run, and show what came of it. Returns the exit code."""
    from tmi_ops.runbooks.execution import DeclinedError, carry_out

    try:
        with through_hangups(), reporting(quiet) as report:
            done = carry_out(settings, store, logbook, actions, report, ask(report, yes=yes))
    except DeclinedError as no:
        for line in (f"Not gone on with: {no.message}", no.detail, f"To {no.hint}."):
            err.print(escape(line), soft_wrap=True)
        return no.exit_code
    except KeyboardInterrupt:
        return show_interruption(logbook)
    show_run(done, settings, store)
    return 0


def show_interruption(logbook: Logbook) -> int:
    """Where the run stands, and both ways from there. Returns the exit code."""
    from tmi_ops.runbooks.execution import standing, ways_on

    journal = logbook.read()
    last = journal.attempts[-1] if journal.attempts else None
    where = f" in step {journal.plan.number(last.step)} of {len(journal.plan.steps)}, {last.step}" if last else ""
    for line in (f"Interrupted{where}.", standing(journal), f"To {ways_on(journal)}."):
        err.print(escape(line), soft_wrap=True)
    return INTERRUPTED


def show_plan(plan: Plan, journal: Journal | None = None) -> None:
    """Every step, with its effect and its way back; of a run that was begun, with how each stands."""
    out.print(f"[bold]{escape(plan.title)}[/]: {escape(plan.subject)}")
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    asked: set[str] = set()
    for number, step in enumerate(plan.steps, 1):
        effects = _effects(step, asked)
        back = f"\n[dim]way back: {escape(step.way_back)}[/]" if step.way_back else ""
        attempt = journal.last(step.name) if journal else None
        state = f"[{_OUTCOMES[attempt.outcome]}]{attempt.outcome}:[/] " if attempt else ""
        table.add_row(f"{number}.", step.name, f"{state}{escape(step.does)}{effects}{back}")
    out.print(table)
    out.print(escape(plan.untouched))
    for obstacle in plan.obstacles:
        out.print(f"[red]In the way:[/] {escape(obstacle.what)}\n    {escape(obstacle.hint)}")
    for note in plan.notes:
        out.print(f"[yellow]Note:[/] {escape(note)}")
    if plan.afterwards:
        out.print("Afterwards it is left to you:")
        out.print(_numbered(plan.afterwards))


def _effects(step: Step, asked: set[str]) -> str:
    """In brackets, what a step means to the application, and whether somebody is asked first. Adds to `asked`."""
    from tmi_ops.runbooks.execution import is_final

    words = {"interrupts": ["interrupts the application"]}.get(step.effect, [])
    words = ["no way back"] if is_final(step) else words
    if step.effect != "beside" and step.effect not in asked:
        words = [*words, "you are asked first"]
        asked.add(step.effect)
    colour = "yellow" if step.effect == "interrupts" else "red"
    return f" [{colour}]({'; '.join(words)})[/]" if words else ""


def ask(report: TerminalReport, *, yes: bool) -> Confirm:
    """Asks the person at the terminal; with `yes` nobody is asked. Nobody there is a no."""

    def confirm(journal: Journal, step: Step) -> bool:
        if yes:
            return True
        with report.paused():
            if journal.answers:
                out.print(_answers(journal))
            effect = ", which interrupts the application" if step.effect == "interrupts" else ""
            out.print(f"Next is [bold]{step.name}[/]{effect}: {escape(step.does)}.")
            out.print(_outlook(journal, step))
            try:
                return click.confirm(f"Go on ({escape(journal.plan.subject)})?")
            except (click.Abort, OSError):  # nobody is there, or the terminal is gone
                out.print()
                return False

    return confirm


def _outlook(journal: Journal, step: Step) -> str:
    """Whether somebody is asked again, and how long it can be taken back."""
    from tmi_ops.runbooks.execution import is_final

    plan = journal.plan
    again = step.effect == "interrupts" and any(one.effect == "irreversible" for one in plan.steps)
    final = next((one.name for one in plan.steps if is_final(one)), None)
    back = f"until {final} begins" if final else "until the run is over"
    once_more = "You are asked once more" if again else "You are not asked again"
    if final == step.name:
        return f"{once_more}; from here on there is no way back."
    return f"{once_more}; {back} it can be taken back: `tmi-ops recover back {journal.run_id}`."


def show_run(journal: Journal, settings: Settings, store: ObjectStore) -> None:
    """How each step went, what was found, the time against the RTO, and where the evidence is."""
    from tmi_ops.runbooks.evidence import evidence_of
    from tmi_ops.runbooks.logbook import FOLDER
    from tmi_ops.runbooks.recording import PAGE

    evidence = evidence_of(journal)
    colour = {"recovered": "green", "taken back": "yellow", "unfinished": "red"}[evidence.outcome]
    out.print(
        f"[bold {colour}]{evidence.outcome.upper()}[/] [bold]{journal.run_id}[/]: {escape(journal.plan.title)} "
        f"({escape(journal.plan.subject)})"
    )
    table = Table(show_header=False, box=None, padding=(0, 2))
    for step in journal.plan.steps:
        attempt = journal.last(step.name)
        outcome, took = (attempt.outcome, time_words(evidence.phases[step.name])) if attempt else ("", "")
        table.add_row(f"[{_OUTCOMES[outcome]}]{outcome or 'not begun'}[/]", step.name, took, _said(attempt))
    out.print(table)
    if journal.answers:
        out.print("Asked of what was recovered:")
        out.print(_answers(journal))
    objective = f"the RTO is {time_words(evidence.rto_objective_seconds)}"
    met = ": [green]met[/]" if evidence.rto_met else (": [red]missed[/]" if evidence.outcome == "recovered" else "")
    for answer in journal.answers:
        if answer.outcome == "failed":
            out.print(f"[bold red]{escape(answer.title)}: no.[/] {escape(answer.detail)}")
    out.print(
        f"In all [bold]{time_words(evidence.rto_seconds)}[/], reading, planning and questions included; "
        f"{objective}{met}."
    )
    if evidence.outcome == "recovered" and journal.left:
        out.print("[bold]Left to you:[/]")
        out.print(_numbered(journal.left))
    if evidence.outcome == "unfinished":
        out.print(f"Go on: tmi-ops recover resume {journal.run_id}", soft_wrap=True)
        return
    out.print(f"Evidence: {settings.home / FOLDER / journal.run_id / PAGE}", soft_wrap=True)
    where = f"s3://{settings.store.bucket}/{store.root}{FOLDER}/{journal.run_id}/{PAGE}"
    out.print(f"and in the store: {escape(where)}", soft_wrap=True)


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
