"""A logical backup to S3: `tmi-ops backup logical` (with its digests) beside `pg_dump | aws s3 cp -`.

    python -m benchmarks.logical_backup --size 1e9 --rounds 3

All sides read one server and write to one S3 server, in turns, every run a process of its own from start to end. The
last one writes nowhere: it is what the server spends on a dump alone.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import boto3
import click

from benchmarks.processes import Run, cpu_of_tree, run_pipeline
from benchmarks.servers import Servers, make_database, servers
from tmi_ops.postgres.connections import libpq_environment
from tmi_ops.store.catalogue import list_backups
from tmi_ops.store.manifest import Manifest
from tmi_ops.store.objects import open_store

OURS = "tmi-ops backup logical"
FIRST_PEER = "pg_dump -Fc | aws s3 cp -"
SECOND_PEER = "pg_dump -Fc --compress=zstd:1 | aws s3 cp -"
ALONE = "pg_dump -Fc --compress=zstd:1 >/dev/null"
ENVIRONMENT = "measurement"
MB = 1_000_000


@dataclass(frozen=True)
class Side:
    """One way to take the backup: commands joined by pipes, and what they are told through the environment."""

    name: str
    commands: Sequence[Sequence[str | Path]]
    env: Mapping[str, str]


@dataclass(frozen=True)
class Result:
    """What a side's runs came to. Sizes in bytes; `server`: CPU seconds of PostgreSQL in each run."""

    name: str
    runs: tuple[Run, ...]
    stored: int
    server: tuple[float, ...] = ()

    @property
    def seconds(self) -> float:
        return statistics.median(run.seconds for run in self.runs)

    @property
    def cpu_seconds(self) -> float:
        return statistics.median(run.cpu_seconds for run in self.runs)

    @property
    def server_seconds(self) -> float:
        return statistics.median(self.server)

    @property
    def peak_memory(self) -> int:
        return max(run.peak_memory for run in self.runs)


