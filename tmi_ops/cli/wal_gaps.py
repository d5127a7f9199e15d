"""`tmi-ops wal gaps`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tmi_ops.cli.environment import logs_in_for, open_environment, reporting
from tmi_ops.cli.json_output import echo_json
from tmi_ops.cli.options import cluster_option, json_option, quiet_option
from tmi_ops.cli.terminal import format_size, out
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.progress import Report
    from tmi_ops.recovery.continuity.gaps import BaseContinuity, Continuity
    from tmi_ops.recovery.continuity.reading import Reading
    from tmi_ops.retention.wal_need import WindowNeed
    from tmi_ops.settings import Settings
    from tmi_ops.store.objects import ObjectStore
    from tmi_ops.wal.breaks import Break
    from tmi_ops.wal.coverage import Hole

_MOST_SHOWN = 20


@logs_in_for(Purpose.RECEIVER)
@click.command()
@click.option("--deep", is_flag=True, help="Read every segment completely and check SHA-256, header and records.")
@cluster_option()
@json_option
@quiet_option
def gaps(deep: bool, cluster: str | None, as_json: bool, quiet: bool) -> int:
    """Verify that the archived WAL continues without a gap from each base backup to the newest LSN.

    The records of each segment must continue those of the segment before it; the names alone are not enough. WAL
    written with wal_level = minimal cannot be replayed. WAL that retention has removed does not count as a gap.

    Exit codes: 0 no gap, 1 a gap, a break, damaged WAL, an unusable base backup or two live lines, 2 could not check.
    """
    from tmi_ops.recovery.continuity.gaps import check_continuity
    from tmi_ops.recovery.continuity.reading import read_contents, read_links
    from tmi_ops.recovery.point_in_time.facts import read_facts

    settings, store = open_environment(Purpose.RECEIVER)
    with reporting(quiet or as_json) as report:
        facts = read_facts(store, cluster, whole=True)
        reading = (read_contents if deep else read_links)(store, facts.archive, report)
        need = _need(settings, store, facts.system_identifier, report)
    continuity = check_continuity(facts, reading.damaged, reading.links, need)
    if as_json:
        echo_json(_as_json(continuity, reading))
    else:
        _show(continuity, reading)
    return 0 if continuity.whole else 1


def _need(settings: Settings, store: ObjectStore, cluster: str, report: Report) -> WindowNeed | None:
    """The WAL that retention keeps; None if it keeps all, or if that is unknown."""
    from tmi_ops.errors import OpsError
    from tmi_ops.retention.reading import read_facts as read_retention_facts
    from tmi_ops.retention.wal_need import window_needs

    try:
        facts = read_retention_facts(store, to_look=True)
    except OpsError as error:
        if error.transient:
            raise
        report.note(f"What retention keeps could not be read, so every gap counts: {error.message}")
        return None
    if facts.store_now is None or not any(
        item.kind == "base" and item.verification == "proven" for item in facts.backups
    ):
        return None
    return window_needs(facts, facts.store_now - settings.retention.window).get(cluster)


def _show(continuity: Continuity, reading: Reading) -> None:
    from tmi_ops.wal.lines import several_live

    archive = continuity.archive
    out.print(
        f"Cluster {archive.system_identifier}: {_counted(_segments(continuity), 'segment')} of WAL on "
        f"{_timelines(continuity)}, {format_size(archive.size)} stored. {_checked(reading)}"
    )
    for base in continuity.bases[:_MOST_SHOWN]:
        _show_base(base)
    if len(continuity.bases) > _MOST_SHOWN:
        out.print(f"and {len(continuity.bases) - _MOST_SHOWN} older ones (--json shows all)")
    for hole in continuity.holes[:_MOST_SHOWN]:
        out.print(f"[red]Gap[/]      {_describe_gap(hole)}")
    for item in continuity.breaks[:_MOST_SHOWN]:
        out.print(f"[red]Break[/]    {item.describe()}")
    if (several := several_live(continuity.living)) is not None:
        out.print(f"[red]Lines[/]    {several} Choose the line to follow: [bold]tmi-ops wal line TIMELINE[/]")
    for name, why in list(continuity.damaged.items())[:_MOST_SHOWN]:
        out.print(f"[red]Damaged[/]  {name}: {why}", markup=True, highlight=False)
    for problem in continuity.lost:
        out.print(f"[red]Lost[/]     {problem}")
    _show_outcome(continuity)


def _show_base(base: BaseContinuity) -> None:
    from tmi_ops.postgres.wal_files import format_lsn

    mark = (
        "[red]broken[/]"
        if base.broken
        else "[yellow]gaps[/]"
        if base.holes
        else "[yellow]breaks[/]"
        if base.breaks
        else "[green]ok[/]"
    )
    reach = f"reaches {format_lsn(base.reaches)}"
    if base.dropped:
        reach += " (retention has removed the WAL after it)"
    elif base.reaches < base.newest:
        reach = f"reaches only {format_lsn(base.reaches)} of {format_lsn(base.newest)}"
    out.print(
        f"{mark:<16} {base.base.backup_id}  from {base.base.stop_lsn} ({base.base.consistent_at:%Y-%m-%d %H:%M:%S} "
        f"UTC) {reach} on timeline {base.timeline}"
    )
    if base.broken:
        out.print(f"         {base.broken}")


def _show_outcome(continuity: Continuity) -> None:
    if continuity.whole:
        if not continuity.bases:
            out.print("No base backup, so there is nothing to replay the WAL on. Next: tmi-ops backup base")
        elif not _segments(continuity):
            out.print("No WAL is archived: base backups restore only to their own moment. Next: tmi-ops wal stream")
        else:
            out.print(_describe_whole(continuity))
        return
    able = "can" if continuity.newest_is_reachable else "cannot"
    colour = "yellow" if continuity.newest_is_reachable else "red"
    out.print(f"[{colour}]You {able} recover to the newest moment[/]; some moments before it are not recoverable.")
    if continuity.holes:
        out.print("If you still have the missing segments, archive them: [bold]tmi-ops wal push FILE[/]")
    if not continuity.newest_is_reachable:
        out.print("Take a base backup now: [bold]tmi-ops backup base[/]")


def _describe_whole(continuity: Continuity) -> str:
    """The range from the oldest base backup that reaches every moment after it."""
    from tmi_ops.postgres.wal_files import format_lsn

    going_on = [base for base in continuity.bases if not base.dropped]
    if not going_on:
        return "[green]No gap.[/] Each base backup restores to its own moment."
    since, newest = going_on[-1].base.consistent_at, max(base.newest for base in going_on)
    return (
        f"[green]No gap.[/] You can recover to any moment from {since:%Y-%m-%d %H:%M:%S} UTC (end of "
        f"{going_on[-1].base.backup_id}) to {format_lsn(newest)}, the end of the archive. To see whether the server is "
        "ahead of it: [bold]tmi-ops wal status[/]"
    )


def _checked(reading: Reading) -> str:
    if reading.contents:
        return f"{_counted(reading.contents, 'file')} read completely."
    sealed = (
        f" {_counted(reading.sealed, 'encrypted file')} checked by name and size only; --deep reads them."
        if reading.sealed
        else ""
    )
    links = _counted(len(reading.links), "link")
    headers = f" and {_counted(reading.headers, 'header')}" if reading.headers else ""
    return f"Names, sizes, {links}{headers} checked.{sealed}"


def _describe_gap(hole: Hole) -> str:
    from tmi_ops.postgres.wal_files import format_lsn

    return (
        f"{hole.names}: {_counted(hole.segments, 'segment')} missing, {format_lsn(hole.start)} to "
        f"{format_lsn(hole.end)} on timeline {hole.timeline}"
    )


def _timelines(continuity: Continuity) -> str:
    known = [str(timeline) for timeline in continuity.archive.timelines]
    return f"timeline {known[0]}" if len(known) == 1 else f"timelines {', '.join(known)}" if known else "no timeline"


def _segments(continuity: Continuity) -> int:
    archive = continuity.archive
    return sum(map(len, archive.segments.values())) + sum(map(len, archive.partials.values()))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _as_json(continuity: Continuity, reading: Reading) -> dict[str, Any]:
    from tmi_ops.postgres.wal_files import format_lsn

    def hole(item: Hole) -> dict[str, Any]:
        return {
            "timeline": item.timeline,
            "first": item.first.name,
            "last": item.last.name,
            "segments": item.segments,
            "from_lsn": format_lsn(item.start),
            "to_lsn": format_lsn(item.end),
        }

    def break_(item: Break) -> dict[str, Any]:
        return {"timeline": item.timeline, "lsn": format_lsn(item.lsn), "kind": item.kind}

    return {
        "system_identifier": continuity.archive.system_identifier,
        "timeline": continuity.timeline,
        "whole": continuity.whole,
        "newest_is_reachable": continuity.newest_is_reachable,
        "segments": _segments(continuity),
        "stored_bytes": continuity.archive.size,
        "checked": {
            "links": len(reading.links),
            "headers": reading.headers,
            "contents": reading.contents,
            "by_name_alone": reading.sealed,
        },
        "bases": [
            {
                "backup_id": base.base.backup_id,
                "consistent_at": base.base.consistent_at.isoformat(),
                "from_lsn": base.base.stop_lsn,
                "timeline": base.timeline,
                "reaches_lsn": format_lsn(base.reaches),
                "newest_lsn": format_lsn(base.newest),
                "broken": base.broken,
                "holes": [hole(item) for item in base.holes],
                "breaks": [break_(item) for item in base.breaks],
                "dropped_by_retention": base.dropped,
            }
            for base in continuity.bases
        ],
        "damaged": dict(continuity.damaged),
        "lost": list(continuity.lost),
        "living_lines": [
            {
                "timeline": tip.timeline,
                "lsn": format_lsn(tip.end),
                "newest_commit": tip.newest and tip.newest.isoformat(),
            }
            for tip in continuity.living
        ],
    }
