"""A table's content at a moment, in a few bytes: row count and a digest that does not depend on the order of rows.

The digest: SHA-256 of each row's text (as UTF-8, with output settings pinned), of which the first 128 bits are summed
as two signed 64-bit numbers. A sum does not depend on order, counts duplicates, and any SQL client can recompute it.

Rows are converted to text by record_out: a cast to text may be a function of the table's owner, and we may be
superuser.

Restore points use it, as do backups by releases older than the digest of the dump's own bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.backup.snapshot import TableName
from tmi_ops.progress import Report
from tmi_ops.store.manifest import TableFingerprint

DIGEST_BITS = 128

_FINGERPRINT = sql.SQL(
    """
    SELECT count(*),
           coalesce(sum(('x' || substr(digest, 1, 16))::bit(64)::bigint), 0),
           coalesce(sum(('x' || substr(digest, 17, 16))::bit(64)::bigint), 0)
    FROM (SELECT encode(sha256(convert_to(textin(record_out(row_text)), 'UTF8')), 'hex') AS digest
          FROM ONLY {} AS row_text OFFSET 0) AS digests
    """
)


def fingerprint_table(connection: psycopg.Connection[Any], table: TableName) -> TableFingerprint:
    """Fingerprint one table as the connection's snapshot sees it. Output must be pinned (`pin_text_output`)."""
    row = connection.execute(_FINGERPRINT.format(table.identifier)).fetchone()
    if row is None:
        raise AssertionError
    rows, high, low = row
    half = 1 << (DIGEST_BITS // 2)
    return TableFingerprint(rows=rows, digest=f"{int(high) % half:016x}{int(low) % half:016x}")


def fingerprint_tables(
    connection: psycopg.Connection[Any], tables: Iterable[TableName], report: Report
) -> dict[str, TableFingerprint]:
    """Fingerprint each table; the keys are `schema.table`."""
    tables = tuple(tables)
    fingerprints: dict[str, TableFingerprint] = {}
    with report.phase("fingerprint", total=len(tables), unit="tables") as phase:
        for table in tables:
            fingerprints[str(table)] = fingerprint_table(connection, table)
            phase.advance(1)
    return fingerprints


def read_sequences(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """The last value of each sequence, 0 if it was never used. Sequences change regardless of any snapshot."""
    rows = connection.execute(
        "SELECT schemaname || '.' || sequencename, coalesce(last_value, 0) FROM pg_catalog.pg_sequences"
    ).fetchall()
    return {name: int(value) for name, value in rows}


def differing_tables(source: Mapping[str, TableFingerprint], copy: Mapping[str, TableFingerprint]) -> list[str]:
    """How the copy differs from the source, one sentence per table; empty if they are equal."""
    differences = []
    for table in sorted(source.keys() | copy.keys()):
        was, came = source.get(table), copy.get(table)
        if was is None:
            differences.append(f"{table} is in the restored copy but was not in the source")
        elif came is None:
            differences.append(f"{table} is missing from the restored copy")
        elif was.rows != came.rows:
            differences.append(f"{table} had {was.rows} rows, the restored copy has {came.rows}")
        elif was.digest != came.digest:
            differences.append(f"{table} has the same number of rows, {was.rows}, but different content")
    return differences
