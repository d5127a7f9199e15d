"""A base backup of a whole cluster to S3: ours beside pgBackRest's and barman-cloud's.

    python -m benchmarks.base_backup --size 2e9 --rounds 3

One server, one S3 server, in turns, every run a process of its own from start to end. See peers.py for what it needs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.logical_backup import MB, Result, comparison, empty_bucket
from benchmarks.peers import Bench, Words, bench
from benchmarks.processes import Run, run_pipeline
from benchmarks.servers import make_database, servers

PEERS_MAJOR = 15  # the newest that Debian's pgBackRest knows


@dataclass(frozen=True)
class Side:
    """One way to take the backup; `before` is not measured."""

    name: str
    command: Words
    before: Sequence[Words] = ()


@click.command()
@click.option("--size", type=float, default=2e9, show_default=True, help="Bytes of the TMI database.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Runs of each side, in turns.")
@click.option("--ours-only", is_flag=True, help="Without the peers: for the memory at different sizes.")
def main(size: float, rounds: int, ours_only: bool) -> None:
    """Measure a base backup to S3 beside its peers."""
    on_bench(size, lambda made, database_bytes: _measure(made, database_bytes, rounds, ours_only))


def on_bench(
    size: float,
    measure: Callable[[Bench, int], None],
    settings: Mapping[str, str] | None = None,
    *,
    major: int = PEERS_MAJOR,
) -> None:
    """Have a database of that size and the peers set up for the length of a measurement."""
    with tempfile.TemporaryDirectory(prefix="tmi-ops-bench-") as name, tempfile.TemporaryDirectory() as short:
        directory, sockets = Path(name), Path(short)
        directory.chmod(0o755)
        sockets.chmod(0o777)
        parameters = {"unix_socket_directories": str(sockets), "full_page_writes": "on", "max_wal_senders": "8"}
        parameters |= settings or {}
        with servers(directory, major=major, parameters=parameters) as running:
            database = make_database(running.postgres, int(size))
            click.echo(f"TMI database: {database.bytes / MB:,.0f} MB, {sum(database.rows.values()):,} rows")
            with bench(running, directory, sockets) as made:
                measure(made, database.bytes)


def sides(made: Bench) -> list[Side]:
    """What is compared: each with its own compression, and with two processes where it has them."""
    return [
        Side("tmi-ops backup base", made.ours("backup", "base", "--quiet")),
        Side(
            "pgbackrest backup --type=full (zst, process-max=2)",
            made.pgbackrest("--no-archive-check", "--type=full", "backup"),
            [made.pgbackrest("--no-online", "stanza-create")],
        ),
        Side(
            "barman-cloud-backup --lz4 -J 2",
            made.barman(
                "backup",
                "--lz4",
                "-J",
                "2",
                "--immediate-checkpoint",
                "-h",
                made.sockets,
                "-p",
                str(made.servers.postgres.port),
                "-U",
                made.servers.postgres.user,
                "-d",
                "postgres",
                *made.barman_store,
            ),
        ),
    ]


def _measure(made: Bench, database_bytes: int, rounds: int, ours_only: bool) -> None:
    compared = sides(made)[: 1 if ours_only else None]
    runs: dict[str, list[Run]] = {side.name: [] for side in compared}
    stored: dict[str, int] = {}
    for number in range(rounds):
        # What is left of an emptied bucket's folders looks to pgBackRest like another repository.
        env = {**made.env, "PGBACKREST_REPO1_PATH": f"/pgbackrest-{number}"}
        turn = number % len(compared)
        for side in (*compared[turn:], *compared[:turn]):
            for command in side.before:
                run_pipeline([command], env)
            runs[side.name].append(run_pipeline([side.command], env))
            stored[side.name] = empty_bucket(made.servers)
    results = [Result(side.name, tuple(runs[side.name]), stored[side.name]) for side in compared]
    click.echo(comparison(results, database_bytes))


if __name__ == "__main__":
    main()
