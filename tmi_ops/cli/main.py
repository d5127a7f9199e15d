"""The command line: which module has which command, and how errors are shown.

A command's module is imported when the command is called, so that `tmi-ops --help` is fast.
"""

from __future__ import annotations

import difflib
import gc
import importlib
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import click

from tmi_ops import __version__
from tmi_ops.cli.activity import Activity
from tmi_ops.cli.printed_commands import carry
from tmi_ops.cli.started import note_start
from tmi_ops.cli.streams import protected_streams
from tmi_ops.cli.wrapping import echo_wrapped
from tmi_ops.error_codes import Code
from tmi_ops.errors import OpsError, SettingsError

INTERRUPTED = 130
ENVIRONMENT = "TMI_ENV"
_AGAIN_AFTER_S = 0.05
# Python looks for garbage after 700 new objects: in what reads long listings and manifests, a third of the CPU.
_GARBAGE = (50_000, 20, 100)
_INTERRUPTED = "Interrupted."
_NOT_CONFIRMED = "Not confirmed; nothing was changed."


@dataclass(frozen=True)
class LazyCommand:
    """The module of a command, and the line that `--help` shows without importing it."""

    module: str
    attribute: str
    summary: str


# In the order of `tmi-ops --help`.
SECTIONS: Mapping[str, Mapping[str, LazyCommand]] = {
    "Setup": {
        "init": LazyCommand("tmi_ops.cli.init", "init", "Set up backups, WAL archiving and drills for a database."),
        "uninit": LazyCommand("tmi_ops.cli.init", "uninit", "Remove tmi_ops from the server; backups stay."),
    },
    "Schema": {
        "migrate": LazyCommand("tmi_ops.cli.schema", "migrate", "Migrate the database's schema, online."),
        "check": LazyCommand("tmi_ops.cli.schema", "check", "Compare the database with the schema TMI needs."),
    },
    "Backup": {
        "backup": LazyCommand("tmi_ops.cli.backup", "backup", "Take a base or logical backup."),
        "wal": LazyCommand("tmi_ops.cli.wal", "wal", "Archive WAL, for recovery to any moment."),
        "heartbeat": LazyCommand("tmi_ops.cli.heartbeat", "heartbeat", "Write heartbeats, which drills check."),
        "restore-point": LazyCommand("tmi_ops.cli.restore_point", "restore_point", "Create a named restore point."),
        "backups": LazyCommand("tmi_ops.cli.backup", "backups", "List the backups and whether they are verified."),
        "catalogue": LazyCommand("tmi_ops.cli.catalogue", "catalogue", "Rebuild the catalogue of backups."),
        "prune": LazyCommand("tmi_ops.cli.prune", "prune", "Remove backups and WAL by the retention policy."),
        "hold": LazyCommand("tmi_ops.cli.holds", "hold", "Keep a backup, whatever the retention policy says."),
        "release": LazyCommand("tmi_ops.cli.holds", "release", "Remove the hold on a backup."),
        "holds": LazyCommand("tmi_ops.cli.holds", "holds", "List the backups on hold."),
    },
    "Recovery": {
        "verify": LazyCommand("tmi_ops.cli.recovery", "verify", "Verify a backup by restoring it."),
        "restore": LazyCommand(
            "tmi_ops.cli.recovery", "restore", "Restore a database, or a cluster to a point in time."
        ),
        "recover": LazyCommand("tmi_ops.cli.recover", "recover", "Run a recovery runbook."),
        "shadow": LazyCommand("tmi_ops.cli.shadow", "shadow", "Verify the archive continuously by replaying it."),
        "travel": LazyCommand("tmi_ops.cli.travel", "travel", "Open the cluster as it was at a moment, read-only."),
        "drill": LazyCommand("tmi_ops.cli.drill", "drill", "Run a recovery drill and keep the evidence."),
        "drills": LazyCommand("tmi_ops.cli.drill", "drills", "List the drills, or show the evidence of one."),
    },
    "Objectives": {
        "status": LazyCommand("tmi_ops.cli.status", "status", "Show RPO, RTO and the recovery window."),
        "metrics": LazyCommand("tmi_ops.cli.metrics", "metrics", "Export the status as Prometheus metrics."),
    },
    "Health": {
        "doctor": LazyCommand("tmi_ops.cli.doctor", "doctor", "Find what is broken in the setup, and how to fix it."),
        "health": LazyCommand("tmi_ops.cli.health", "health", "Check the health of the database."),
        "maintain": LazyCommand("tmi_ops.cli.maintenance", "maintain", "Run the maintenance that health advises."),
    },
    "Alerts": {
        "alerts": LazyCommand("tmi_ops.cli.alerts", "alerts", "List the open alerts, and who was notified."),
        "alert": LazyCommand("tmi_ops.cli.alerts", "alert", "Test the alert channels, or resolve an alert."),
    },
    "Cache": {
        "cache": LazyCommand("tmi_ops.cli.cache", "cache", "Check Redis, or reconcile it after a recovery."),
    },
    "Access control": {
        "roles": LazyCommand("tmi_ops.cli.roles", "roles", "Plan, apply and check the database roles."),
    },
    "Embedded stack": {
        "up": LazyCommand("tmi_ops.cli.stack", "up", "Start the stack: PostgreSQL, S3, Valkey, Dagster."),
        "down": LazyCommand("tmi_ops.cli.stack", "down", "Stop the stack and keep its data."),
        "stack": LazyCommand("tmi_ops.cli.stack", "stack", "Show the stack's status, or reset it."),
        "demo": LazyCommand("tmi_ops.cli.demo", "demo", "Run backup, verification and recovery on the stack."),
    },
    "Configuration": {
        "settings": LazyCommand("tmi_ops.cli.settings", "settings", "Show the settings, without secrets."),
        "keys": LazyCommand("tmi_ops.cli.keys", "keys", "Create, show and rotate encryption and signing keys."),
    },
}
_COMMANDS = {name: command for section in SECTIONS.values() for name, command in section.items()}


