"""What commits that wait for the store cost: CPU of the receiver for a MB of WAL; the latency of a commit, beside one
small put, beside `pg_receivewal --synchronous` (what Barman runs) that writes to disk, and beside no standby at all.

    python -m benchmarks.wal.synchronous --seconds 20
    python -m benchmarks.wal.synchronous --seconds 60 --workload tpcb

Four clients insert a row each, one commit after the other, or run pgbench's own script; fsync is on. Linux only: /proc
is read.
"""

from __future__ import annotations

import os
import re
import secrets
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.processes import cpu_of_tree
from benchmarks.servers import Servers, servers
from benchmarks.wal.shadow import process, until
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.settings import PostgresSettings, StoreSettings
from tmi_ops.store.backend import IfAbsent
from tmi_ops.store.objects import open_store
from tmi_ops.wal.archive import list_clusters
from tmi_ops_tests.physical import set_parameter, settings_for

MB = 1_000_000
PUTS = 200
PARAMETERS = {"fsync": "on", "synchronous_commit": "on", "max_wal_senders": "6", "max_wal_size": "1GB"}
SCRIPT = "INSERT INTO ledger (note) VALUES (repeat('x', 100));\n"


@dataclass(frozen=True)
class Result:
    """Of one round: seconds, commits, median and 95th percentile of a commit in ms, WAL bytes, CPU seconds of the
    standby's process and of the S3 server."""

    name: str
    seconds: float
    commits: int
    median_ms: float
    worst_ms: float
    wal: int
    cpu: float
    store_cpu: float


@click.command()
@click.option("--seconds", type=click.IntRange(3), default=20, show_default=True)
@click.option("--clients", type=click.IntRange(1), default=4, show_default=True)
@click.option("--workload", type=click.Choice(["insert", "tpcb"]), default="insert", show_default=True)
@click.option("--only", type=click.Choice(["ours", "peers", "all"]), default="all")
def main(seconds: int, clients: int, workload: str, only: str) -> None:
    """Measure commits that wait for the store."""
    with tempfile.TemporaryDirectory(prefix="synchronous-") as name:
        root = Path(name)
        root.chmod(0o755)
        with servers(root, parameters=PARAMETERS) as made:
            postgres = made.postgres.model_copy(update={"database": "postgres"})
            with connect(postgres) as connection:
                connection.execute(
                    "CREATE TABLE ledger (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text)"
                )
            load = Load(made, postgres, root, seconds, clients, workload)
            if workload == "tpcb":
                load.pgbench("--initialize", "--quiet", "--scale=20")
            put_ms = small_put_ms(made.store)
            results = []
            if only != "ours":
                results.append(load.run("no standby", None))
                results.append(receivewal(load))
            if only != "peers":
                results += ours(load)
            show(results, put_ms, clients)


