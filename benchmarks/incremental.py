"""An incremental base backup after one row in a hundred changed, beside a full one of the same cluster.

    python -m benchmarks.incremental --size 2e9 --rounds 3

Ours on PostgreSQL 17, whose incremental backups send changed blocks; pgBackRest (Debian's knows PostgreSQL up to 15) on
15, where it sends changed files. Each is compared with its own full backup. See peers.py for what it needs.
"""

from __future__ import annotations

import statistics

import click
import psycopg

from benchmarks.base_backup import PEERS_MAJOR, on_bench, sides
from benchmarks.peers import Bench, Words
from benchmarks.processes import run_pipeline
from tmi_ops.postgres.connections import connection_parameters
from tmi_ops.settings import PostgresSettings

CHANGED_PERCENT = 1
SUMMARIZING_MAJOR = 17
_HEAD = "|  | full: median s | incremental: median s | each s | share of the full |"
_RULE = "| --- | ---: | ---: | ---: | ---: |"


@click.command()
@click.option("--size", type=float, default=2e9, show_default=True, help="Bytes of the TMI database.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
def main(size: float, rounds: int) -> None:
    """Measure incremental base backups."""
    lines: list[str] = []
    summarizing = {"summarize_wal": "on"}
    on_bench(size, lambda made, _: lines.append(_ours(made, rounds)), summarizing, major=SUMMARIZING_MAJOR)
    on_bench(size, lambda made, _: lines.append(_pgbackrest(made, rounds)), major=PEERS_MAJOR)
    click.echo("\n".join([_HEAD, _RULE, *lines]))


def _ours(made: Bench, rounds: int) -> str:
    full = made.ours("backup", "base", "--quiet")
    increment = made.ours("backup", "base", "--incremental", "--quiet")
    return _line("tmi-ops, PostgreSQL 17", made, rounds, full, increment)


def _pgbackrest(made: Bench, rounds: int) -> str:
    peer = sides(made)[1]
    for command in peer.before:
        run_pipeline([command], made.env)
    increment = made.pgbackrest("--no-archive-check", "--type=incr", "backup")
    return _line("pgBackRest, PostgreSQL 15", made, rounds, peer.command, increment)


def _line(name: str, made: Bench, rounds: int, full: Words, increment: Words) -> str:
    taken = [one_round(made, full, increment) for _ in range(rounds)]
    whole = statistics.median(one[0] for one in taken)
    part = statistics.median(one[1] for one in taken)
    each = " ".join(f"{one[1]:.1f}" for one in taken)
    return f"| {name} | {whole:.1f} | {part:.1f} | {each} | {part / whole:.2f} |"


def one_round(made: Bench, full: Words, increment: Words) -> tuple[float, float]:
    """Seconds of a full backup, and of an incremental one after the change."""
    whole = run_pipeline([full], made.env).seconds
    _change(made)
    return whole, run_pipeline([increment], made.env).seconds


def _change(made: Bench) -> None:
    """One page in a hundred of every table of any size: changes lie together, as an application's do."""
    postgres = made.servers.postgres
    with psycopg.connect(**connection_parameters(postgres), autocommit=True) as connection:
        databases = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'tmi%'").fetchall()
    for (database,) in databases:
        _change_database(postgres.model_copy(update={"database": database}))


def _change_database(postgres: PostgresSettings) -> None:
    with psycopg.connect(**connection_parameters(postgres), autocommit=True) as connection:
        tables = connection.execute(
            "SELECT c.oid::regclass::text, (SELECT quote_ident(attname) FROM pg_attribute a WHERE a.attrelid = c.oid "
            "AND attnum > 0 AND NOT attisdropped ORDER BY attnum LIMIT 1) FROM pg_class c JOIN pg_namespace n "
            "ON n.oid = c.relnamespace WHERE nspname = 'public' AND relkind = 'r' AND relpages > 1000"
        ).fetchall()
        for table, column in tables:
            connection.execute(
                f"UPDATE {table} SET {column} = {column} WHERE ctid IN "  # noqa: S608
                f"(SELECT ctid FROM {table} TABLESAMPLE SYSTEM ({CHANGED_PERCENT}))"
            )


if __name__ == "__main__":
    main()
