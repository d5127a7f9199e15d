"""`tmi-ops demo`: the whole promise in one go, on the embedded stack."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
from rich.table import Table

from tmi_ops.cli.called import NAME, called
from tmi_ops.cli.environment import reporting
from tmi_ops.cli.terminal import out, size_words, time_words
from tmi_ops.errors import OpsError
from tmi_ops.progress import Report

if TYPE_CHECKING:
    from tmi_ops.recovery.verify import Proof
    from tmi_ops.settings import Settings
    from tmi_ops.stack.accident import Accident
    from tmi_ops.store.manifest import Manifest

MAIN_JOB = "protect"
# So that status and the UI have a measured RTO, and numbers that plot.
MEASURING_JOBS = ("recovery_drill", "objectives")
MEGABYTE = 1_000_000
OTHER_BACKUP_S = 300.0


@click.command()
@click.option("--size", default=100, show_default=True, type=click.IntRange(1), help="Size of the data set in MB.")
@click.option("--seed", default=1, show_default=True, help="The data set is the same for the same seed and size.")
def demo(size: int, seed: int) -> int:
    """Stack up, migrate, fill with realistic data, back up, prove by a restore; then the same as a Dagster run.

    Then a base backup and WAL streaming, a table dropped by accident under load, and the second before brought back;
    and a drill, which measures how long a recovery takes.
    The stack stays up afterwards, so that there is something to look at; `tmi-ops down` stops it.
    Exit code 0: the backup was proven and the rows came back. 1: they did not.
    """
    started = time.monotonic()
    _refuse_elsewhere()
    with reporting() as report:
        ui_url = _start_stack(report)
        settings = _stack_settings()
        _prepare_database(settings, report, size * MEGABYTE, seed)
        manifest, proof = _back_up_and_prove(settings, report)
        run = _run_job(ui_url, MAIN_JOB, report)
        accident = _play_accident(settings, report)
        for job in MEASURING_JOBS:
            _run_job(ui_url, job, report)
    _show(settings, manifest, proof, f"{ui_url}/runs/{run}", ui_url, accident, time.monotonic() - started)
    return 0 if proof.verdict.outcome == "proven" and accident.is_undone else 1


def _refuse_elsewhere() -> None:
    """The demo writes rows: it is for the embedded stack, and the stack is development's."""
    from tmi_ops.settings import environment_name

    environment = environment_name()
    if environment != "development":
        raise OpsError(
            f"The demo runs in development only, and TMI_ENV is {environment}.",
            hint="run it as `tmi-ops -e development demo` in an empty directory",
        )
    _stack_or_nothing()


def _stack_or_nothing() -> None:
    from tmi_ops.settings import load_settings, read_variables

    given = sorted(name for name in read_variables() if name.startswith(("POSTGRES_", "TMI_DATABASE_URL")))
    if given:
        raise OpsError(
            f"The settings name a database of yours, {load_settings().postgres.describe()}; the demo would fill it.",
            hint=f"unset {', '.join(given)}, also in .env.dev, or run the demo in an empty directory",
        )


def _start_stack(report: Report) -> str:
    from tmi_ops.cli.automation import automate_what_starts
    from tmi_ops.settings import load_settings
    from tmi_ops.stack.background import start_stack_in_background

    automate_what_starts()
    state = start_stack_in_background(load_settings().home, report, with_dagster=True)
    if state.ui_url is None:
        raise OpsError("The stack runs without Dagster.", hint="tmi-ops down, then run the demo again")
    return state.ui_url


def _stack_settings() -> Settings:
    from tmi_ops.settings import load_settings

    settings = load_settings()
    if not settings.uses_embedded_stack:
        raise OpsError("The settings do not name the embedded stack.", hint="tmi-ops settings")
    return settings