class Load:
    """pgbench, beside whatever is the standby."""

    def __init__(
        self, made: Servers, postgres: PostgresSettings, root: Path, seconds: int, clients: int, workload: str
    ) -> None:
        self.made, self.postgres, self.root, self.seconds, self.clients = made, postgres, root, seconds, clients
        self.workload = workload
        (root / "script.sql").write_text(SCRIPT)

    def run(self, name: str, pid: int | None) -> Result:
        logs = self.root / f"log-{secrets.token_hex(4)}"
        script = "--builtin=tpcb-like" if self.workload == "tpcb" else f"--file={self.root / 'script.sql'}"
        start, cpu, begun = self.lsn(), cpu_of_tree(pid) if pid else 0.0, time.monotonic()
        store_cpu = cpu_of_tree(self.made.s3_pid)
        said = self.pgbench(
            "--no-vacuum", f"--client={self.clients}", f"--time={self.seconds}", script, "--log", f"--log-prefix={logs}"
        )
        took = time.monotonic() - begun
        used = (cpu_of_tree(pid) if pid else 0.0) - cpu
        store_cpu = cpu_of_tree(self.made.s3_pid) - store_cpu
        latencies = sorted(
            int(line.split()[2]) / 1000
            for path in self.root.glob(f"{logs.name}*")
            for line in path.read_text().splitlines()
        )
        commits = int(re.search(r"actually processed: (\d+)", said)[1])  # type: ignore[index]
        wal = self.lsn() - start
        median, worst = statistics.median(latencies), latencies[int(len(latencies) * 0.95)]
        return Result(name, took, commits, median, worst, wal, used, store_cpu)

    def pgbench(self, *options: str) -> str:
        environment = {
            **os.environ,
            "PGHOST": self.postgres.host,
            "PGPORT": str(self.postgres.port),
            "PGUSER": self.postgres.user,
            "PGPASSWORD": self.postgres.password.get_secret_value() if self.postgres.password else "",
        }
        command = [str(self.made.programs.path("pgbench")), *options, "postgres"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    def lsn(self) -> int:
        with connect(self.postgres) as connection:
            row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        return parse_lsn(row[0])


def ours(load: Load) -> list[Result]:
    settings = settings_for(load.postgres, load.made.store, load.root / "home").model_copy(update={"redis": None})
    store = open_store(settings.store, settings.environment)
    found = []
    with process(settings, "wal", "stream", "--quiet") as pid:
        until(lambda: bool(list_clusters(store)), 60)
        until(lambda: is_streaming(load.postgres, "tmi_ops"), 60)
        time.sleep(8)
        idle, begun = cpu_of_tree(pid), time.monotonic()
        time.sleep(20)
        share = 100 * (cpu_of_tree(pid) - idle) / (time.monotonic() - begun)
        click.echo(f"idle, asynchronous: {share:.2f} % of a core")
        found.append(load.run("tmi-ops wal stream, asynchronous", pid))
    set_parameter(load.postgres, "synchronous_standby_names", "'tmi_ops'")
    with process(settings, "wal", "stream", "--quiet") as pid:
        until(lambda: is_streaming(load.postgres, "tmi_ops"), 60)
        found.append(load.run("tmi-ops wal stream, synchronous", pid))
        set_parameter(load.postgres, "synchronous_standby_names", "''")
    return found


def receivewal(load: Load) -> Result:
    with receiving(load) as pid:
        until(lambda: is_streaming(load.postgres, "receivewal"), 60)
        set_parameter(load.postgres, "synchronous_standby_names", "'receivewal'")
        result = load.run("pg_receivewal --synchronous, to disk", pid)
        set_parameter(load.postgres, "synchronous_standby_names", "''")
    with connect(load.postgres) as connection:
        until(lambda: not is_streaming(load.postgres, "receivewal"), 60)
        connection.execute("SELECT pg_drop_replication_slot('receivewal')")
    return result


@contextmanager
def receiving(load: Load) -> Iterator[int]:
    directory = load.root / "receivewal"
    directory.mkdir()
    password = load.postgres.password.get_secret_value() if load.postgres.password else ""
    environment = {**os.environ, "PGPASSWORD": password, "PGAPPNAME": "receivewal"}
    program = str(load.made.programs.path("pg_receivewal"))
    address = [f"--host={load.postgres.host}", f"--port={load.postgres.port}", f"--username={load.postgres.user}"]
    common = [program, *address, "--slot=receivewal"]
    subprocess.run([*common, "--create-slot"], env=environment, check=True)
    running = subprocess.Popen([*common, "--synchronous", f"--directory={directory}"], env=environment)
    try:
        yield running.pid
    finally:
        running.terminate()
        running.wait(60)


def is_streaming(postgres: PostgresSettings, name: str) -> bool:
    with connect(postgres) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming'", (name,)
        ).fetchone()
    return bool(row and row[0])


def small_put_ms(settings: StoreSettings) -> float:
    """The median of one put of 2 kB that must not overwrite, one after the other."""
    store = open_store(settings, "measurement")
    body, taken = secrets.token_bytes(2000), []
    for number in range(PUTS + 20):
        begun = time.perf_counter()
        store.put(f"small/{number}", body, {}, IfAbsent())
        taken.append(1000 * (time.perf_counter() - begun))
    return statistics.median(taken[20:])


def show(results: list[Result], put_ms: float, clients: int) -> None:
    click.echo(f"{clients} clients; one small put: {put_ms:.1f} ms; load average {os.getloadavg()[0]:.1f}\n")
    click.echo("| | commits/s | commit: median ms | 95 % ms | WAL of a commit | CPU s for a MB: standby | S3 server |")
    click.echo("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for one in results:
        cpu = " | " if not one.cpu else f"{one.cpu / (one.wal / MB):.2f} | {one.store_cpu / (one.wal / MB):.2f}"
        click.echo(
            f"| {one.name} | {one.commits / one.seconds:.0f} | {one.median_ms:.1f} | {one.worst_ms:.1f} "
            f"| {one.wal / one.commits:.0f} B | {cpu} |"
        )


if __name__ == "__main__":
    main()
