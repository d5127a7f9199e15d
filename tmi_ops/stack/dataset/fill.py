"""Fills a database: one transaction, COPY in the order of the foreign keys."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias

import psycopg
from psycopg import sql

from tmi_ops.errors import DatabaseError, OpsError, first_line
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import Report
from tmi_ops.schema.models import Base
from tmi_ops.settings import PostgresSettings
from tmi_ops.stack.dataset.plan import DatasetPlan, plan_dataset
from tmi_ops.stack.dataset.rows import generate
from tmi_ops.stack.dataset.world import Row, Rows

DEFAULT_SIZE = 100_000_000

Connection: TypeAlias = psycopg.Connection[Any]

# Tables with natural keys: TMI or an operator may have written the same row already, which is kept.
MAY_BE_THERE = frozenset({"system_settings", "webhook_url_deny_list"})


@dataclass(frozen=True)
class DatasetSummary:
    """What was written: rows by table, the database's size afterwards in bytes, and the seconds it took."""

    rows: Mapping[str, int]
    bytes: int
    seconds: float


def fill_database(
    postgres: PostgresSettings, report: Report, *, size: int = DEFAULT_SIZE, seed: int = 1
) -> DatasetSummary:
    """Fill a migrated database without threat models with a realistic data set, in one transaction.

    The same seed and size give the same rows. Rows that TMI seeds are not changed or referenced.

    Args:
        size: bytes that the database should have afterwards, within about 10 %. Below some 19 MB, the smallest data set
            with rows in every table is written.
        seed: any number.

    Raises:
        OpsError: the database already has threat models.
        DatabaseError: it could not be reached, lacks tables, or refused a row. In every case nothing was changed.
    """
    started = time.monotonic()
    plan = plan_dataset(size, seed)
    with connect(postgres) as connection:
        try:
            with connection.transaction():
                _require_room(connection)
                written = _write(connection, plan, report)
        except psycopg.Error as error:
            raise _refused(postgres, error, "Nothing was changed.", "run `tmi-ops migrate`, then try again") from error
        try:
            _tidy(connection, report)
            size_now = _database_size(connection)
        except psycopg.Error as error:
            kept = "The data set was written completely."
            raise _refused(postgres, error, kept, "run VACUUM (ANALYZE) in the database") from error
    return DatasetSummary(rows=dict(written), bytes=size_now, seconds=time.monotonic() - started)


def _refused(postgres: PostgresSettings, error: psycopg.Error, kept: str, hint: str) -> DatabaseError:
    said = first_line(error)
    return DatabaseError(f"{postgres.describe()} refused the data set: {said}.", detail=kept, hint=hint)


def _require_room(connection: Connection) -> None:
    names = [table.name for table in Base.metadata.sorted_tables]
    missing = connection.execute(
        "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(quote_ident(name)) IS NULL", [names]
    ).fetchall()
    if missing:
        raise DatabaseError(
            f"The database lacks {len(missing)} of TMI's {len(names)} tables, {missing[0][0]} among them.",
            hint="run `tmi-ops migrate`, then try again",
        )
    # Held to the end of the transaction, so that a second one finds the rows of the first.
    connection.execute("LOCK TABLE threat_models IN SHARE ROW EXCLUSIVE MODE")
    if connection.execute("SELECT FROM threat_models LIMIT 1").fetchone() is not None:
        raise OpsError(
            "The database already has threat models; a data set is only written to an empty one.",
            hint="set POSTGRES_DB to a new database, run `tmi-ops migrate`, then try again",
        )


def _write(connection: Connection, plan: DatasetPlan, report: Report) -> Counter[str]:
    written: Counter[str] = Counter()
    order = [table.name for table in Base.metadata.sorted_tables]
    with report.phase("threat models written", total=plan.threat_models, unit="objects") as phase:
        for batch in _ahead(generate(plan)):
            for table in order:
                if batch[table]:
                    written[table] += _insert(connection, table, batch[table])
            phase.advance(len(batch["threat_models"]))
    return written


def _ahead(batches: Iterator[Rows]) -> Iterator[Rows]:
    """The batches, each generated while the server still processes the one before."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch


def _insert(connection: Connection, table: str, rows: list[Row]) -> int:
    if table in MAY_BE_THERE:
        return _insert_absent(connection, table, rows)
    columns = tuple(rows[0])
    values = itemgetter(*columns)
    with connection.cursor() as cursor, cursor.copy(_statement("COPY {} ({}) FROM STDIN", table, columns)) as copy:
        for row in rows:
            copy.write_row(values(row))
    return len(rows)


def _insert_absent(connection: Connection, table: str, rows: list[Row]) -> int:
    columns = tuple(rows[0])
    statement = _statement("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING", table, columns)
    with connection.cursor() as cursor:
        cursor.executemany(statement, [tuple(row[column] for column in columns) for row in rows])
        return cursor.rowcount


def _statement(text: Any, table: str, columns: tuple[str, ...]) -> sql.Composed:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    places = sql.SQL(", ").join([sql.Placeholder()] * len(columns))
    return sql.SQL(text).format(sql.Identifier(table), names, places)


def _tidy(connection: Connection, report: Report) -> None:
    """VACUUM (ANALYZE), as autovacuum would have done in a database that grew over two years."""
    tables = Base.metadata.sorted_tables
    with report.phase("vacuum and analyse", total=len(tables), unit="tables") as phase:
        for table in tables:
            connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(table.name)))
            phase.advance(1)


def _database_size(connection: Connection) -> int:
    row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return int(row[0]) if row else 0
