"""CPU seconds of the ticks that do their schedule's work, every five minutes at production's pace.

    python -m benchmarks.cost.ticks --rounds 10

They are evaluated in one warm process, as the code server does. The first of each, which imports, is left out.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import click

from benchmarks.servers import make_database, servers
from tmi_ops.backup.base import back_up_base
from tmi_ops.progress import SilentReport
from tmi_ops.store.objects import open_store
from tmi_ops.wal.receiver import StreamOptions, catch_up_wal
from tmi_ops_tests.variables import variables_of

ENVIRONMENT = "development"  # production wants TLS, which costs nothing that is measured here
SCHEDULES = ("heartbeat_within_the_rpo", "objectives_within_the_rpo", "wal_catch_up_within_the_rpo")


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True)
def main(rounds: int) -> None:
    """Measure each schedule's tick."""
    parameters = {"max_replication_slots": "2"}
    with tempfile.TemporaryDirectory() as name, servers(Path(name), parameters=parameters) as parts:
        Path(name).chmod(0o755)
        make_database(parts.postgres, 3_000_000)
        settings = parts.settings(ENVIRONMENT, Path(name) / "home")
        store = open_store(parts.store, ENVIRONMENT)
        catch_up_wal(settings, store, SilentReport(), StreamOptions())
        back_up_base(settings, store, SilentReport())
        dagster_home = Path(name) / "dagster"
        dagster_home.mkdir()
        os.environ |= variables_of(settings) | {"DAGSTER_HOME": str(dagster_home)}
        _measure(Path(name), rounds)


def _measure(directory: Path, rounds: int) -> None:
    from dagster import DagsterInstance, build_schedule_context

    from tmi_ops.definitions import environment_definitions

    repository = environment_definitions(ENVIRONMENT).get_repository_def()
    click.echo("| | CPU s: median | worst |\n| --- | ---: | ---: |")
    for schedule in SCHEDULES:
        taken = []
        with DagsterInstance.local_temp(str(directory / "dagster")) as instance:
            for _ in range(rounds + 1):
                with build_schedule_context(instance=instance) as context:
                    begun = time.process_time()
                    tick = repository.get_schedule_def(schedule).evaluate_tick(context)
                    taken.append(time.process_time() - begun)
        what = schedule if not tick.run_requests else f"{schedule}: no receiver is at work, so a run follows"
        click.echo(f"| {what} | {statistics.median(taken[1:]):.3f} | {max(taken[1:]):.3f} |")


if __name__ == "__main__":
    main()
