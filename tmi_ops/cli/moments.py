"""The options that name a moment of the past, the same for every command that has them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tmi_ops.cli.terminal import err

if TYPE_CHECKING:
    from tmi_ops.recovery.point_in_time.target import Target

Command = TypeVar("Command", bound=Callable[..., Any])


def moment(words: str) -> datetime:
    """A time as people write it; where it has no zone, it says which one it was given."""
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


def to_a_moment(*, latest: bool = False, exclusive: bool = False) -> Callable[[Command], Command]:
    """`--to-time`, `--to-lsn`, `--to-name`, and where they make sense `--latest` and `--exclusive`."""
    options = [
        click.option(
            "--to-time",
            type=moment,
            metavar="TIME",
            help="As it was then: '2026-11-24 03:44:13 UTC', '2h ago'. Without a zone it is local time.",
        ),
        click.option("--to-lsn", type=lsn, metavar="LSN", help="As it was at this place in the WAL: 0/3000148."),
        click.option("--to-name", metavar="NAME", help="As it was at this restore point."),
    ]
    if latest:
        options.append(click.option("--latest", is_flag=True, help="To the end of what is archived."))
    if exclusive:
        what = "Stop just before the target: without what was committed exactly then."
        options.append(click.option("--exclusive", is_flag=True, help=what))

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


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
        raise click.UsageError("give one of --to-time, --to-lsn, --to-name and --latest")
    if given == 0:
        return None
    if latest and exclusive:
        raise click.UsageError("--exclusive needs a target to stop before; --latest has none")
    return Target(time=to_time, lsn=to_lsn, name=to_name, inclusive=not exclusive)
