"""CPU seconds of what production begins every five minutes: by its schedule's tick, and as a run.

    python -m benchmarks.cost.ticks --rounds 10

The ticks are evaluated in one warm process, as the code server does; a run is a process of its own, as its launcher
starts it.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks.servers import make_database, servers
from tmi_ops.backup.base import back_up_base
from tmi_ops.progress import SilentReport
from tmi_ops.settings import OBJECTIVES, RedisSettings, Settings
from tmi_ops.store.objects import open_store
from tmi_ops.wal.receiver import StreamOptions, catch_up_wal
from tmi_ops_tests.variables import variables_of

ENVIRONMENT = "production"
SCHEDULES = {
    "heartbeat_within_the_rpo": "heartbeat",
    "objectives_within_the_rpo": "objectives",
    "wal_catch_up_within_the_rpo": "wal_catch_up",
}


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True)
def main(rounds: int) -> None:
    """Measure each schedule's tick, and the run of the job that it stands for."""
    parameters = {"max_replication_slots": "2"}
    with tempfile.TemporaryDirectory() as name, servers(Path(name), parameters=parameters) as parts:
        Path(name).chmod(0o755)
        make_database(parts.postgres, 3_000_000)
        settings = Settings(
            environment=ENVIRONMENT,
            postgres=parts.postgres,
            redis=RedisSettings(),
            store=parts.store,
            objectives=OBJECTIVES[ENVIRONMENT],
            home=Path(name) / "home",
        )
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
    click.echo("| | tick, CPU s: median | worst | a run, CPU s | peak MB |\n| --- | ---: | ---: | ---: | ---: |")
    for schedule, job in SCHEDULES.items():
        taken = []
        with DagsterInstance.local_temp(str(directory / "dagster")) as instance:
            for _ in range(rounds):
                with build_schedule_context(instance=instance) as context:
                    begun = time.process_time()
                    tick = repository.get_schedule_def(schedule).evaluate_tick(context)
                    taken.append(time.process_time() - begun)
        what = job if not tick.run_requests else f"{job} (its tick only looks whether a receiver is at work)"
        run = _run(job)
        click.echo(f"| {what} | {statistics.median(taken):.3f} | {max(taken):.3f} | {run[0]:.1f} | {run[1]:.0f} |")


def _run(job: str) -> tuple[float, float]:
    """CPU seconds and peak memory in MB."""
    words = [sys.executable, "-m", "dagster", "job", "execute", "-m", "tmi_ops.definitions", "-j", job]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, after.ru_maxrss / 1e3


if __name__ == "__main__":
    main()
