"""`tmi-ops demo`: backup, verification and recovery on the embedded stack."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
from rich.table import Table

from tmi_ops.cli.environment import reporting
from tmi_ops.cli.printed_commands import NAME, program_name
from tmi_ops.cli.terminal import format_duration, format_size, out
from tmi_ops.error_codes import Code
from tmi_ops.errors import OpsError, StackError
from tmi_ops.progress import Report

if TYPE_CHECKING:
    from tmi_ops.recovery.verify import VerifyResult
    from tmi_ops.settings import Settings
    from tmi_ops.stack.accident import Accident
    from tmi_ops.store.manifest import Manifest

MAIN_JOB = "protect"
# They give status and the UI a measured RTO and numbers to plot.
MEASURING_JOBS = ("recovery_drill", "objectives")
MEGABYTE = 1_000_000
OTHER_BACKUP_S = 300.0


@click.command()
@click.option("--size", default=100, show_default=True, type=click.IntRange(1), help="Size of the data set in MB.")
@click.option("--seed", default=1, show_default=True, help="Seed of the data set; the same seed gives the same data.")
def demo(size: int, seed: int) -> int:
    """Run backup, verification and recovery on the embedded stack.

    Starts the stack, migrates the schema, fills it with realistic data, takes a backup and verifies it by a restore;
    then does the same as a Dagster run. Then it takes a base backup, streams WAL, drops a table under load and recovers
    to the second before; finally it runs a drill, which measures how long a recovery takes. The stack keeps running
    afterwards; `tmi-ops down` stops it.

    Exit codes: 0 the backup was verified and the rows were recovered, 1 not, 2 error.
    """
    started = time.monotonic()
    _refuse_elsewhere()
    with reporting() as report:
        ui_url = _start_stack(report)
        settings = _stack_settings()
        _prepare_database(settings, report, size * MEGABYTE, seed)
        manifest, result = _back_up_and_verify(settings, report)
        run = _run_job(ui_url, MAIN_JOB, report)
        accident = _play_accident(settings, report)
        for job in MEASURING_JOBS:
            _run_job(ui_url, job, report)
    _show(settings, manifest, result, f"{ui_url}/runs/{run}", ui_url, accident, time.monotonic() - started)
    return 0 if result.verification.passed and accident.is_undone else 1


def _refuse_elsewhere() -> None:
    """The demo writes rows, so it runs on the embedded stack only, which belongs to development."""
    from tmi_ops.settings import environment_name

    environment = environment_name()
    if environment != "development":
        raise OpsError(
            f"The demo runs in development only, and TMI_ENV is {environment}.",
            hint="run `tmi-ops -e development demo` in an empty directory",
            code=Code.NOT_IN_ENVIRONMENT,
        )
    _stack_or_nothing()


def _stack_or_nothing() -> None:
    from tmi_ops.settings import load_settings, read_variables

    given = sorted(name for name in read_variables() if name.startswith(("POSTGRES_", "TMI_DATABASE_URL")))
    if given:
        raise OpsError(
            f"The settings name {load_settings().postgres.describe()}, and the demo would fill it with data.",
            hint=f"unset {', '.join(given)}, also in .env.dev, or run the demo in an empty directory",
        )


def _start_stack(report: Report) -> str:
    from tmi_ops.cli.automation import automate_what_starts
    from tmi_ops.settings import load_settings
    from tmi_ops.stack.background import start_stack_in_background

    automate_what_starts()
    state = start_stack_in_background(load_settings().home, report, with_dagster=True)
    if state.ui_url is None:
        raise StackError("The stack is running without Dagster.", hint="run `tmi-ops down`, then the demo again")
    return state.ui_url


def _stack_settings() -> Settings:
    from tmi_ops.settings import load_settings

    settings = load_settings()
    if not settings.uses_embedded_stack:
        raise StackError("The settings do not use the embedded stack.", hint="tmi-ops settings")
    return settings


def _prepare_database(settings: Settings, report: Report, size: int, seed: int) -> None:
    from tmi_ops.schema.migration import migrate
    from tmi_ops.stack.dataset import fill_database

    migrate(settings.postgres, report)
    if _holds_data(settings):
        report.note("the database has data from an earlier demo; it is backed up as it is")
        return
    fill_database(settings.postgres, report, size=size, seed=seed)


def _holds_data(settings: Settings) -> bool:
    from tmi_ops.postgres.connections import connect

    with connect(settings.postgres) as connection:
        return connection.execute("SELECT FROM threat_models LIMIT 1").fetchone() is not None


def _back_up_and_verify(settings: Settings, report: Report) -> tuple[Manifest, VerifyResult]:
    from tmi_ops.backup.logical import back_up_logical
    from tmi_ops.backup.one_at_a_time import when_none_runs
    from tmi_ops.recovery.verify import verify_backup
    from tmi_ops.store.objects import open_store

    store = open_store(settings.store, settings.environment)
    # A sensor may have started one already, because the database is unprotected.
    manifest = when_none_runs(lambda: back_up_logical(settings, store, "custom", report), OTHER_BACKUP_S)
    return manifest, verify_backup(settings, store, manifest, report)


def _play_accident(settings: Settings, report: Report) -> Accident:
    from tmi_ops.stack.accident import drop_a_table_and_bring_it_back

    return drop_a_table_and_bring_it_back(settings, report)


def _run_job(ui_url: str, job: str, report: Report) -> str:
    """Run a job in Dagster, so that the UI has runs, assets and checks to show. Returns the run's id."""
    from tmi_ops.stack.dagster_runs import RunProgress, await_code_location, follow_run, launch_job

    run_id = launch_job(ui_url, await_code_location(ui_url), job)
    with report.phase(f"Dagster job {job}", total=None, unit="steps") as phase:
        done: set[str] = set()

        def watch(progress: RunProgress) -> None:
            succeeded = {step for step, status in progress.steps.items() if status == "SUCCESS"} - done
            done.update(succeeded)
            phase.advance(len(succeeded))

        last = follow_run(ui_url, run_id, watch)
    if not last.succeeded:
        raise OpsError(
            f"The Dagster job {job} ended as {last.status}.",
            detail="The backups taken before it are in the store.",
            hint=f"see {ui_url}/runs/{run_id}",
        )
    return run_id


