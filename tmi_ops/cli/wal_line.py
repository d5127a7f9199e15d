"""`tmi-ops wal line`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from tmi_ops.cli.environment import open_environment
from tmi_ops.cli.options import cluster_option
from tmi_ops.cli.terminal import err, out


@click.command()
@click.argument("timeline", type=click.IntRange(1), required=False)
@cluster_option()
def line(timeline: int | None, cluster: str | None) -> int:
    """Show the lines of timelines in the archive. With TIMELINE, choose the line that restores follow.

    Two lines are live if a timeline continues after another one has forked from it: a copy archives to the same place
    as its original, or two servers acted as primary. Until you choose a line, restores ask which one to follow.

    Exit codes: 0 one live line, 1 several, 2 error.
    """
    from tmi_ops.postgres.wal_files import format_lsn
    from tmi_ops.recovery.point_in_time.facts import read_facts
    from tmi_ops.recovery.point_in_time.planning import choose_line
    from tmi_ops.wal.records import update_records

    _, store = open_environment()
    facts = read_facts(store, cluster)
    if timeline is not None:
        choose_line(facts, timeline)  # refuses one that is not there
        update_records(store, facts.system_identifier, lambda records: records.with_word(timeline, datetime.now(UTC)))
        facts = read_facts(store, cluster)
    for tip in facts.living:
        newest = f"newest commit {tip.newest:%Y-%m-%d %H:%M:%S} UTC" if tip.newest else "newest commit not read"
        path = " -> ".join(str(one) for one in tip.line.timelines)
        out.print(f"Line {path}: archived up to {format_lsn(tip.end)}, {newest}")
    for item in facts.archive.followed[-5:]:
        who = "chosen by a person" if item.by == "person" else f"followed at {item.server}"
        out.print(f"Timeline {item.timeline} {who} since {item.since:%Y-%m-%d %H:%M:%S} UTC", highlight=False)
    if len(facts.living) < 2:
        return 0
    err.print(f"{len(facts.living)} lines are live. Choose the line to follow: [bold]tmi-ops wal line TIMELINE[/]")
    return 1
