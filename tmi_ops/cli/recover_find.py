"""`tmi-ops recover find`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from tmi_ops.cli.environment import logs_in_for, open_environment, reporting
from tmi_ops.cli.moments import moment
from tmi_ops.cli.terminal import out
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.rescue.finding import Found

NOTHING_FOUND = 1
# What brings back no more than such a commit took.
_NARROWED = {"definition altered": " --column NAME", "changed rows": " --set-column NAME"}
# Partitions named in a line; the JSON names all.
SHOWN = 3


@logs_in_for(Purpose.RUNBOOK)
@click.command()
@click.option("--table", required=True, metavar="TABLE", help="The table, also one that is gone.")
@click.option(
    "--from",
    "since",
    type=moment,
    metavar="TIME",
    help="Where the search begins. Default: all that is archived, newest first, until something is found.",
)
@click.option("--to", "until", type=moment, metavar="TIME", default="0s ago", help="Where it ends. Default: now.")
@click.option("--least", type=click.IntRange(1), default=1, metavar="N", help="Only commits that touched so many rows.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def find(table: str, since: datetime | None, until: datetime, least: int, as_json: bool, quiet: bool) -> int:
    """Find the moment: which commits dropped, emptied, altered, deleted from or changed TABLE. Changes nothing.

    The archived WAL is read with pg_waldump. For a table that is gone, the cluster is restored for a moment to just
    before commits that dropped tables, to learn which of them was it. Each commit comes with the place just before it,
    for `tmi-ops recover rows --exclusive --to-lsn`.

    Exit codes: 0 something was found, 1 nothing was, 2 could not search.
    """
    from tmi_ops.rescue.finding import find_events

    settings, store = open_environment(Purpose.RUNBOOK)
    with reporting(quiet or as_json) as report:
        found = find_events(settings, store, table, since, until, report)
    if as_json:
        click.echo(json.dumps(_facts(found), indent=2))
    else:
        _show(found, least)
    return 0 if found.events else NOTHING_FOUND


def _show(found: Found, least: int) -> None:
    from tmi_ops.postgres.wal_files import format_lsn

    until = f"{found.reached:%Y-%m-%d %H:%M:%S %Z}" if found.reached else "no commit at all"
    out.print(f"{found.segments:,} WAL files searched; their last commit in that time: {until}.")
    if found.blind:
        first, last = (f"{commit.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" for commit in (found.blind[0], found.blind[-1]))
        out.print(
            f"[yellow]Of {len(found.blind):,} commits from {first} to {last} it cannot be told whether they deleted or "
            "changed its rows: it was emptied together with others in a way that hides its file of then. "
            "`tmi-ops recover diff` compares the rows themselves.[/]"
        )
    shown = [event for event in found.events if not event.rows or event.rows >= least]
    if not shown:
        out.print(f"Nothing happened to [bold]{escape(found.table)}[/] that WAL knows of.")
        return
    table = Table(box=None, padding=(0, 1))
    partitioned = any(event.partitions for event in shown)
    headings = ["committed", "what", "rows", "transaction", "just before it", *(["partitions"] if partitioned else [])]
    for heading in headings:
        table.add_column(
            heading, no_wrap=heading not in ("what", "partitions"), justify="right" if heading == "rows" else "left"
        )
    for event in shown:
        colour = "yellow" if event.rows else "red"
        table.add_row(
            f"{event.commit.at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3],
            f"[{colour}]{event.kind}[/]",
            f"{event.rows:,}" if event.rows else "",
            str(event.commit.xid),
            f"{format_lsn(event.commit.lsn)}",
            *([_some(event.partitions)] if partitioned else []),
        )
    out.print(table)
    out.print(f"Times are UTC. {'The table is there now.' if found.exists else 'The table is gone.'}")
    worst = max(shown, key=lambda event: (not event.rows, event.kind == "deleted rows", event.rows, event.commit.at))
    column = _NARROWED.get(worst.kind, "")
    out.print("Look, then bring back, for example:")
    for command in ("diff", f"rows --dry-run{column}"):
        out.print(
            f"  tmi-ops recover {command} --table {escape(found.table)} --exclusive --to-lsn "
            f"{format_lsn(worst.commit.lsn)}",
            soft_wrap=True,
        )


def _some(partitions: tuple[str, ...]) -> str:
    if len(partitions) > SHOWN:
        return f"{len(partitions)}, such as {escape(partitions[0])}"
    return escape(", ".join(partitions))


def _facts(found: Found) -> dict[str, object]:
    from tmi_ops.postgres.wal_files import format_lsn

    return {
        "table": found.table,
        "exists": found.exists,
        "segments": found.segments,
        "reached": found.reached and found.reached.isoformat(),
        "untold_commits": len(found.blind),
        "events": [
            {
                "kind": event.kind,
                "rows": event.rows,
                "at": event.commit.at.isoformat(),
                "xid": event.commit.xid,
                "before_lsn": format_lsn(event.commit.lsn),
                "partitions": list(event.partitions),
            }
            for event in found.events
        ],
    }