def _show(
    settings: Settings,
    manifest: Manifest,
    result: VerifyResult,
    run_url: str,
    ui_url: str,
    accident: Accident,
    seconds: float,
) -> None:
    verification = result.verification
    verified = verification.passed
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    rows = {
        "backed up": f"{manifest.database}: {len(manifest.fingerprints)} tables, {verification.rows:,} rows, "
        f"{format_size(manifest.database_size)}",
        "into": f"{settings.store.describe()} as {manifest.backup_id} ({format_size(manifest.total_size)}, "
        f"{format_duration(manifest.duration_seconds)})",
        "verified by": f"a restore into an empty PostgreSQL {verification.server_version}: every object's SHA-256, "
        "every table's rows, every definition"
        if verified
        else "NOT VERIFIED: " + "; ".join(verification.reasons),
        "restore time": f"{format_duration(verification.restore_seconds)} measured; objective (RTO) "
        f"{format_duration(settings.objectives.rto.total_seconds())}",
        "accident": _describe_accident(accident),
        "cost": f"RPO {format_duration(accident.behind)} (objective "
        f"{format_duration(settings.objectives.rpo.total_seconds())}), "
        f"RTO {format_duration(sum(accident.phases.values()))}: "
        + ", ".join(f"{phase} {format_duration(spent)}" for phase, spent in accident.phases.items()),
        "Dagster UI": f"{ui_url}/asset-groups",
        "Dagster run": run_url,
    }
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", value)
    title = "[bold green]VERIFIED[/]" if verified and accident.is_undone else "[bold red]NOT VERIFIED[/]"
    # No frame around it: an address that a frame cuts cannot be clicked or copied.
    out.rule(title)
    out.print(table)
    out.print("\n [bold]next[/]")
    name = program_name()
    for words, purpose in (
        ("status", "shows RPO, RTO and the recovery window"),
        ("backups", "lists the backups and whether they are verified"),
        (f"recover find --table {accident.table}", "finds the commit that dropped it"),
        (f"restore --backup {manifest.backup_id} --into tmi_copy", ""),
        ("down", "stops the stack and keeps its data"),
    ):
        out.print(f"   {name} {words:<20} [dim]{purpose}[/]".rstrip(), soft_wrap=True)
    if name != NAME:
        out.print(f"   [dim]`make install` puts {NAME} on PATH[/]", soft_wrap=True)
    out.rule(f"total {format_duration(seconds)}")


def _describe_accident(accident: Accident) -> str:
    fewest, most = accident.expected
    recovered = f"{accident.rows_recovered:,} rows recovered, "
    if accident.is_undone:
        recovered += "all that were committed by then"
    else:
        recovered += f"but {fewest:,} to {most:,} were committed by then: NOT RECOVERED"
    return (
        f"{accident.table} dropped under load at {accident.dropped_at:%H:%M:%S} UTC with "
        f"{accident.rows_when_dropped:,} rows; restored from {accident.backup_id} and streamed WAL to the second "
        f"before: {recovered}"
    )
