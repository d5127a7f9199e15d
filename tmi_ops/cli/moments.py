"""The options that name a target: a moment, an LSN or a restore point."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from tmi_ops.cli.options import Decorator, all_of
from tmi_ops.cli.terminal import err

if TYPE_CHECKING:
    from tmi_ops.recovery.point_in_time.target import Target


def moment(words: str) -> datetime:
    """Parse a time. Prints the zone that was assumed if it has none."""
    from tmi_ops.settings.moments import read_moment

    try:
        found = read_moment(words)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if found.zone:
        err.print(f"{words} was read in {found.zone}: {found.at:%Y-%m-%d %H:%M:%S UTC}.", markup=False)
    return found.at


def lsn(words: str) -> int:
    """An LSN as PostgreSQL writes it."""
    from tmi_ops.errors import OpsError
    from tmi_ops.postgres.wal_files import parse_lsn

    try:
        return parse_lsn(words)
    except OpsError as error:
        raise click.BadParameter(f"{error.message} {error.hint}.") from None


def to_a_moment(*, latest: bool = False, exclusive: bool = False) -> Decorator:
    """`--to-time`, `--to-lsn`, `--to-name`, and optionally `--latest` and `--exclusive`."""
    options = [
        click.option(
            "--to-time",
            type=moment,
            metavar="TIME",
            help="Time to recover to: '2026-11-24 03:44:13 UTC', '2h ago'. Local time unless it names a zone.",
        ),
        click.option("--to-lsn", type=lsn, metavar="LSN", help="LSN to recover to, such as 0/3000148."),
        click.option("--to-name", metavar="NAME", help="Name of the restore point to recover to."),
    ]
    if latest:
        options.append(click.option("--latest", is_flag=True, help="Recover to the end of the archived WAL."))
    if exclusive:
        what = "Stop just before the target: leave out what was committed exactly at it."
        options.append(click.option("--exclusive", is_flag=True, help=what))
    return all_of(*options)


def one_target(
    to_time: datetime | None, to_lsn: int | None, to_name: str | None, *, latest: bool, exclusive: bool
) -> Target | None:
    """The target that was asked for; None when none was.

    Raises:
        UsageError: more than one was.
    """
    from tmi_ops.recovery.point_in_time.target import Target

    given = sum((to_time is not None, to_lsn is not None, to_name is not None, latest))
    if given > 1:
        raise click.UsageError("Give only one of --to-time, --to-lsn, --to-name and --latest.")
    if given == 0:
        return None
    if latest and exclusive:
        raise click.UsageError("--exclusive cannot be used with --latest.")
    return Target(time=to_time, lsn=to_lsn, name=to_name, inclusive=not exclusive)
