"""How fast segments are archived that lie ready, as after an outage.

python -m benchmarks.wal.backlog --size 5e8 --backlog 128 --rounds 3
"""

from __future__ import annotations

import statistics

import click

from benchmarks.base_backup import on_bench
from benchmarks.logical_backup import MB
from benchmarks.peers import Bench
from benchmarks.wal.archivers import (
    BARMAN,
    OURS,
    PGBACKREST,
    SEGMENT,
    SERVER_SETTINGS,
    barman_command,
    catch_up,
    connect,
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
    on_bench(size, lambda made, _: _measure(made, backlog, rounds), SERVER_SETTINGS)


def _measure(made: Bench, backlog: int, rounds: int) -> None:
    prepare(made)
    taken = [one_round(made, backlog) for _ in range(rounds)]
    click.echo(f"\n{backlog} segments that lie ready\n\n|  | median MB/s | each |\n| --- | ---: | ---: |")
    for name in (OURS, PGBACKREST, BARMAN):
        rates = [one[name] for one in taken]
        click.echo(f"| {name} | {statistics.median(rates):.0f} | {' '.join(f'{rate:.0f}' for rate in rates)} |")


def one_round(made: Bench, backlog: int) -> dict[str, float]:
    """MB/s of each archiver, each with a backlog of its own."""
    rates = {}
    for name in (OURS, PGBACKREST, BARMAN):
        forget_backlog(made)
        size = write_segments(made, backlog // BARMAN_SHARE if name == BARMAN else backlog)
        rates[name] = size / MB / _seconds(made, name)
    return rates


def _seconds(made: Bench, name: str) -> float:
    if name == OURS:
        return catch_up(made)
    return until_archived(made, pgbackrest_command(made) if name == PGBACKREST else barman_command(made))


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
