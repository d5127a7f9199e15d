"""What a jump back to the good moment costs: rows of the damaged database that the recovered one does not have."""

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
from tmi_ops.runbooks.steps.recover import RecoveredCluster, cluster_programs, wish_of
from tmi_ops.settings import PostgresSettings
from tmi_ops.words import size_words

TITLE = "Nothing is lost"
# Counting must not hold up a recovery; a table that takes longer is named as not counted.
COUNT_TIMEOUT_S = 30
TABLES_SHOWN = 20
COUNT_STEP = Step(name="count", does="count what is lost: the rows of the damaged database against those recovered")


def answer_lost(work: Work, recovered: PostgresSettings) -> None:
    """Write down what is lost, as far as it can be told behind the fence."""
    damaged, cluster = work.settings.postgres, work.known(RecoveredCluster)
    with connect(damaged, "postgres") as connection:
        row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    end = row[0] if row else cluster.lsn
    lost = count_lost(damaged, recovered, cluster, end) if gate_of(work).roles else uncounted(cluster, end)
    work.answer(lost)
    work.say(lost.detail)


def _count_in_cluster(work: Work) -> None:
    wish, cluster = wish_of(work), work.known(RecoveredCluster)
    with running_cluster(tidy(wish.place), cluster.role, cluster_programs(work)) as address:
        answer_lost(work, address.model_copy(update={"database": wish.database}))


def count_lost(damaged: PostgresSettings, recovered: PostgresSettings, cluster: RecoveredCluster, end: str) -> Answer:
    """Compare how many rows each table has, and say how far the recovered database lies behind.

    Args:
        end: LSN at which the damaged server stood behind the fence.
    """
    had, unreadable = _counts(damaged)
    has, _ = _counts(recovered)
    differing = {table: rows - has.get(table, 0) for table, rows in had.items() if rows != has.get(table, 0)}
    findings = [
        f"{table}: {abs(more):,} rows {'more' if more > 0 else 'fewer'} there" for table, more in differing.items()
    ]
    findings += [f"{table} cannot be counted in the damaged database: {why}" for table, why in unreadable.items()]
    missing = sum(more for more in differing.values() if more > 0)
    return Answer(
        title=TITLE,
        outcome="passed" if cluster.whole and not missing else "failed",
        detail=_words(cluster, end, missing),
        findings=(*findings[:TABLES_SHOWN], *_more(len(findings) - TABLES_SHOWN)),
    )


def uncounted(cluster: RecoveredCluster, end: str) -> Answer:
    """Where the fence keeps us out of the damaged database, too: only how far behind it is."""
    return Answer(
        title=TITLE,
        outcome="passed" if cluster.whole else "failed",
        detail=_words(cluster, end, 0),
        findings=(
            "Rows were not counted: the fence lets nobody into the damaged database. Compare it once it is aside.",
        ),
    )


def _words(cluster: RecoveredCluster, end: str, missing: int) -> str:
    since = "it is as its base backup was"
    if cluster.last_commit_at is not None:
        since = f"its last transaction is of {cluster.last_commit_at:%Y-%m-%d %H:%M:%S %Z}"
    if cluster.whole and not missing:
        return f"It was recovered to the end of the WAL, and {since}."
    behind = max(0, parse_lsn(end) - parse_lsn(cluster.lsn))
    rows = f" The damaged database has {missing:,} rows that it does not have." if missing else ""
    hole = f" WAL segment {cluster.missing} is missing from the archive." if cluster.missing else ""
    return (
        f"Lost is what was committed after LSN {cluster.lsn}: {since}; {size_words(behind)} of WAL lie beyond."
        f"{hole}{rows}"
    )


def _counts(postgres: PostgresSettings) -> tuple[Mapping[str, int], Mapping[str, str]]:
    """Rows by table, and why others could not be counted."""
    counts: dict[str, int] = {}
    unreadable: dict[str, str] = {}
    with connect(postgres) as connection:
        connection.execute(f"SET statement_timeout = '{COUNT_TIMEOUT_S}s'")
        # An index may be sound where its table is not; a row is counted where it lies.
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
    return (f"and {number} tables more",) if number > 0 else ()


COUNT = Action(_count_in_cluster, needs=("recover",))
