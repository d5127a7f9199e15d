"""Options that several commands have: one text for one option.

Options of a moment are in `moments`, of a recovery in `recover_options`, of a row rescue in `rescue_options`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from tmi_ops.cli.activity import ends_activity

Command = TypeVar("Command", bound=Callable[..., Any])
FILE = click.Path(path_type=Path, dir_okay=False)
DIRECTORY = click.Path(path_type=Path, file_okay=False)


class Decorator(Protocol):
    """What adds an option to a command."""

    def __call__(self, command: Command, /) -> Command: ...


class _WithHiddenAliases(click.Option):
    """An option whose help shows its first name only."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        shown = copy.copy(self)
        shown.opts = self.opts[:1]
        return click.Option.get_help_record(shown, ctx)


json_option = click.option("--json", "as_json", is_flag=True, callback=ends_activity, help="Print JSON, for scripts.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
quiet_option = click.option("--quiet", is_flag=True, callback=ends_activity, help="Do not show progress.")
dry_run_option = click.option(
    "--dry-run",
    "--plan",
    "dry_run",
    cls=_WithHiddenAliases,
    is_flag=True,
    help="Show what would be done and change nothing.",
)
strict_option = click.option("--strict", is_flag=True, help="Exit with 1 on warnings, too.")
backup_option = click.option(
    "--backup", metavar="ID", help="Backup to restore: its id, or a unique start of it. Default: the best one."
)
html_option = click.option("--html", type=FILE, help="Write the evidence as an HTML page to FILE.")
exact_bloat_option = click.option(
    "--exact-bloat", is_flag=True, help="Measure bloat with pgstattuple, which reads every block that it measures."
)
cache_option = click.option(
    "--cache/--no-cache", default=True, help="Reconcile the cache afterwards (default), or leave it as it is."
)
slot_option = click.option(
    "--slot", metavar="NAME", help="Name of the replication slot. Default: the slot of this environment."
)
candidates_option = click.option(
    "--candidates",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Number of restores to try at most.",
)
data_directory_option = click.option(
    "--into", type=DIRECTORY, required=True, metavar="DIR", help="New data directory; must be missing or empty."
)


def cluster_option(default: str = "that of the newest base backup") -> Decorator:
    """`--cluster`."""
    return click.option("--cluster", metavar="SYSTEM_ID", help=f"System identifier of the cluster. Default: {default}.")


def verbose_option(what: str) -> Decorator:
    """`--verbose`, which shows also this."""
    return click.option("--verbose", "-v", is_flag=True, help=f"Also show {what}.")


def rows_option(default: int) -> Decorator:
    """`--rows`."""
    return click.option(
        "--rows",
        type=click.IntRange(0),
        default=default,
        show_default=True,
        metavar="N",
        help="Number of rows to show of each table.",
    )


def all_of(*options: Decorator) -> Decorator:
    """Several options as one decorator, in the order in which help shows them."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
