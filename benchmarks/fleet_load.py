"""What one code location costs that serves a fleet: simulated environments of one tmi-ops.toml, loaded and described.

    python -m benchmarks.fleet_load

Each size in a process of its own, which says: CPU seconds to build the definitions, to resolve every job, and to
describe all of it as the UI may be told of it; the bytes of that description, which Dagster fetches job by job; the
memory of all that; CPU milliseconds until a sensor's look knows its settings; and connections that were opened: there
must be none.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import click

SIZES = (1, 50, 100, 200)
_DEFAULTS = """[defaults]
TMI_OPS_S3_BUCKET = "backups"
TMI_OPS_PROFILE = "none"
TMI_OPS_RPO = "1h"
TMI_OPS_RTO = "2h"
"""
_COLUMNS = ("environments", "definitions s", "jobs s", "description s", "MB", "memory MB", "settings ms", "connections")


@click.command()
@click.option("--one", type=int, hidden=True, help="Measure this size in this process.")
def main(one: int | None) -> None:
    """Measure fleets of growing size and print the table."""
    if one is not None:
        click.echo(_row(one))
        return
    click.echo(f"| {' | '.join(_COLUMNS)} |\n|{' ---: |' * len(_COLUMNS)}")
    for size in SIZES:
        argv = [sys.executable, "-W", "ignore", "-m", "benchmarks.fleet_load", "--one", str(size)]
        ended = subprocess.run(argv, check=True, capture_output=True, text=True)
        click.echo(ended.stdout.strip())


def _row(size: int) -> str:
    warnings.simplefilter("ignore")
    connections = _counted_connections()
    with tempfile.TemporaryDirectory() as directory:
        environments = [f'[environments.tenant{number:04}]\nPOSTGRES_HOST = "db{number}"\n' for number in range(size)]
        file = Path(directory) / "tmi-ops.toml"
        file.write_text(_DEFAULTS + "".join(environments))
        os.environ.pop("TMI_ENV", None)
        os.environ["TMI_OPS_CONFIG"] = str(_nothing(Path(directory)))
        from dagster._core.remote_representation.external_data import RepositorySnap
        from dagster._serdes import serialize_value

        from tmi_ops.definitions import fleet_definitions
        from tmi_ops.settings import load_settings

        before = _memory()
        os.environ["TMI_OPS_CONFIG"] = str(file)
        names = [f"tenant{number:04}" for number in range(size)]
        begun = time.process_time()
        repository = fleet_definitions(names).get_repository_def()
        built = time.process_time()
        jobs = repository.get_all_jobs()
        resolved = time.process_time()
        described = serialize_value(RepositorySnap.from_def(repository))
        told = time.process_time()
        memory = _memory() - before
        assert len(jobs) > size, "every environment has jobs"
        looks = []
        for name in names:
            at = time.process_time()
            load_settings(of=name)
            looks.append(time.process_time() - at)
    figures = (
        f"{size}",
        f"{built - begun:.2f}",
        f"{resolved - built:.2f}",
        f"{told - resolved:.2f}",
        f"{len(described) / 1e6:.1f}",
        f"{memory / 1e6:.0f}",
        f"{statistics.median(looks) * 1e3:.2f}",
        f"{len(connections)}",
    )
    return f"| {' | '.join(figures)} |"


def _nothing(directory: Path) -> Path:
    """A file that names one environment: what is imported first is not the fleet's."""
    file = directory / "one.toml"
    file.write_text("[environments.development]\n")
    return file


def _counted_connections() -> list[object]:
    found: list[object] = []
    sys.addaudithook(lambda event, arguments: found.append(arguments[1]) if event == "socket.connect" else None)
    return found


def _memory() -> int:
    """Bytes, at their peak."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