class LazyGroup(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = _COMMANDS.get(cmd_name)
        if lazy is None:
            return None
        command: click.Command = getattr(importlib.import_module(lazy.module), lazy.attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in _COMMANDS or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        near = difflib.get_close_matches(name, _COMMANDS, n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise click.UsageError(f"No such command: {name!r}.{hint}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name, lazy.summary) for name, lazy in commands.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tmi-ops")
@click.option(
    "-e",
    "--environment",
    metavar="NAME",
    help="Environment (production), or another database of its cluster (production/billing). Default: TMI_ENV.",
)
@click.pass_context
def tmi_ops(context: click.Context, environment: str | None) -> None:
    """Keep TMI's PostgreSQL database recoverable, and verify it.

    Settings are read from environment variables, .env files and tmi-ops.toml; `tmi-ops settings` shows them.
    """
    note_start(context)
    if environment is not None:
        _choose(context, environment)
    carry(environment or _chosen_of_several())
    for warning in _warnings():
        echo_wrapped(f"warning: {warning}", fg="yellow")


def _choose(context: click.Context, name: str) -> None:
    """Set TMI_ENV for this command and the programs that it starts."""
    before = os.environ.get(ENVIRONMENT)
    os.environ[ENVIRONMENT] = name

    def restore() -> None:
        if before is None:
            os.environ.pop(ENVIRONMENT, None)
        else:
            os.environ[ENVIRONMENT] = before

    context.call_on_close(restore)


def _chosen_of_several() -> str | None:
    """The environment that TMI_ENV names, if tmi-ops.toml has several: a printed command must work without TMI_ENV."""
    chosen = os.environ.get(ENVIRONMENT, "").strip()
    if not chosen:
        return None
    from tmi_ops.settings import find_fleet
    from tmi_ops.settings.sources import process_variables

    try:
        fleet = find_fleet(process_variables(None), Path.cwd())
    except SettingsError:  # The command says it.
        return None
    return chosen if fleet is not None and len(fleet.members) > 1 else None


def _warnings() -> list[str]:
    """One for each variable that is set but not read."""
    from tmi_ops.settings.names import unread_names
    from tmi_ops.settings.reading import unused_variables
    from tmi_ops.settings.sources import env_files, process_variables

    environ = process_variables(None)
    try:
        files = env_files(Path.cwd(), environ.get(ENVIRONMENT, "development").strip())
        unused = unused_variables()
    except SettingsError:  # The command says it.
        files, unused = {}, ""
    return [*(unread.describe() for unread in unread_names({*environ, *files})), *([unused] if unused else [])]


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point. Exit codes: 0 success, 1 findings or a failed verification, 2 error, 130 interrupted."""
    gc.set_threshold(*_GARBAGE)
    signal.signal(signal.SIGTERM, _as_interrupt)
    sys.unraisablehook = stop_again
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, _as_interrupt)
    with Activity(sys.stderr) as activity, protected_streams(activity.make_way):
        code = _run(argv, activity)
    sys.exit(code)


def _run(argv: Sequence[str] | None, activity: Activity) -> int:
    try:
        code = tmi_ops.main(args=argv, standalone_mode=False, obj=activity)
    except OpsError as error:
        _show_error(error)
        return error.exit_code
    except click.ClickException as error:
        _show_usage(error)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as stop:
        click.echo(_NOT_CONFIRMED if _was_a_no(stop) else _INTERRUPTED, err=True)
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _was_a_no(stop: BaseException) -> bool:
    """Whether a question was answered with no: click raises Abort for Ctrl-C, too, with KeyboardInterrupt as cause."""
    return isinstance(stop, click.Abort) and not isinstance(stop.__cause__, KeyboardInterrupt)


def _as_interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Make SIGTERM and SIGHUP clean up as Ctrl-C does."""
    raise KeyboardInterrupt


def stop_again(lost: sys.UnraisableHookArgs) -> None:
    """Repeat a signal that arrived where Python drops exceptions (a destructor, a callback of C code)."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        again = threading.Timer(_AGAIN_AFTER_S, os.kill, (os.getpid(), signal.SIGTERM))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(lost)


def _show_usage(error: click.ClickException) -> None:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
        click.echo(f"Try `{error.ctx.command_path} --help`.\n", err=True)
    echo_wrapped(f"ERROR: [{Code.USAGE}] {error.format_message()}", hang=7, fg="red", bold=True)


def _show_error(error: OpsError) -> None:
    happened, *rest = error.lines
    echo_wrapped(happened, hang=7, fg="red", bold=True)
    for line in rest:
        echo_wrapped(line, hang=line.index(" ") + 1)


if __name__ == "__main__":
    main()
