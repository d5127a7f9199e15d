"""What a shadow costs beside a source that writes, how far behind it stays, and whether it is equal at the end.

    python -m benchmarks.wal.shadow --rate 5 --seconds 120
    python -m benchmarks.wal.shadow --rate 20 --seconds 60
    python -m benchmarks.wal.shadow --rate 5 --seconds 3600       # a soak

CPU is told apart: replay itself is what PostgreSQL's startup process takes; ours is the `tmi-ops shadow run` process
and the restore_command's shells. Its rounds of checks run meanwhile. Linux only: /proc is read.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import psycopg

from benchmarks.servers import Servers, servers
from tmi_ops.backup.base import back_up_base
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.progress import SilentReport
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.shadow.place import LocalState, read_local
from tmi_ops.store.objects import open_store
from tmi_ops_tests.physical import settings_for
from tmi_ops_tests.variables import variables_of

MB = 1_000_000
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
READY_WITHIN_S, LEVEL_WITHIN_S = 300.0, 600.0
PARAMETERS = {"wal_level": "replica", "max_wal_senders": "6", "full_page_writes": "on", "max_wal_size": "1GB"}
LOAD = """
INSERT INTO ballast (noise)
SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 32 * 30) i GROUP BY i % 30
"""
CHANGE = (
    "UPDATE ballast SET noise = noise || '!' WHERE id IN (SELECT id FROM ballast TABLESAMPLE SYSTEM (0.01) LIMIT 20)"
)
EQUAL = "SELECT count(*), coalesce(sum(hashtextextended(id || noise, 0)::numeric), 0) FROM ballast"


@dataclass
class Usage:
    """CPU seconds of a moment, by whom, and resident bytes."""

    ours: float
    shells: float
    replay: float
    others: float
    ours_rss: int
    server_pss: int


@dataclass
class Course:
    """What was seen once a second: the lag behind the source in seconds, and in bytes."""

    lags: list[float] = field(default_factory=list)
    behind: list[int] = field(default_factory=list)


@click.command()
@click.option("--rate", type=float, default=5, show_default=True, help="MB/s of WAL that the source writes.")
@click.option("--seconds", type=click.IntRange(10), default=120, show_default=True)
def main(rate: float, seconds: int) -> None:
    """Measure a shadow."""
    with tempfile.TemporaryDirectory(prefix="shadow-bench-") as name:
        root = Path(name)
        root.chmod(0o755)
        with servers(root, parameters=PARAMETERS) as made:
            measure(made, root, rate, seconds)


def measure(made: Servers, root: Path, rate: float, seconds: int) -> None:
    postgres = made.postgres.model_copy(update={"database": "postgres"})
    settings = settings_for(postgres, made.store, root / "home").model_copy(update={"redis": None})
    store = open_store(settings.store, settings.environment)
    with connect(postgres) as connection:
        connection.execute("CREATE TABLE ballast (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, noise text)")
        connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
    back_up_base(settings, store, SilentReport())
    with process(settings, "wal", "stream", "--quiet"), process(settings, "shadow", "run", "--quiet") as shadow:
        until(lambda: level(settings), READY_WITHIN_S)
        server = postmaster_of(settings)
        begun, before = time.monotonic(), usage(shadow, server)
        course, written = loaded(postgres, settings, rate, seconds)
        took, after = time.monotonic() - begun, usage(shadow, server)
        ended = time.monotonic()
        last = flushed(postgres)
        until(lambda: replayed(settings) >= last, LEVEL_WITHIN_S)
        drained = time.monotonic() - ended
        report = state(settings).report
        equal = rows(postgres) == rows(address_of(settings))
    show(rate, written, took, course, before, after, drained)
    told = ", ".join(f"{name} {count}" for name, count in sorted(report.requests.items()))
    click.echo(f"requests since it began ({(report.written_at - report.began_at).total_seconds():.0f} s): {told}")
    click.echo(f"troubles: {[one.kind for one in report.troubles] or 'none'}; equal to the source row by row: {equal}")
    if not equal:
        sys.exit(1)


def loaded(postgres: PostgresSettings, settings: Settings, rate: float, seconds: int) -> tuple[Course, int]:
    """Write at this rate, and look once a second how far the shadow is."""
    course, stop = Course(), threading.Event()
    moments: list[tuple[float, int]] = []
    writer = threading.Thread(target=_write, args=(postgres, rate, stop))
    start = flushed(postgres)
    writer.start()
    try:
        for _ in range(seconds):
            time.sleep(1)
            moments.append((time.monotonic(), flushed(postgres)))
            here = replayed(settings)
            waiting = next((at for at, lsn in moments if lsn > here), None)
            course.lags.append(0.0 if waiting is None else time.monotonic() - waiting)
            course.behind.append(max(0, moments[-1][1] - here))
            moments = [one for one in moments if one[1] > here]
    finally:
        stop.set()
        writer.join()
    return course, flushed(postgres) - start


def _write(postgres: PostgresSettings, rate: float, stop: threading.Event) -> None:
    begun = time.monotonic()
    with connect(postgres) as connection:
        start = flushed(postgres)
        while not stop.is_set():
            connection.execute(LOAD)
            connection.execute(CHANGE)
            row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
            ahead = (parse_lsn(row[0]) - start if row else 0) - rate * MB * (time.monotonic() - begun)
            if ahead > 0:
                stop.wait(ahead / (rate * MB))


def usage(ours: int, server: int) -> Usage:
    children = _children(server)
    startup = next((pid for pid in children if b"startup" in _command(pid)), None)
    replay, shells = _cpu(startup) if startup else (0.0, 0.0)
    others = sum(sum(_cpu(pid)) for pid in (server, *children) if pid != startup)
    pss = sum(_pss(pid) for pid in (server, *children))
    return Usage(_cpu(ours)[0], shells, replay, others, _rss(ours), pss)


def show(rate: float, written: int, took: float, course: Course, before: Usage, after: Usage, drained: float) -> None:
    def share(name: str) -> str:
        return f"{100 * (getattr(after, name) - getattr(before, name)) / took:.1f} %"

    click.echo(
        f"{rate:g} MB/s of WAL wanted, {written / MB / took:.1f} written for {took:.0f} s; load average "
        f"{os.getloadavg()[0]:.1f}\n"
        f"CPU of a core: replay itself {share('replay')}; ours {share('ours')}, restore_command's shells "
        f"{share('shells')}; the server's other processes (checks, checkpoints) {share('others')}\n"
        f"memory: ours {after.ours_rss / MB:.0f} MB, its server {after.server_pss / MB:.0f} MB\n"
        f"lag: median {statistics.median(course.lags):.1f} s, worst {max(course.lags):.1f} s "
        f"({max(course.behind) / MB:.0f} MB); level {drained:.1f} s after the end"
    )


@contextmanager
def process(settings: Settings, *words: str) -> Iterator[int]:
    """One of our commands, for the length of a `with` block; its process id."""
    variables = {**os.environ, **variables_of(settings)}
    running = subprocess.Popen([sys.executable, "-m", "tmi_ops.cli.main", *words], env=variables)
    try:
        yield running.pid
    finally:
        running.terminate()
        running.wait(120)


def until(reached: object, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not reached():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise RuntimeError("It did not come.")
        time.sleep(0.2)


def state(settings: Settings) -> LocalState:
    found = read_local(settings)
    if found is None:
        raise RuntimeError("There is no shadow.")
    return found


def level(settings: Settings) -> bool:
    found = read_local(settings)
    return found is not None and found.report.state == "level"


def replayed(settings: Settings) -> int:
    """By the server's own word: the report is a second old."""
    with psycopg.connect(_uri(settings), autocommit=True) as connection:
        row = connection.execute("SELECT pg_last_wal_replay_lsn()::text").fetchone()
    return parse_lsn(row[0]) if row else 0


def _uri(settings: Settings) -> str:
    found = state(settings).reachable
    if found is None:
        raise RuntimeError("Its server does not run.")
    return found.connection_string


def address_of(settings: Settings) -> PostgresSettings:
    found = state(settings).reachable
    if found is None:
        raise RuntimeError("Its server does not run.")
    return found.address


def postmaster_of(settings: Settings) -> int:
    pid_file = settings.home / "shadow" / "data" / "postmaster.pid"
    return int(pid_file.read_text().split("\n", 1)[0])


def flushed(postgres: PostgresSettings) -> int:
    with connect(postgres) as connection:
        row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    return parse_lsn(row[0]) if row else 0


def rows(postgres: PostgresSettings) -> object:
    with connect(postgres) as connection:
        return connection.execute(EQUAL).fetchone()


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _cpu(pid: int) -> tuple[float, float]:
    """CPU seconds of a process, and of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0, 0.0
    own, ended = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return own / TICKS, ended / TICKS


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def _pss(pid: int) -> int:
    """A process's share of memory: what is shared is divided among those who share it."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    main()
