"""How far behind an archiver stays while pgbench writes: at a steady rate of WAL, and as fast as pgbench can.

    python -m benchmarks.wal.load --size 5e8 --rate 20 --seconds 40 --rounds 3

pgbench updates rows of the largest TMI table, a few pages in each transaction, over two connections.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import click
import psycopg

from benchmarks.base_backup import on_bench
from benchmarks.logical_backup import MB
from benchmarks.peers import Bench
from benchmarks.wal.archivers import (
    ARCHIVERS,
    SERVER_SETTINGS,
    Archiver,
    connect,
    flushed,
    forget_backlog,
    one_lsn,
    prepare,
    wait_until,
)
from tmi_ops.postgres.connections import libpq_environment

TRANSACTION = """
UPDATE threats SET modified_at = clock_timestamp() WHERE ctid IN (SELECT ctid FROM threats TABLESAMPLE SYSTEM (0.05));
"""
CALIBRATION_S = 5
# What an archiver needs to get going is left out.
WARM_UP_S = 5
LOOK_EVERY_S = 0.1


@dataclass(frozen=True)
class Course:
    """One archiver under load for `seconds`: bytes of WAL written, and the lag once a second, in seconds.

    `drained`: seconds after the end of the load until everything was safe.
    """

    written: int
    seconds: float
    lags: tuple[float, ...]
    drained: float

    @property
    def rate(self) -> float:
        return self.written / MB / self.seconds

    @property
    def sustained(self) -> float:
        """MB/s that were safe, by the time that all was."""
        return self.written / MB / (self.seconds + self.drained)


@click.command()
@click.option("--size", type=float, default=5e8, show_default=True, help="Bytes of the TMI database.")
@click.option("--rate", type=float, default=20, show_default=True, help="MB/s of WAL; 0: as fast as pgbench can.")
@click.option("--seconds", type=click.IntRange(10), default=40, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
def main(size: float, rate: float, seconds: int, rounds: int) -> None:
    """Measure how far behind archivers stay."""
    on_bench(size, lambda made, _: _measure(made, rate, seconds, rounds), SERVER_SETTINGS, major=17)


def _measure(made: Bench, rate: float, seconds: int, rounds: int) -> None:
    prepare(made)
    taken = [one_round(made, rate, seconds) for _ in range(rounds)]
    click.echo(
        f"\n{seconds} s of pgbench, {f'{rate:.0f} MB/s of WAL wanted' if rate else 'as fast as it can'}\n\n"
        "|  | written MB/s | safe MB/s | lag: median s | worst s | drained after s |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |"
    )
    for archiver in ARCHIVERS:
        courses = [one[archiver.name] for one in taken]
        lags = [lag for course in courses for lag in course.lags]
        click.echo(
            f"| {archiver.name} | {_median([course.rate for course in courses])} "
            f"| {_median([course.sustained for course in courses])} | {_median(lags)} | {max(lags):.1f} "
            f"| {_median([course.drained for course in courses])} |"
        )


def _median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f}"


def one_round(made: Bench, rate: float, seconds: int) -> dict[str, Course]:
    """Every archiver under the same load."""
    forget_backlog(made)
    transactions = rate / _transaction_mb(made) if rate else None
    courses = {}
    for archiver in ARCHIVERS:
        forget_backlog(made)
        courses[archiver.name] = _course(made, archiver, seconds, transactions)
    return courses


def _transaction_mb(made: Bench) -> float:
    """MB of WAL that a transaction writes."""
    with connect(made) as connection:
        connection.execute("CHECKPOINT")
        before = flushed(connection)
        done = 0
        ends = time.monotonic() + CALIBRATION_S
        while time.monotonic() < ends:
            connection.execute(TRANSACTION)
            done += 1
        return (flushed(connection) - before) / MB / done


def _course(made: Bench, archiver: Archiver, seconds: int, transactions: float | None) -> Course:
    with connect(made) as connection:
        connection.execute("CHECKPOINT")
        with archiver.at_work(made):
            time.sleep(WARM_UP_S)
            start = flushed(connection)
            with _written(made) as written, _pgbench(made, seconds, transactions):
                lags = [_lag(connection, archiver, written) for _ in range(seconds)]
            end = flushed(connection)
            connection.execute("SELECT pg_switch_wal()")
            ended = time.monotonic()
            wait_until(lambda: one_lsn(connection, archiver.safe_query) >= end)
            return Course(end - start, seconds, tuple(lags[WARM_UP_S:]), time.monotonic() - ended)


def _lag(
    connection: psycopg.Connection[tuple[object, ...]], archiver: Archiver, written: Sequence[tuple[float, int]]
) -> float:
    """After a second: how old is the oldest WAL that is not safe?"""
    time.sleep(1)
    safe = one_lsn(connection, archiver.safe_query)
    waiting = [at for at, lsn in list(written) if lsn > safe]
    return time.monotonic() - waiting[0] if waiting else 0.0


@contextmanager
def _written(made: Bench) -> Iterator[list[tuple[float, int]]]:
    """Moments, and how far the server had flushed by then; grows for the length of the block."""
    seen: list[tuple[float, int]] = []
    done = threading.Event()

    def watch() -> None:
        with connect(made) as connection:
            while not done.wait(LOOK_EVERY_S):
                seen.append((time.monotonic(), flushed(connection)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


@contextmanager
def _pgbench(made: Bench, seconds: int, transactions: float | None) -> Iterator[None]:
    script = made.directory / "transaction.sql"
    script.write_text(TRANSACTION)
    pace = [f"--rate={transactions:.1f}"] if transactions else []
    process = subprocess.Popen(
        [
            str(made.servers.programs.path("pgbench")),
            *("--no-vacuum", "--client=2", f"--time={seconds}", *pace, f"--file={script}"),
        ],
        env={**os.environ, **libpq_environment(made.servers.postgres)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
        if process.wait(timeout=60) != 0:
            raise RuntimeError("pgbench failed.")
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
