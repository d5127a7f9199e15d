"""`tmi-ops wal gaps`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from tmi_ops.cli.environment import open_environment, reporting
from tmi_ops.cli.terminal import out, size_words

if TYPE_CHECKING:
    from tmi_ops.recovery.continuity.proof import BaseContinuity, Continuity
    from tmi_ops.recovery.continuity.reading import Reading
    from tmi_ops.wal.coverage import Hole

_MOST_SHOWN = 20


@click.command()
@click.option("--deep", is_flag=True, help="Read every segment whole and check its SHA-256, not its header alone.")
@click.option("--cluster", metavar="ID", help="System identifier; that of the newest base backup unless given.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def gaps(deep: bool, cluster: str | None, as_json: bool, quiet: bool) -> int:
    """Prove that the archived WAL goes on without a hole from each base backup to its newest LSN.

    Exit code 0: it does. 1: there is a hole, damaged WAL or an unusable base. 2: it could not be found out.
    """
    from tmi_ops.recovery.continuity.proof import prove_continuity
    from tmi_ops.recovery.continuity.reading import read_contents, read_headers
    from tmi_ops.recovery.point_in_time.facts import read_facts

    _, store = open_environment()
    with reporting(quiet or as_json) as report:
        facts = read_facts(store, cluster)
        reading = (read_contents if deep else read_headers)(store, facts.archive, report)
    continuity = prove_continuity(facts, reading.damaged)
    if as_json:
        click.echo(json.dumps(_as_json(continuity, reading), indent=2))
    else:
        _show(continuity, reading)
    return 0 if continuity.whole else 1


def _show(continuity: Continuity, reading: Reading) -> None:
    archive = continuity.archive
    out.print(
        f"Cluster {archive.system_identifier}: {_counted(_segments(continuity), 'segment')} of WAL on "
        f"{_timelines(continuity)}, {size_words(archive.size)} stored. {_looked_at(reading)}"
    )
    for base in continuity.bases[:_MOST_SHOWN]:
        _show_base(base)
    if len(continuity.bases) > _MOST_SHOWN:
        out.print(f"... and {len(continuity.bases) - _MOST_SHOWN} older ones; --json has all.")
    for hole in continuity.holes[:_MOST_SHOWN]:
        out.print(f"[red]Hole[/]     {_hole_words(hole)}")
    for name, why in list(continuity.damaged.items())[:_MOST_SHOWN]:
        out.print(f"[red]Damaged[/]  {name}: {why}", markup=True, highlight=False)
    for problem in continuity.lost:
        out.print(f"[red]Lost[/]     {problem}")
    _show_verdict(continuity)


def _show_base(base: BaseContinuity) -> None:
    from tmi_ops.postgres.wal_files import format_lsn

    mark = "[green]whole[/]" if base.whole else "[red]broken[/]" if base.broken else "[yellow]holes[/]"
    reach = f"reaches {format_lsn(base.reaches)}"
    if base.reaches < base.newest:
        reach = f"reaches only {format_lsn(base.reaches)} of {format_lsn(base.newest)}"
    out.print(
        f"{mark:<16} {base.base.backup_id}  from {base.base.stop_lsn} ({base.base.consistent_at:%Y-%m-%d %H:%M:%S} "
        f"UTC) {reach} on timeline {base.timeline}"
    )
    if base.broken:
        out.print(f"         {base.broken}")


def _show_verdict(continuity: Continuity) -> None:
    if continuity.whole:
        out.print("[green]No hole.[/] Every moment since the end of the oldest base backup can be recovered to.")
    elif continuity.newest_is_reachable:
        out.print(
            "[yellow]The newest moment can be recovered to[/], but not every moment before. If the missing segments "
            "are still somewhere, archive them: [bold]tmi-ops wal push FILE[/]"
        )
    else:
        out.print(
            "[red]The newest moment can not be recovered to.[/] If the missing segments are still somewhere, archive "
            "them: [bold]tmi-ops wal push FILE[/]. Else take a base backup now: [bold]tmi-ops backup base[/]"
        )


def _looked_at(reading: Reading) -> str:
    if reading.contents:
        return f"{_counted(reading.contents, 'file')} read whole."
    sealed = (
        f" {_counted(reading.sealed, 'encrypted one')} by name and size; --deep reads them." if reading.sealed else ""
    )
    return f"Names, sizes and {_counted(reading.headers, 'header')} checked.{sealed}"


def _hole_words(hole: Hole) -> str:
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

    return {
        "system_identifier": continuity.archive.system_identifier,
        "timeline": continuity.timeline,
        "whole": continuity.whole,
        "newest_is_reachable": continuity.newest_is_reachable,
        "segments": _segments(continuity),
        "stored_bytes": continuity.archive.size,
        "checked": {"headers": reading.headers, "contents": reading.contents, "by_name_alone": reading.sealed},
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
            }
            for base in continuity.bases
        ],
        "damaged": dict(continuity.damaged),
        "lost": list(continuity.lost),
    }
