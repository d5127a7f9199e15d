"""Options that the rescue commands share: the past to restore."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tmi_ops.cli.environment import reporting
from tmi_ops.cli.moments import one_target, to_a_moment

if TYPE_CHECKING:
    from tmi_ops.rescue.past import Moment
    from tmi_ops.rescue.session import Sides
    from tmi_ops.settings import Settings
    from tmi_ops.store.objects import ObjectStore

Command = TypeVar("Command", bound=Callable[..., Any])


def of_a_past(command: Command) -> Command:
    """The past to compare with or restore from."""
    options = (
        to_a_moment(exclusive=True),
        click.option("--travel", is_flag=True, help="Use the past that `tmi-ops travel` holds open."),
        click.option(
            "--from-shadow",
            "shadow",
            is_flag=True,
            help="Start from a copy of this machine's shadow; without a moment, use its current state.",
        ),
        click.option("--backup", metavar="ID", help="Use this logical backup, or `latest`; needs no WAL."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def moment_of(
    to_time: datetime | None,
    to_lsn: int | None,
    to_name: str | None,
    *,
    exclusive: bool,
    backup: str | None,
    travel: bool = False,
    shadow: bool = False,
) -> Moment:
    """The requested past.

    Raises:
        UsageError: none or several were given.
    """
    from tmi_ops.rescue.past import Moment

    target = one_target(to_time, to_lsn, to_name, latest=False, exclusive=exclusive)
    if sum((target is not None or shadow, backup is not None, travel)) != 1:
        raise click.UsageError(
            "give one of --to-time, --to-lsn, --to-name, --travel, --from-shadow and --backup (`tmi-ops recover find` "
            "finds the moment)"
        )
    if exclusive and target is None:
        raise click.UsageError("--exclusive needs --to-time, --to-lsn or --to-name")
    if travel:
        from tmi_ops.rescue.travel.state import read_open_past
        from tmi_ops.settings import load_settings

        return Moment(read_open_past(load_settings()).wanted.target, open=True)
    return Moment(target, backup, shadow=shadow)


@contextmanager
def opened(settings: Settings, store: ObjectStore, wanted: Moment, *, quiet: bool) -> Iterator[tuple[Sides, str]]:
    """The past and the live database for the length of a `with` block, and a description of the past."""
    from tmi_ops.rescue.session import both_sides
    from tmi_ops.shadow.past import past_of

    with ExitStack() as stack:
        with reporting(quiet) as report:
            past = stack.enter_context(past_of(settings, store, wanted, report))
        sides = stack.enter_context(
            both_sides(past.address, settings.postgres, settings.pg_bindir, settings.profile.ties)
        )
        yield sides, past.text
