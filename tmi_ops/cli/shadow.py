"""`tmi-ops shadow ...`: continuous verification."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from tmi_ops.cli.environment import logs_in_for, open_environment, reporting
from tmi_ops.cli.options import cluster_option, data_directory_option, json_option, quiet_option
from tmi_ops.cli.recover_options import of_a_run, of_a_server, serve_request
from tmi_ops.cli.recover_view import run_plan
from tmi_ops.cli.shadow_view import show_report
from tmi_ops.cli.terminal import err, format_duration, out
from tmi_ops.cli.travel import duration
from tmi_ops.cli.wal_stream import stop_on_signals
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.shadow.report import KnownReport


@click.group()
def shadow() -> None:
    """Verify the archive continuously: a server that replays it as it grows, from the store alone."""


@shadow.command()
@click.option("--name", metavar="NAME", help="Name in reports. Default: the host name.")
@click.option("--delay", type=duration, metavar="DURATION", help="Replay each commit with this delay.")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Accept read-only connections with a password on this port."
)
@click.option(
    "--listen",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESSES",
    help="Addresses to listen on; needs --port.",
)
@click.option("--allow", multiple=True, metavar="CIDR", help="Accept connections from this network, too; repeatable.")
@cluster_option()
@click.option(
    "--report-every",
    type=click.FloatRange(1, 3600),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to write the report to the store.",
)
@click.option(
    "--checks/--no-checks", default=True, help="Check pages, relations, schema and heartbeat repeatedly (default)."
)
@quiet_option
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
    """Replay the archive as it grows and report how far. Run it as a service.

    Restores the newest verified base backup into TMI_OPS_HOME and replays each archived segment, and the incomplete one
    as it grows. Never connects to the source. Stops before a gap, a splice or a damaged object, which `tmi-ops shadow
    status` and `tmi-ops status` then show. You can stop or kill it at any time, or move it to another machine: it
    continues from the store. SIGTERM and Ctrl-C stop it cleanly.
    """
    from tmi_ops.shadow.life import ShadowOptions, run_shadow
    from tmi_ops.shadow.server import Listening

    if port is None and allow:
        raise click.UsageError("--allow needs --port.")
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
        out.print("The shadow is stopped. It continues from here when it runs again.")
    else:
        out.print(f"The shadow was promoted to timeline {handed_over.timeline}; this process has ended.")
    return 0


@shadow.command()
@json_option
def status(as_json: bool) -> int:
    """Show how far each shadow has replayed the archive, and what stopped it.

    --json prints one report per line. Exit codes: 0 all is well, 1 there is no report, or a shadow is stopped, stale or
    has found an error, 2 error.
    """
    from tmi_ops.shadow.reading import known_shadows

    settings, store = open_environment()
    reports = known_shadows(settings, store, lambda error: err.print(f"[yellow]Refused:[/] {escape(error.message)}"))
    if as_json:
        for known in reports:
            click.echo(known.report.model_dump_json())
    elif not reports:
        out.print("No shadow has reported to this store. Next: [bold]tmi-ops shadow run[/]")
    else:
        for known in reports:
            show_report(settings, known)
    return 0 if reports and all(_is_well(known) for known in reports) else 1


@shadow.command()
@quiet_option
def drill(quiet: bool) -> int:
    """Practise the promotion of the shadow on a copy, and measure it.

    Copies the shadow's files (sharing blocks if the file system has reflinks), promotes the copy, checks its heartbeat
    chain and removes it. The time it took becomes the RTO forecast of `tmi-ops status`. The shadow pauses while it is
    copied.

    Exit codes: 0 done, 1 the copy is not sound, 2 error.
    """
    from tmi_ops.checks.finding import Outcome
    from tmi_ops.shadow.practice import practise

    settings, _ = open_environment()
    with reporting(quiet) as report:
        practised = practise(settings, report)
    took = practised.practice
    out.print(
        f"Promoted in [bold]{format_duration(took.promote_s)}[/]; first query after {format_duration(took.answered_s)}."
    )
    out.print(f"Heartbeat chain: {escape(practised.heartbeat.seen)}")
    return 1 if practised.heartbeat.outcome in (Outcome.WARNING, Outcome.CRITICAL) else 0


@logs_in_for(Purpose.RUNBOOK)
@shadow.command()
@data_directory_option
@of_a_server
@of_a_run
def promote(into: Path, cache: bool, yes: bool, dry_run: bool, quiet: bool, **server: Any) -> int:
    """Put this machine's shadow into service. Takes seconds.

    The same as `tmi-ops recover everything --from-shadow`: replays the archive to its end, promotes, checks and
    configures the shadow, starts it in DIR, and sets a password for the application's role. First make sure that the
    old server is down or that the application cannot reach it. `tmi-ops recover resume` resumes a stopped run,
    `tmi-ops recover back` undoes it.

    Exit codes: 0 done, 2 error.
    """
    from tmi_ops.runbooks.everything.planning import EverythingRequest, prepare_everything

    settings, store = open_environment(Purpose.RUNBOOK)
    request = EverythingRequest(
        into=into.absolute(),
        serve=serve_request(server, default_port=settings.postgres.port),
        with_cache=cache,
        owner=server["owner"],
        from_shadow=True,
    )
    with reporting(quiet) as report:
        plan = prepare_everything(settings, store, request, report)
    return run_plan(settings, store, plan, yes=yes, dry_run=dry_run, quiet=quiet)


def _is_well(known: KnownReport) -> bool:
    return known.report.state == "ended" or (not known.is_stale and known.report.is_sound)
