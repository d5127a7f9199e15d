"""A base backup of a whole cluster to S3: ours beside pgBackRest's and barman-cloud's.

    python -m benchmarks.base_backup --size 2e9 --rounds 3

One server, one S3 server, in turns, every run a process of its own from start to end. See peers.py for what it needs.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import psycopg

from benchmarks.logical_backup import MB, Result, comparison, empty_bucket
from benchmarks.peers import Bench, Words, barman_is_here, bench
from benchmarks.processes import Run, run_pipeline
from benchmarks.servers import make_database, servers
from tmi_ops.postgres.connections import connection_parameters
from tmi_ops.settings import PostgresSettings

LARGEST_DATABASE = 1e9
PGBACKREST = "pgbackrest backup --type=full (zst:1, process-max=2)"
PEERS_MAJOR = 15  # the newest that Debian's pgBackRest knows; newer ones know 17


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
            made_bytes = make_databases(running.postgres, size)
            with bench(running, directory, sockets) as made:
                measure(made, made_bytes)


def make_databases(postgres: PostgresSettings, size: float) -> int:
    """A TMI database of at most `LARGEST_DATABASE`, and copies of it until there is enough. Returns bytes in all."""
    copies = max(1, math.ceil(size / LARGEST_DATABASE))
    database = make_database(postgres, int(size / copies))
    with psycopg.connect(**connection_parameters(postgres.model_copy(update={"database": "postgres"}))) as connection:
        connection.autocommit = True
        for number in range(1, copies):
            connection.execute(f"CREATE DATABASE tmi_{number} TEMPLATE tmi")
    rows = sum(database.rows.values())
    click.echo(f"{copies} TMI database{'s' * (copies > 1)} of {database.bytes / MB:,.0f} MB and {rows:,} rows")
    return database.bytes * copies


def sides(made: Bench) -> list[Side]:
    """What is compared: each with its own compression, and with two processes where it has them."""
    return [
        Side("tmi-ops backup base", made.ours("backup", "base", "--quiet")),
        Side(PGBACKREST, made.pgbackrest("--no-archive-check", "--type=full", "backup"), [_stanza(made)]),
        Side(
            f"{PGBACKREST}, --repo1-bundle",
            made.pgbackrest("--no-archive-check", "--repo1-bundle", "--type=full", "backup"),
            [_stanza(made)],
        ),
    ] + ([_barman(made)] if barman_is_here() else [])


def _barman(made: Bench) -> Side:
    return Side(
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
    )


def _stanza(made: Bench) -> Words:
    return made.pgbackrest("--no-online", "stanza-create")


def _measure(made: Bench, database_bytes: int, rounds: int, ours_only: bool) -> None:
    compared = sides(made)[: 1 if ours_only else None]
    taken = [one_round(made, compared, number) for number in range(rounds)]
    results = [
        Result(side.name, tuple(one[side.name][0] for one in taken), taken[-1][side.name][1]) for side in compared
    ]
    click.echo(comparison(results, database_bytes))


def one_round(made: Bench, compared: Sequence[Side], number: int) -> dict[str, tuple[Run, int]]:
    """Every side once, in an order that changes with the round; the run, and the bytes it left in the store."""
    taken = {}
    turn = number % len(compared)
    for place, side in enumerate((*compared[turn:], *compared[:turn])):
        # What is left of an emptied bucket's folders looks to pgBackRest like another repository.
        env = {**made.env, "PGBACKREST_REPO1_PATH": f"/pgbackrest-{number}-{place}"}
        for command in side.before:
            run_pipeline([command], env)
        taken[side.name] = run_pipeline([side.command], env), empty_bucket(made.servers)
    return taken


if __name__ == "__main__":
    main()
