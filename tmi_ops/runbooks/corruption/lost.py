"""Counts what is lost: rows of the damaged database that the recovered one does not have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from tmi_ops.backup.snapshot import TableName, list_tables
from tmi_ops.drill.copy import running_cluster
from tmi_ops.errors import first_line
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.runbooks.execution import Action, Work
from tmi_ops.runbooks.journal import Answer
from tmi_ops.runbooks.plan import Step
from tmi_ops.runbooks.steps.fence import gate_of
from tmi_ops.runbooks.steps.place import tidy
from tmi_ops.runbooks.steps.recover import RecoveredCluster, cluster_programs, request_of
from tmi_ops.settings import PostgresSettings
from tmi_ops.text import format_size

TITLE = "No data lost"
# Counting must not delay a recovery; a table that takes longer is reported as not counted.
COUNT_TIMEOUT_S = 30
TABLES_SHOWN = 20
COUNT_STEP = Step(name="count", does="count lost rows: compare row counts of the damaged and the recovered database")


def answer_lost(work: Work, recovered: PostgresSettings) -> None:
    """Record what is lost, as far as the fence allows to find out."""
    damaged, cluster = work.settings.postgres, work.known(RecoveredCluster)
    with connect(damaged, "postgres") as connection:
        row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    end = row[0] if row else cluster.lsn
    lost = count_lost(damaged, recovered, cluster, end) if gate_of(work).roles else uncounted(cluster, end)
    work.answer(lost)
    work.say(lost.detail)


def _count_in_cluster(work: Work) -> None:
    request, cluster = request_of(work), work.known(RecoveredCluster)
    with running_cluster(tidy(request.place), cluster.role, cluster_programs(work)) as address:
        answer_lost(work, address.model_copy(update={"database": request.database}))


def count_lost(damaged: PostgresSettings, recovered: PostgresSettings, cluster: RecoveredCluster, end: str) -> Answer:
    """Compare the row counts of all tables, and report how far behind the recovered database is.

    Args:
        end: the damaged server's LSN after it was fenced.
    """
    had, unreadable = _counts(damaged)
    has, _ = _counts(recovered)
    differing = {table: rows - has.get(table, 0) for table, rows in had.items() if rows != has.get(table, 0)}
    findings = [
        f"{table}: the damaged database has {abs(more):,} {'more' if more > 0 else 'fewer'} rows"
        for table, more in differing.items()
    ]
    findings += [f"{table} cannot be counted in the damaged database: {why}" for table, why in unreadable.items()]
    missing = sum(more for more in differing.values() if more > 0)
    return Answer(
        title=TITLE,
        outcome="passed" if cluster.whole and not missing else "failed",
        detail=_describe(cluster, end, missing),
        findings=(*findings[:TABLES_SHOWN], *_more(len(findings) - TABLES_SHOWN)),
    )


def uncounted(cluster: RecoveredCluster, end: str) -> Answer:
    """If the fence shuts us out of the damaged database too: only how far behind it is."""
    return Answer(
        title=TITLE,
        outcome="passed" if cluster.whole else "failed",
        detail=_describe(cluster, end, 0),
        findings=(
            "Rows were not counted: the fence closes the damaged database to everyone. Compare it after the swap.",
        ),
    )


def _describe(cluster: RecoveredCluster, end: str, missing: int) -> str:
    since = "no transaction after the base backup"
    if cluster.last_commit_at is not None:
        since = f"last transaction: {cluster.last_commit_at:%Y-%m-%d %H:%M:%S %Z}"
    if cluster.whole and not missing:
        return f"Recovered to the end of the WAL; {since}."
    behind = max(0, parse_lsn(end) - parse_lsn(cluster.lsn))
    rows = f" The recovered database lacks {missing:,} rows of the damaged one." if missing else ""
    hole = f" WAL segment {cluster.missing} is missing from the archive." if cluster.missing else ""
    return (
        f"Commits after LSN {cluster.lsn} are lost ({since}); {format_size(behind)} of WAL were not replayed."
        f"{hole}{rows}"
    )


def _counts(postgres: PostgresSettings) -> tuple[Mapping[str, int], Mapping[str, str]]:
    """Row counts by table, and why other tables could not be counted."""
    counts: dict[str, int] = {}
    unreadable: dict[str, str] = {}
    with connect(postgres) as connection:
        connection.execute(f"SET statement_timeout = '{COUNT_TIMEOUT_S}s'")
        # An index may be intact although its table is damaged, so count rows in the table.
        connection.execute("SET enable_indexonlyscan = off")
        connection.execute("SET enable_bitmapscan = off")
        connection.execute("SET enable_indexscan = off")
        for table in list_tables(connection):
            try:
                counts[str(table)] = _count(connection, table)
            except psycopg.Error as error:
                unreadable[str(table)] = first_line(error)
    return counts, unreadable


def _count(connection: psycopg.Connection[Any], table: TableName) -> int:
    row = connection.execute(psycopg.sql.SQL("SELECT count(*) FROM {}").format(table.identifier)).fetchone()
    return int(row[0]) if row else 0


def _more(number: int) -> tuple[str, ...]:
    return (f"and {number} more tables",) if number > 0 else ()


COUNT = Action(_count_in_cluster, needs=("recover",))
