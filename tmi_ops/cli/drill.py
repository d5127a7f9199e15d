"""`tmi-ops drill` and `tmi-ops drills`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from tmi_ops.checks.finding import Result
from tmi_ops.cli.checks_view import show_result
from tmi_ops.cli.environment import libraries_of_copies, logs_in_for, open_environment, reporting
from tmi_ops.cli.moments import one_target, to_a_moment
from tmi_ops.cli.options import html_option, json_option, quiet_option
from tmi_ops.cli.terminal import format_age, format_duration, format_size, out
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.drill.evidence import Evidence
    from tmi_ops.drill.planning import DrillPlan

DRILL_FAILED = 1
_COLOURS = {"passed": "green", "failed": "red"}
_SHOWN = 20


@logs_in_for(Purpose.BACKUP)
@click.command()
@to_a_moment(latest=True)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed of the random moment, to choose the same again.")
@html_option
@json_option
@quiet_option
def drill(
    to_time: datetime | None,
    to_lsn: int | None,
    to_name: str | None,
    latest: bool,
    seed: int | None,
    html: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run a recovery drill: recover into a scratch cluster, check it, and keep the evidence.

    Recovers to the target, or to a random moment of the recovery window. Checks that the copy is complete and compares
    the time it took (RTO) and the data that would have been lost (RPO) with the objectives. Writes the evidence to the
    store and removes the copy. No running server is touched.

    Exit codes: 0 passed, 1 the copy is not sound or an objective was missed, 2 the drill could not be run.
    """
    from tmi_ops.drill.evidence import evidence_json
    from tmi_ops.drill.execution import run_drill
    from tmi_ops.drill.page import evidence_page
    from tmi_ops.drill.planning import prepare_drill

    target = one_target(to_time, to_lsn, to_name, latest=latest, exclusive=False)
    if target is not None and seed is not None:
        raise click.UsageError("--seed cannot be used with a target: it chooses a random moment.")
    settings, store = open_environment(Purpose.BACKUP)
    with reporting(quiet) as report:
        plan = prepare_drill(settings, store, report, target=target, seed=seed)
        if not as_json:
            report.note(_describe_plan(plan))
            if loaded := libraries_of_copies(settings):
                report.note(loaded)
        done = run_drill(settings, store, plan, report)
    if html is not None:
        html.write_text(evidence_page(done.evidence))
    if as_json:
        click.echo(evidence_json(done.evidence))
    else:
        _show(done.evidence)
        where = store.url(done.page_key)
        out.print(f"Evidence: {escape(where)}", soft_wrap=True)
    return 0 if done.evidence.outcome == "passed" else DRILL_FAILED


@click.command()
@click.argument("drill_id", required=False)
@html_option
@json_option
def drills(drill_id: str | None, html: Path | None, as_json: bool) -> int:
    """List the drills of this environment, newest first. With DRILL_ID (or `latest`), show its evidence.

    --html needs DRILL_ID.
    """
    from tmi_ops.drill.evidence import list_drills, read_evidence

    _, store = open_environment(Purpose.BACKUP)
    ids = list_drills(store)
    if drill_id is not None:
        return _show_one(read_evidence(store, _named(ids, drill_id)), html, as_json=as_json)
    if html is not None:
        raise click.UsageError("--html needs the id of a drill, or `latest`.")
    found = [read_evidence(store, one) for one in ids]
    if as_json:
        click.echo("[" + ",\n".join(one.model_dump_json(by_alias=True) for one in found) + "]")
        return 0
    if not found:
        out.print("No drill has been run yet. Next: tmi-ops drill")
        return 0
    out.print(_table(found[:_SHOWN]))
    if len(found) > _SHOWN:
        out.print(f"and {len(found) - _SHOWN} older ones (--json shows all)")
    return 0


def _named(ids: list[str], name: str) -> str:
    fitting = ids[:1] if name == "latest" else [one for one in ids if one.startswith(name)]
    if len(fitting) == 1:
        return fitting[0]
    raise click.UsageError(f"{len(fitting) or 'No'} drills start with {name!r}; `tmi-ops drills` lists them.")


def _show_one(evidence: Evidence, html: Path | None, *, as_json: bool) -> int:
    from tmi_ops.drill.evidence import evidence_json
    from tmi_ops.drill.page import evidence_page

    if html is not None:
        html.write_text(evidence_page(evidence))
    if as_json:
        click.echo(evidence_json(evidence))
    else:
        _show(evidence)
    return 0


def _describe_plan(plan: DrillPlan) -> str:
    base = plan.recovery.base
    return (
        f"Drill: recover to {plan.target.text}, {plan.target.chosen}, from {base.backup_id} "
        f"({format_age(base.consistent_at)}) plus up to {format_size(plan.recovery.wal.size)} of WAL."
    )


def _table(found: list[Evidence]) -> Table:
    table = Table(box=None, padding=(0, 2))
    for heading in ("drill", "when", "outcome", "RTO", "RPO"):
        table.add_column(heading, no_wrap=True)
    table.add_column("target", overflow="fold")
    for one in found:
        table.add_row(
            one.drill_id,
            format_age(one.started_at),
            f"[{_COLOURS[one.outcome]}]{one.outcome}[/]",
            format_duration(one.rto_seconds),
            format_duration(one.rpo_seconds),
            escape(one.target.text),
        )
    return table


def _show(evidence: Evidence) -> None:
    colour = _COLOURS[evidence.outcome]
    out.print(
        f"[bold {colour}]{evidence.outcome.upper()}[/] [bold]{evidence.drill_id}[/]: {escape(evidence.database)} of "
        f"{evidence.environment} recovered to {escape(evidence.target.text)}, {evidence.target.chosen}."
    )
    for check in evidence.checks:
        show_result(Result(check.name, check.title, "", check.answer), advice="all")
    phases = ", ".join(f"{phase} {format_duration(spent)}" for phase, spent in evidence.phases.items())
    out.print(f"Time: {phases}; total [bold]{format_duration(evidence.rto_seconds)}[/].")
    if evidence.copy_ is not None and evidence.copy_.rows:
        rows = evidence.copy_.rows
        out.print(f"Rows: {sum(rows.values()):,} in {len(rows)} tables; {format_size(evidence.copy_.restored_size)}.")
