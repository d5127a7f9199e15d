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
from tmi_ops.cli.options import json_option, quiet_option
from tmi_ops.cli.terminal import out
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.rescue.finding import Found

NOTHING_FOUND = 1
# Restores no more than such a commit changed.
_NARROWED = {"definition altered": " --column NAME", "changed rows": " --set-column NAME"}
# Partitions shown per line; the JSON has all.
SHOWN = 3


@logs_in_for(Purpose.RUNBOOK)
@click.command()
@click.option("--table", required=True, metavar="TABLE", help="Table to search for; may have been dropped.")
@click.option(
    "--from",
    "since",
    type=moment,
    metavar="TIME",
    help="Start of the search. Default: search the whole archive, newest first, until something is found.",
)
@click.option("--to", "until", type=moment, metavar="TIME", default="0s ago", help="End of the search. Default: now.")
@click.option(
    "--least", type=click.IntRange(1), default=1, metavar="N", help="Show only commits that touched at least N rows."
)
@json_option
@quiet_option
def find(table: str, since: datetime | None, until: datetime, least: int, as_json: bool, quiet: bool) -> int:
    """Find the commits that dropped, emptied, altered, deleted from or changed TABLE. Changes nothing.

    Reads the archived WAL with pg_waldump. If the table was dropped, the cluster is restored temporarily to just before
    commits that dropped tables, to find the right one. Each commit is listed with the LSN just before it, for
    `tmi-ops recover rows --exclusive --to-lsn`.

    Exit codes: 0 found, 1 nothing found, 2 could not search.
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

    until = f"{found.reached:%Y-%m-%d %H:%M:%S %Z}" if found.reached else "none"
    out.print(f"{found.segments:,} WAL files searched; last commit found: {until}.")
    if found.blind:
        first, last = (f"{commit.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" for commit in (found.blind[0], found.blind[-1]))
        out.print(
            f"[yellow]{len(found.blind):,} commits from {first} to {last} may have deleted or changed its rows; WAL "
            "does not tell, because the table was later rewritten together with others. Compare the rows with `tmi-ops "
            "recover diff`.[/]"
        )
    shown = [event for event in found.events if not event.rows or event.rows >= least]
    if not shown:
        out.print(f"Found no commit that changed [bold]{escape(found.table)}[/].")
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
    out.print(f"Times are UTC. {'The table exists now.' if found.exists else 'The table does not exist now.'}")
    worst = max(shown, key=lambda event: (not event.rows, event.kind == "deleted rows", event.rows, event.commit.at))
    column = _NARROWED.get(worst.kind, "")
    out.print("Next, compare and rehearse, for example:")
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
