"""Rows brought back from the past: everything that hung on all threat models, after TRUNCATE threat_models CASCADE.

    python -m benchmarks.rescue --size 1.3e8 --rounds 3

Nothing but the store and the emptied database: each round restores the base backup and replays WAL to just before the
accident, follows foreign keys, compares, writes, compares again, and commits.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click
import psycopg

from benchmarks.rescuing import Asked, rescue_alone
from benchmarks.servers import Servers, make_database, servers
from tmi_ops.backup.base import back_up_base
from tmi_ops.backup.fingerprint import fingerprint_tables
from tmi_ops.backup.snapshot import exported_snapshot
from tmi_ops.postgres.connections import connection_parameters
from tmi_ops.progress import SilentReport
from tmi_ops.rescue.selection import Selection, TableRows
from tmi_ops.settings import Settings
from tmi_ops.store.manifest import TableFingerprint
from tmi_ops.store.objects import open_store
from tmi_ops.wal.receiver import StreamOptions, catch_up_wal

ENVIRONMENT = "development"
ACCIDENT = "TRUNCATE threat_models CASCADE"
_REPORT = SilentReport()


@click.command()
@click.option("--size", type=float, default=1.3e8, show_default=True, help="Bytes of the TMI database.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
def main(size: float, rounds: int) -> None:
    """Measure rescues; each is proven by the fingerprint of every table."""
    parameters = {"full_page_writes": "on", "max_replication_slots": "2"}
    with tempfile.TemporaryDirectory() as directory, servers(Path(directory), parameters=parameters) as parts:
        Path(directory).chmod(0o755)
        settings = parts.settings(ENVIRONMENT, Path(directory) / "home")
        store = open_store(parts.store, ENVIRONMENT)
        made = make_database(parts.postgres, int(size))
        catch_up_wal(settings, store, _REPORT, StreamOptions())
        back_up_base(settings, store, _REPORT)
        whole, before = _fingerprints(settings), _lsn(parts)
        _run(parts, ACCIDENT)
        emptied = [table for table, left in _fingerprints(settings).items() if left.rows < whole[table].rows]
        selection = Selection(tuple(map(TableRows, emptied)))
        rounds_taken = []
        for _ in range(rounds):
            catch_up_wal(settings, store, _REPORT, StreamOptions())
            rounds_taken.append(rescue_alone(Asked(settings, before, selection)))
            assert _fingerprints(settings) == whole
            _run(parts, ACCIDENT)
    click.echo(
        f"\n{rounds_taken[0].rows:,} rows of a database of {made.bytes / 1e6:.0f} MB with {sum(made.rows.values()):,} "
        "rows\n\n|  | median s | each s |\n| --- | ---: | ---: |"
    )
    for name, each in (
        ("restore the past beside", [took.restore for took in rounds_taken]),
        ("find, compare and plan", [took.plan for took in rounds_taken]),
        ("write, compare again, commit", [took.write for took in rounds_taken]),
        ("in all", [took.whole for took in rounds_taken]),
        ("CPU of the rescuing process", [took.cpu for took in rounds_taken]),
        ("CPU of the session in the past", [took.cpu_past for took in rounds_taken]),
        ("CPU of the session in the living database", [took.cpu_living for took in rounds_taken]),
    ):
        click.echo(f"| {name} | {statistics.median(each):.1f} | {' '.join(f'{one:.1f}' for one in each)} |")
    click.echo(f"\nPeak memory of the rescuing process: {max(took.memory for took in rounds_taken):.0f} MB")


def _fingerprints(settings: Settings) -> Mapping[str, TableFingerprint]:
    with exported_snapshot(settings.postgres) as snapshot:
        return fingerprint_tables(snapshot.connection, snapshot.tables, _REPORT)


def _lsn(parts: Servers) -> str:
    with psycopg.connect(**connection_parameters(parts.postgres), autocommit=True) as connection:
        row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
    return str(row[0]) if row else ""


def _run(parts: Servers, statement: str) -> None:
    with psycopg.connect(**connection_parameters(parts.postgres), autocommit=True) as connection:
        connection.execute(statement.encode())
        # An ordinary commit after it, so that the WAL goes beyond the moment.
        connection.execute("SELECT pg_logical_emit_message(true, 'benchmark', 'after')")


if __name__ == "__main__":
    main()
