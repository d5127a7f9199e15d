"""`tmi-ops restore --to-time | --to-lsn | --to-name | --latest`: restore a cluster to a point in time."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from tmi_ops.cli.environment import libraries_of_copies, open_environment, reporting
from tmi_ops.cli.terminal import format_age, format_duration, format_size, out

if TYPE_CHECKING:
    from tmi_ops.recovery.point_in_time.destination import Destination
    from tmi_ops.recovery.point_in_time.execution import Recovered
    from tmi_ops.recovery.point_in_time.planning import RecoveryPlan
    from tmi_ops.recovery.point_in_time.target import Target
    from tmi_ops.settings import Settings


@dataclass(frozen=True)
class PointInTime:
    """What was asked for on the command line."""

    target: Target
    into: Path | None
    tablespaces: dict[str, Path]
    backup: str | None
    timeline: int | None
    cluster: str | None
    pause: bool
    keep_settings: bool
    dry_run: bool
    quiet: bool


def tablespace_mapping(words: str) -> tuple[str, Path]:
    """`OLD=NEW`, both absolute; `\\=` is an equals sign in a name."""
    parts = [part.replace("\\=", "=") for part in re.split(r"(?<!\\)=", words)]
    if len(parts) != 2 or not all(part.startswith("/") for part in parts):
        raise click.BadParameter(f"{words!r} is not OLD=NEW with two absolute paths.")
    return parts[0], Path(parts[1])


def restore_point_in_time(wanted: PointInTime) -> int:
    """Plan, show the plan, execute it, and show the result and the next steps."""
    from tmi_ops.postgres.programs import server_programs
    from tmi_ops.recovery.point_in_time.confirmed import confirmed_plan
    from tmi_ops.recovery.point_in_time.destination import Destination, disk_needed, require_vacant
    from tmi_ops.recovery.point_in_time.execution import execute_recovery
    from tmi_ops.recovery.point_in_time.facts import read_facts

    begun = time.monotonic()
    settings, store = open_environment()
    destination = Destination(wanted.into or _usual_place(settings), wanted.tablespaces)
    with reporting(wanted.quiet) as report:
        facts = read_facts(store, wanted.cluster)
        programs = server_programs(facts.server_major, settings.pg_bindir, settings.copy_libraries)
        plan = confirmed_plan(
            store,
            facts,
            wanted.target,
            programs,
            settings.home / "scratch",
            report,
            timeline=wanted.timeline,
            base=wanted.backup,
        )
    planned = time.monotonic() - begun
    require_vacant(plan, destination)
    _show_plan(plan, destination, sum(disk_needed(plan, destination, store).values()), pause=wanted.pause)
    if loaded := libraries_of_copies(settings):
        out.print(loaded)
    if wanted.dry_run:
        return 0
    with reporting(wanted.quiet) as report:
        recovered = execute_recovery(
            settings,
            store,
            plan,
            destination,
            report,
            finish="pause" if wanted.pause else "promote",
            keep_settings=wanted.keep_settings,
        )
    _show_recovered(recovered, planned, programs.path("pg_ctl"))
    return 0


def _usual_place(settings: Settings) -> Path:
    return settings.home / "restored" / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def _show_plan(plan: RecoveryPlan, destination: Destination, needed: int, *, pause: bool) -> None:
    from tmi_ops.postgres.wal_files import format_lsn

    base = plan.base
    out.print(
        f"Restore the whole cluster {base.system_identifier} (PostgreSQL {base.server_version}) to "
        f"[bold]{escape(_describe_target(plan))}[/], into [bold]{escape(str(destination.directory))}[/]:"
    )
    steps = [
        f"fetch {_describe_chain(plan)}: {format_size(plan.fetched_size)} in the store",
        f"{'combine them and compare' if len(plan.chain) > 1 else 'compare'} every file with the manifest",
        f"replay up to {format_size(plan.wal.size)} of WAL from {base.start_lsn} on timeline "
        f"{' to '.join(str(one) for one in plan.line.timelines if one >= base.timeline)}"
        + (f", to its end at {format_lsn(plan.wal.end)}" if plan.to_the_end else ""),
        "check that the target was reached, then "
        + ("stay there, read-only" if pause else "promote to a new timeline"),
    ]
    for number, step in enumerate(steps, 1):
        out.print(f"  {number}. {step}")
    places = destination.places(base)
    for item in base.tablespaces:
        stays = item.oid not in places
        where = "is restored inside the data directory" if stays else f"is restored to {escape(str(places[item.oid]))}"
        out.print(f"  Tablespace {item.oid} (at the source: {escape(item.location)}) {where}.")
    for old in sorted(destination.created_later(base)):
        out.print(f"  Replay may create a tablespace at {escape(old)}.")
    out.print(f"Needs {format_size(needed)} of disk space. Does not touch any running server or anything in the store.")
    for note in plan.notes:
        out.print(f"[yellow]Note:[/] {escape(note)}")


def _describe_target(plan: RecoveryPlan) -> str:
    from tmi_ops.postgres.wal_files import format_lsn

    target = plan.target
    if target.time is not None:
        local = target.time.astimezone()
        here = "" if local.utcoffset() == UTC.utcoffset(None) else f", {local:%H:%M:%S %Z} local time"
        return f"{target.describe()} ({format_age(target.time)}{here})"
    if target.name is not None and plan.stop_lsn is not None:
        return f"{target.describe()} (LSN {format_lsn(plan.stop_lsn)})"
    return target.describe()


def _describe_chain(plan: RecoveryPlan) -> str:
    base, full = plan.base, plan.chain[0]
    words = f"base backup {full.backup_id}"
    if len(plan.chain) > 1:
        words += f" and {_count(len(plan.chain) - 1, 'incremental')} on it, up to {base.backup_id}"
    return f"{words} ({format_age(base.consistent_at)})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _show_recovered(recovered: Recovered, planned: float, pg_ctl: Path) -> None:
    from tmi_ops.postgres.wal_files import format_lsn
    from tmi_ops.recovery.point_in_time.execution import PLAN
    from tmi_ops.recovery.point_in_time.target import format_time

    committed = format_time(recovered.last_commit_at) if recovered.last_commit_at else "that of the base backup"
    out.print(
        f"[green]Restored[/] [bold]{escape(str(recovered.directory))}[/] to LSN {format_lsn(recovered.lsn)} "
        f"on timeline {recovered.timeline}. Last committed transaction: {committed}."
    )
    if recovered.stopped:
        out.print(f"The target was reached: the server stopped {escape(recovered.stopped)}.")
    else:
        out.print(f"All archived WAL was replayed; the archive ends at {format_lsn(recovered.lsn)}.")
    for note in recovered.notes:
        out.print(f"[yellow]Note:[/] {escape(note)}")
    table = Table(show_header=False, box=None, padding=(0, 2))
    phases = {PLAN: planned, **recovered.phases}
    for phase, seconds in phases.items():
        table.add_row(phase, format_duration(seconds))
    table.add_row("[bold]total[/]", f"[bold]{format_duration(sum(phases.values()))}[/]")
    out.print(table)
    for line in (*_describe_set_aside(recovered), *_way_on(recovered, pg_ctl)):
        out.print(escape(line), soft_wrap=True)


def _describe_set_aside(recovered: Recovered) -> Iterator[str]:
    from tmi_ops.recovery.point_in_time.restored_settings import SET_ASIDE_CONF

    if recovered.set_aside:
        yield (
            "Settings overridden in postgresql.auto.conf, so that the copy starts, does not wait for standbys and does "
            "not archive:"
        )
        yield from (f"  {one.describe()}" for one in recovered.set_aside)
        if any(one.before for one in recovered.set_aside):
            yield f"The source's values: {recovered.directory / SET_ASIDE_CONF}"
    if recovered.amiss:
        yield f"It will not start yet: {recovered.amiss}"


def _way_on(recovered: Recovered, pg_ctl: Path) -> Sequence[str]:
    directory = recovered.directory
    lines = [
        "Before you start it: all other settings are the source's. Check listen_addresses and port in "
        f"{directory / 'postgresql.conf'} and {directory / 'postgresql.auto.conf'}, and pg_hba.conf."
    ]
    if not (directory / "postgresql.conf").exists():
        lines = [
            "The source keeps postgresql.conf outside the data directory (Debian: /etc/postgresql). Copy it, "
            f"pg_hba.conf and pg_ident.conf to {directory}, and check listen_addresses, port and data_directory."
        ]
    lines.append(f"Start it as {directory.owner()}:  {pg_ctl} --pgdata={directory} start")
    if not recovered.promoted:
        lines.append(
            "It starts read-only at its target and stays there. To promote it:  SELECT pg_promote();  then  "
            "ALTER SYSTEM RESET  for each recovery_target setting."
        )
    lines.append(
        "Before the application uses it: delete the cache keys cache:* and tmi:settings:* (never blacklist:token:*), "
        "start `tmi-ops wal stream` for it, and take a base backup: `tmi-ops backup base`."
    )
    return lines
