"""`tmi-ops travel`: keep a past open, read-only, and move it forward or back."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from tmi_ops.cli.environment import logs_in_for, open_environment, reporting
from tmi_ops.cli.moments import one_target, to_a_moment
from tmi_ops.cli.options import quiet_option
from tmi_ops.cli.terminal import TerminalReport, err, format_duration, out
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.recovery.point_in_time.target import Target
    from tmi_ops.rescue.travel.state import OpenPast, Wanted
    from tmi_ops.settings import Settings

LOOK_EVERY_S = 0.3
# A move takes as long as replaying the WAL in between.
MOVED_WITHIN_S = 3600.0


def duration(words: str) -> timedelta:
    """`5m`, `1h 30m`."""
    from tmi_ops.settings import parse_duration

    try:
        found = parse_duration(words)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if found <= timedelta(0):
        raise click.BadParameter("it must be longer than zero")
    return found


@logs_in_for(Purpose.RUNBOOK)
@click.command()
@to_a_moment(exclusive=True)
@click.option(
    "--ttl", type=duration, metavar="DURATION", default="1h", show_default=True, help="Close it after this time."
)
@click.option("--forward", type=duration, metavar="DURATION", help="Move the open past forward by this much.")
@click.option("--back", type=duration, metavar="DURATION", help="Move the open past back by this much.")
@click.option("--end", is_flag=True, help="Close the open past.")
@quiet_option
def travel(
    to_time: datetime | None,
    to_lsn: int | None,
    to_name: str | None,
    exclusive: bool,
    ttl: timedelta,
    forward: timedelta | None,
    back: timedelta | None,
    end: bool,
    quiet: bool,
) -> int:
    """Open the cluster as of a past moment, read-only, for psql and other clients.

    With a moment, the past is restored on this machine and kept open until Ctrl-C, --end or --ttl; then all its files
    are removed. Only your own account can connect. From another terminal, --forward replays more WAL without restoring
    again, and --back starts again from a copy of the files; a moment does whichever is needed. Without options, the
    open past is shown. `tmi-ops recover diff --travel` and `rows --travel` compare with it.

    Exit codes: 0 done, 2 failed.
    """
    from tmi_ops.rescue.travel.state import is_open

    target = one_target(to_time, to_lsn, to_name, latest=False, exclusive=exclusive)
    if sum(map(bool, (target, forward, back, end))) > 1:
        raise click.UsageError("give one of a moment, --forward, --back and --end")
    settings, store = open_environment(Purpose.RUNBOOK)
    if target is not None and not is_open(settings):
        from tmi_ops.rescue.travel.open_past import travel as hold_open

        is_there = False

        def opened(open_past: OpenPast) -> None:
            nonlocal is_there
            is_there = True
            _show(open_past, report)

        with reporting(quiet) as report:
            try:
                hold_open(settings, store, target, ttl, report, opened)
            except KeyboardInterrupt:
                if not is_there:
                    raise
        out.print("The past is closed and its files are removed.")
        return 0
    return _of_the_open_one(settings, target, forward, back, end=end)


def _of_the_open_one(
    settings: Settings, target: Target | None, forward: timedelta | None, back: timedelta | None, *, end: bool
) -> int:
    from tmi_ops.errors import RecoveryError
    from tmi_ops.rescue.travel.state import Wanted, ask, read_open_past

    open_past = read_open_past(settings)
    if end:
        ask(settings, None)
        out.print("The past is being closed.")
        return 0
    step = forward or (-back if back else None)
    if step is not None:
        from tmi_ops.recovery.point_in_time.target import Target

        if open_past.moment is None:
            raise RecoveryError(
                "The time of the open past is not known, so it cannot be moved by a duration.",
                hint="name the moment: --to-time",
            )
        target = Target(time=open_past.moment + step)
        if open_past.moment + step > datetime.now(UTC):
            raise click.UsageError("that moment is in the future")
    if target is None:
        _show(open_past, None)
        return 0
    wanted = Wanted.of(target)
    ask(settings, wanted)
    moved = _awaited(settings, wanted)
    if moved.refused[0]:
        raise RecoveryError(moved.refused[0], detail="The past was not moved.", hint=moved.refused[1])
    _show(moved, None)
    return 0


def _awaited(settings: Settings, wanted: Wanted) -> OpenPast:
    from tmi_ops.errors import RecoveryError
    from tmi_ops.rescue.travel.state import read_open_past

    deadline = time.monotonic() + MOVED_WITHIN_S
    while time.monotonic() < deadline:
        open_past = read_open_past(settings)
        if open_past.answered == wanted.number and not open_past.moving:
            return open_past
        time.sleep(LOOK_EVERY_S)
    raise RecoveryError("The past is still moving.", hint="see where it is: `tmi-ops travel`", transient=True)


def _show(open_past: OpenPast, report: TerminalReport | None) -> None:
    left = format_duration(max(0.0, (open_past.expires_at - datetime.now(UTC)).total_seconds()))
    target = open_past.wanted.target
    where = target.describe() if target.inclusive else f"just before {target.describe()}"
    stands = f"{open_past.stands_at:%Y-%m-%d %H:%M:%S %Z}" if open_past.stands_at else "none since its base backup"
    if report is not None:
        with report.paused():
            _lines(open_past, where, stands, left)
        err.print("Ctrl-C closes it. In another terminal: tmi-ops travel --forward 5m, --back 5m, --end")
    else:
        _lines(open_past, where, stands, left)


def _lines(open_past: OpenPast, where: str, stands: str, left: str) -> None:
    out.print(f"Open, read-only: [bold]{escape(where)}[/]; last transaction {stands}; closes in {left}.")
    out.print(f"psql '{escape(open_past.connection_string)}'", soft_wrap=True)
    if not open_past.twin:
        out.print("[yellow]Note:[/] it cannot be moved back: no second copy of its files could be kept.")