@click.command()
@click.option("--size", type=float, default=1e9, show_default=True, help="Bytes of the TMI database.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Runs of each side, in turns.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), default=None, help="Write the figures here too.")
def main(size: float, rounds: int, json_file: Path | None) -> None:
    """Measure a logical backup to S3 beside its peers."""
    with tempfile.TemporaryDirectory(prefix="tmi-ops-measurement-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # server programs may run as another user
        with servers(directory) as running:
            database = make_database(running.postgres, int(size))
            rows = sum(database.rows.values())
            click.echo(f"TMI database: {database.bytes / MB:,.0f} MB, {rows:,} rows, made in {database.seconds:.0f} s")
            results = measure(running, sides(running, directory), rounds, rows)
    click.echo(comparison(results, database.bytes))
    if json_file is not None:
        facts = {"database_bytes": database.bytes, "rows": rows, "results": [asdict(result) for result in results]}
        json_file.write_text(json.dumps(facts, indent=2) + "\n")


def sides(running: Servers, directory: Path) -> list[Side]:
    """What is compared; all use the same pg_dump."""
    pg_dump, aws = running.programs.path("pg_dump"), _program("aws")
    upload: list[str | Path] = [
        aws,
        "s3",
        "cp",
        "-",
        f"s3://{running.store.bucket}/peer.dump",
        "--endpoint-url",
        _endpoint(running),
    ]
    peer_env = {**libpq_environment(running.postgres), **_aws_environment(running)}
    gzip: list[str | Path] = [pg_dump, "-Fc"]
    return [
        Side(OURS, [[_program("tmi-ops"), "backup", "logical", "--quiet"]], _our_environment(running, directory)),
        Side(FIRST_PEER, [gzip, upload], peer_env),
        Side(SECOND_PEER, [[*gzip, "--compress=zstd:1"], upload], peer_env),
        Side(ALONE, [[*gzip, "--compress=zstd:1"]], peer_env),
    ]


def measure(running: Servers, compared: Sequence[Side], rounds: int, rows: int) -> list[Result]:
    """Run every side once a round, each round in another order, and look at what each left in the store."""
    runs: dict[str, list[Run]] = {side.name: [] for side in compared}
    server: dict[str, list[float]] = {side.name: [] for side in compared}
    postmaster = int((running.data / "postmaster.pid").read_text().split()[0])
    stored: dict[str, int] = {}
    for number in range(rounds):
        turn = number % len(compared)
        for side in (*compared[turn:], *compared[:turn]):
            before = cpu_of_tree(postmaster)
            runs[side.name].append(run_pipeline(side.commands, side.env))
            server[side.name].append(cpu_of_tree(postmaster) - before)
            if side.name == OURS:
                _require_whole(running, rows)
            stored[side.name] = empty_bucket(running) if side.name != ALONE else 0
    return [Result(side.name, tuple(runs[side.name]), stored[side.name], tuple(server[side.name])) for side in compared]


def comparison(results: Sequence[Result], database_bytes: int) -> str:
    """The figures as a Markdown table; the last column says how many times as long as ours a side took."""
    head = ("", "median s", "each s", "MB/s", "client CPU s", "server CPU s", "peak memory MB", "stored MB",
            "times ours")  # fmt: skip
    lines = [_line(head), _line(("---", *("---:" for _ in head[1:])))]
    for result in results:
        cells = (
            result.name,
            f"{result.seconds:.1f}",
            " ".join(f"{run.seconds:.1f}" for run in result.runs),
            f"{database_bytes / MB / result.seconds:.0f}",
            f"{result.cpu_seconds:.1f}",
            f"{result.server_seconds:.2f}" if result.server else "",
            f"{result.peak_memory / MB:.0f}",
            f"{result.stored / MB:.0f}",
            f"{result.seconds / results[0].seconds:.2f}",
        )
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    # The bar of a pipeline would end the cell.
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _require_whole(running: Servers, rows: int) -> None:
    """Our backup must be in the catalogue with a digest of every row, else the measurement is worth nothing."""
    (entry,) = list_backups(open_store(running.store, ENVIRONMENT))
    if not isinstance(entry.manifest, Manifest):
        raise TypeError(entry.manifest)
    counted = sum(table.rows for table in entry.manifest.fingerprints.values())
    if counted < rows:
        raise RuntimeError(f"The backup counts {counted} rows of at least {rows}.")


def empty_bucket(running: Servers) -> int:
    """Remove every object, so that no run finds what another left. Returns how many bytes there were."""
    credentials = _aws_environment(running)
    bucket = boto3.resource(
        "s3",
        endpoint_url=running.store.endpoint_url,
        region_name=running.store.region,
        aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
    ).Bucket(str(running.store.bucket))
    size = sum(item.size for item in bucket.objects.all())
    bucket.objects.all().delete()
    if size == 0:
        raise RuntimeError("The run left nothing in the store.")
    return size


def _our_environment(running: Servers, directory: Path) -> dict[str, str]:
    postgres, store = running.postgres, running.store
    return {
        "TMI_ENV": ENVIRONMENT,
        "TMI_OPS_RPO": "1h",
        "TMI_OPS_RTO": "1h",
        "TMI_OPS_HOME": str(directory / "home"),
        "TMI_OPS_PG_BINDIR": str(running.programs.bindir),
        "POSTGRES_HOST": postgres.host,
        "POSTGRES_PORT": str(postgres.port),
        "POSTGRES_USER": postgres.user,
        "POSTGRES_PASSWORD": postgres.password.get_secret_value() if postgres.password else "",
        "POSTGRES_DB": postgres.database,
        "POSTGRES_SSLMODE": postgres.sslmode,
        "TMI_OPS_S3_ENDPOINT_URL": _endpoint(running),
        "TMI_OPS_S3_BUCKET": str(store.bucket),
        "TMI_OPS_S3_REGION": store.region,
        **_aws_environment(running),
    }


def _aws_environment(running: Servers) -> dict[str, str]:
    """The standard credential chain, which both sides read. No file of the user's own joins in."""
    key, secret = running.store.access_key_id, running.store.secret_access_key
    if key is None or secret is None:
        raise AssertionError
    return {
        "AWS_ACCESS_KEY_ID": key.get_secret_value(),
        "AWS_SECRET_ACCESS_KEY": secret.get_secret_value(),
        "AWS_DEFAULT_REGION": running.store.region,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def _endpoint(running: Servers) -> str:
    return str(running.store.endpoint_url)


def _program(name: str) -> Path:
    """A program of this environment, else of the PATH."""
    beside = Path(sys.executable).parent / name
    found = beside if beside.is_file() else shutil.which(name)
    if found is None:
        raise click.ClickException(f"{name} is not installed; it comes with the development dependencies.")
    return Path(found)


if __name__ == "__main__":
    main()
