"""How fast segments are archived that lie ready, as after an outage.

python -m benchmarks.wal.backlog --size 5e8 --backlog 128 --rounds 3
"""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass

import click

from benchmarks.base_backup import on_bench
from benchmarks.logical_backup import MB
from benchmarks.peers import Bench
from benchmarks.wal.archivers import (
    BARMAN,
    NAMES,
    OURS,
    PGBACKREST,
    SEGMENT,
    SERVER_SETTINGS,
    barman_command,
    catch_up,
    connect,
    cpu_watch,
    flushed,
    forget_backlog,
    pgbackrest_command,
    prepare,
    until_archived,
)

# barman-cloud takes a second and more for each: fewer tell the same.
BARMAN_SHARE = 8


@click.command()
@click.option("--size", type=float, default=5e8, show_default=True, help="Bytes of the TMI database.")
@click.option("--backlog", type=click.IntRange(8), default=128, show_default=True, help="Segments to archive.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
def main(size: float, backlog: int, rounds: int) -> None:
    """Measure how fast a backlog of WAL is archived."""
    on_bench(size, lambda made, _: _measure(made, backlog, rounds), SERVER_SETTINGS, major=17)


def _measure(made: Bench, backlog: int, rounds: int) -> None:
    prepare(made)
    taken = [one_round(made, backlog, number) for number in range(rounds)]
    click.echo(
        f"\n{backlog} segments that lie ready; load {os.getloadavg()[1]:.1f}\n\n"
        "|  | median MB/s | each | times pgBackRest's, median of the rounds | CPU s for each GB: client | server "
        "| S3 and TLS |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    for name in NAMES:
        own = [one[name] for one in taken]
        ratio = statistics.median(one[name].rate / one[PGBACKREST].rate for one in taken)
        parts = (statistics.median(part) for part in zip(*(one.cpu for one in own), strict=True))
        click.echo(
            f"| {name} | {statistics.median(one.rate for one in own):.0f} "
            f"| {' '.join(f'{one.rate:.0f}' for one in own)} | {ratio:.2f} "
            f"| {' | '.join(f'{part:.1f}' for part in parts)} |"
        )


@dataclass(frozen=True)
class Drained:
    """One backlog archived: MB/s, and CPU seconds for each GB of client, server, and S3 server with its front."""

    rate: float
    cpu: tuple[float, float, float]


def one_round(made: Bench, backlog: int, number: int) -> dict[str, Drained]:
    """Each archiver with a backlog of its own, in an order that changes with the round."""
    found = {}
    for name in NAMES if number % 2 == 0 else NAMES[::-1]:
        forget_backlog(made)
        size = write_segments(made, backlog // BARMAN_SHARE if name == BARMAN else backlog)
        found[name] = _drained(made, name, size)
        click.echo(f"round {number + 1}: {name} {found[name].rate:.0f} MB/s, CPU s/GB {found[name].cpu}")
    return found


def _drained(made: Bench, name: str, size: int) -> Drained:
    with cpu_watch(made) as watch:
        if name == OURS:
            run = catch_up(made)
            seconds, client = run.seconds, run.cpu_seconds
        else:
            command = pgbackrest_command(made) if name == PGBACKREST else barman_command(made)
            seconds, client = until_archived(made, command), 0.0
    cpu = watch.seconds
    client += sum(used for who, used in cpu.items() if who.startswith(PGBACKREST))
    gigabytes = size / 1e9
    return Drained(
        size / MB / seconds, (client / gigabytes, cpu["server"] / gigabytes, (cpu["store"] + cpu["front"]) / gigabytes)
    )


def write_segments(made: Bench, count: int) -> int:
    """So many segments of a TMI-shaped load (updates of its largest table). Returns their bytes."""
    with connect(made) as connection:
        start = flushed(connection)
        connection.execute("CHECKPOINT")
        while flushed(connection) < start + count * SEGMENT:
            connection.execute(
                "UPDATE threats SET modified_at = clock_timestamp() WHERE ctid IN "
                "(SELECT ctid FROM threats TABLESAMPLE SYSTEM (3))"
            )
        connection.execute("SELECT pg_switch_wal()")
        connection.execute("SELECT pg_logical_emit_message(true, 'benchmark', 'end')")
        return flushed(connection) - start


if __name__ == "__main__":
    main()
