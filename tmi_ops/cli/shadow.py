"""`tmi-ops shadow ...`: continuous proof."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from tmi_ops.cli.environment import logs_in_for, open_environment, reporting
from tmi_ops.cli.recover_options import of_a_run, of_a_server, serve_wish
from tmi_ops.cli.recover_view import run_plan
from tmi_ops.cli.shadow_view import show_report
from tmi_ops.cli.terminal import err, out, time_words
from tmi_ops.cli.travel import duration
from tmi_ops.cli.wal_stream import stop_on_signals
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.shadow.report import KnownReport


@click.group()
def shadow() -> None:
    """A server that lives from the store alone and replays the archive as it grows: continuous proof."""


@shadow.command()
@click.option("--name", help="Name to report under. Default: this host's.")
@click.option("--delay", type=duration, metavar="DURATION", help="Replay each commit this long after it was made.")
@click.option("--port", type=click.IntRange(1, 65535), help="Accept read-only connections there, by password.")
@click.option("--listen", default="127.0.0.1", show_default=True, help="Addresses to accept them at; needs --port.")
@click.option("--allow", multiple=True, metavar="CIDR", help="Networks to accept them from, beside this host.")
@click.option("--cluster", metavar="SYSTEM_ID", help="Which cluster. Default: that of the newest base backup.")
@click.option(
    "--report-every",
    type=click.FloatRange(1, 3600),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="How often the report goes to the store.",
)
@click.option("--checks/--no-checks", default=True, help="Check pages, relations, schema and heartbeat in rounds.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def run(
    name: str | None,
    delay: timedelta | None,
    port: int | None,
    listen: str,
    allow: tuple[str, ...],
    cluster: str | None,
    report_every: float,
    checks: bool,
    quiet: bool,
) -> int:
    """Replay the archive as it grows, and report how far: a service.

    Restores the newest verified base backup below TMI_OPS_HOME, and follows the archive: each segment, and the open one
    as it grows. It never connects to the source. A hole, a splice or a damaged object stops it just before that place;
    `tmi-ops shadow status` names it, and so does `tmi-ops status`. It may be stopped and killed at any time, and moved
    to another machine; it goes on from the store. SIGTERM and Ctrl-C stop it cleanly.
    """
    from tmi_ops.shadow.life import ShadowOptions, run_shadow
    from tmi_ops.shadow.server import Listening

    if port is None and allow:
        raise click.UsageError("--allow needs --port")
    settings, store = open_environment()
    options = ShadowOptions(
        name=name,
        delay=delay or timedelta(0),
        listening=None if port is None else Listening(listen, port, allow),
        report_every=report_every,
        cluster=cluster,
        checks=checks,
    )
    stop = stop_on_signals()
    with reporting(quiet) as report:
        handed_over = run_shadow(settings, store, options, report, stop)
    if handed_over is None:
        out.print("The shadow is stopped. It goes on from here when it is run again.")
    else:
        out.print(f"The shadow was promoted to timeline {handed_over.timeline} and handed over; this process is done.")
    return 0


@shadow.command()
@click.option("--json", "as_json", is_flag=True, help="For programs: each report as JSON, one a line.")
def status(as_json: bool) -> int:
    """Show how far each shadow has replayed the archive, and what stops it.

    Exit codes: 0 all is well, 1 no shadow reports, or one is stopped, stale or has found something wrong, 2 could not.
    """
    from tmi_ops.shadow.reading import known_shadows

    settings, store = open_environment()
    reports = known_shadows(settings, store, lambda error: err.print(f"[yellow]Refused:[/] {escape(error.message)}"))
    if as_json:
        for known in reports:
            click.echo(known.report.model_dump_json())
    elif not reports:
        out.print("No shadow reports to this store. Next: [bold]tmi-ops shadow run[/]")
    else:
        for known in reports:
            show_report(settings, known)
    return 0 if reports and all(_is_well(known) for known in reports) else 1


@shadow.command()
@click.option("--quiet", is_flag=True, help="No progress bars.")
def drill(quiet: bool) -> int:
    """Practise the promotion on a copy, and measure it.

    The shadow's files are copied as they stand (shared blocks where the file system has reflinks), the copy is promoted
    and asked for its heartbeat chain, and removed. How long that took becomes the RTO forecast of `tmi-ops status`. The
    shadow pauses for the copy, and goes on.

    Exit codes: 0 done, 1 the copy is not sound, 2 could not.
    """
    from tmi_ops.checks.finding import Outcome
    from tmi_ops.shadow.practice import practise

    settings, _ = open_environment()
    with reporting(quiet) as report:
        practised = practise(settings, report)
    took = practised.practice
    out.print(f"Promoted in [bold]{time_words(took.promote_s)}[/]; had answered after {time_words(took.answered_s)}.")
    out.print(f"Heartbeat chain: {escape(practised.heartbeat.seen)}")
    return 1 if practised.heartbeat.outcome in (Outcome.WARNING, Outcome.CRITICAL) else 0


@logs_in_for(Purpose.RUNBOOK)
@shadow.command()
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="The new data directory, absent or empty.",
)
@of_a_server
@of_a_run
def promote(into: Path, cache: bool, yes: bool, plan_only: bool, quiet: bool, **server: Any) -> int:
    """Put this machine's shadow into service: a recovery in seconds.

    The same as `tmi-ops recover everything --from-shadow`: it replays all that is archived, is promoted, checked,
    configured and started in DIR; the application's role gets a password. See that the old server is down, or shut off
    from the application, first.

    Exit codes: 0 done, 2 could not; `tmi-ops recover resume` goes on, `tmi-ops recover back` goes back.
    """
    from tmi_ops.runbooks.everything.planning import EverythingWish, prepare_everything

    settings, store = open_environment(Purpose.RUNBOOK)
    wish = EverythingWish(
        into=into.absolute(),
        serve=serve_wish(server, default_port=settings.postgres.port),
        with_cache=cache,
        owner=server["owner"],
        from_shadow=True,
    )
    with reporting(quiet) as report:
        plan = prepare_everything(settings, store, wish, report)
    return run_plan(settings, store, plan, yes=yes, plan_only=plan_only, quiet=quiet)


def _is_well(known: KnownReport) -> bool:
    return known.report.state == "ended" or (not known.is_stale and known.report.is_sound)