def _prepare_database(settings: Settings, report: Report, size: int, seed: int) -> None:
    from tmi_ops.schema.migration import migrate
    from tmi_ops.stack.dataset import fill_database

    migrate(settings.postgres, report)
    if _holds_data(settings):
        report.note("the database holds data from an earlier demo; it is backed up as it is")
        return
    fill_database(settings.postgres, report, size=size, seed=seed)


def _holds_data(settings: Settings) -> bool:
    from tmi_ops.postgres.connections import connect

    with connect(settings.postgres) as connection:
        return connection.execute("SELECT FROM threat_models LIMIT 1").fetchone() is not None


def _back_up_and_prove(settings: Settings, report: Report) -> tuple[Manifest, Proof]:
    from tmi_ops.backup.logical import back_up_logical
    from tmi_ops.backup.one_at_a_time import when_none_runs
    from tmi_ops.recovery.verify import verify_backup
    from tmi_ops.store.objects import open_store

    store = open_store(settings.store, settings.environment)
    # Sensors may have begun one: to them an unprotected database is a broken promise.
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
    proof: Proof,
    run_url: str,
    ui_url: str,
    accident: Accident,
    seconds: float,
) -> None:
    verdict = proof.verdict
    proven = verdict.outcome == "proven"
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    rows = {
        "backed up": f"{manifest.database}: {len(manifest.fingerprints)} tables, {verdict.rows:,} rows, "
        f"{size_words(manifest.database_size)}",
        "into": f"{settings.store.describe()} as {manifest.backup_id} ({size_words(manifest.total_size)}, "
        f"{time_words(manifest.duration_seconds)})",
        "proven by": f"a restore into an empty PostgreSQL {verdict.server_version}: every object's SHA-256, every "
        "table's rows, every definition"
        if proven
        else "NOT PROVEN: " + "; ".join(verdict.reasons),
        "restore time": f"{time_words(verdict.restore_seconds)} measured; objective (RTO) "
        f"{time_words(settings.objectives.rto.total_seconds())}",
        "the accident": _accident_words(accident),
        "what it cost": f"RPO {time_words(accident.behind)} (objective "
        f"{time_words(settings.objectives.rpo.total_seconds())}), RTO {time_words(sum(accident.phases.values()))}: "
        + ", ".join(f"{phase} {time_words(spent)}" for phase, spent in accident.phases.items()),
        "look around": f"{ui_url}/asset-groups",
        "the run": run_url,
    }
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", value)
    title = "[bold green]PROVEN[/]" if proven and accident.is_undone else "[bold red]NOT PROVEN[/]"
    # No frame around it: an address that is cut by one cannot be clicked or copied.
    out.rule(title)
    out.print(table)
    out.print("\n [bold]next[/]")
    name = called()
    for words, purpose in (
        ("status", "how far back we can recover, and how long it takes"),
        ("backups", "what exists, and what is proven"),
        (f"recover find --table {accident.table}", "which commit dropped it, and when"),
        (f"restore --backup {manifest.backup_id} --into tmi_copy", ""),
        ("down", "stops the stack; its data stays"),
    ):
        out.print(f"   {name} {words:<20} [dim]{purpose}[/]".rstrip(), soft_wrap=True)
    if name != NAME:
        out.print(f"   [dim]`make install` puts {NAME} on PATH[/]", soft_wrap=True)
    out.rule(f"all of it in {time_words(seconds)}")


def _accident_words(accident: Accident) -> str:
    fewest, most = accident.expected
    came_back = f"{accident.rows_recovered:,} rows stood there, "
    if accident.is_undone:
        came_back += "all that were committed by then"
    else:
        came_back += f"and {fewest:,} to {most:,} were committed by then: NOT UNDONE"
    return (
        f"{accident.table} dropped under load at {accident.dropped_at:%H:%M:%S} UTC with "
        f"{accident.rows_when_dropped:,} rows; recovered from {accident.backup_id} and streamed WAL to the second "
        f"before: {came_back}"
    )
