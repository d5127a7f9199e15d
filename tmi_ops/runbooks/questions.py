"""Checks of a recovered cluster before it is used: those of a drill."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tmi_ops.checks import finding as checks
from tmi_ops.drill.chain import Bound
from tmi_ops.drill.checks import (
    bound_of,
    check_built_in_rows,
    check_heartbeat,
    check_relations,
    check_schema,
)
from tmi_ops.drill.copy import check_pages, running_cluster
from tmi_ops.drill.evidence import TITLES, CheckName
from tmi_ops.drill.findings import STORED, answer_to, failed, said
from tmi_ops.drill.source import SourceReading, read_schema
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.recovery.exchange import allow_connections
from tmi_ops.recovery.point_in_time.destination import Destination
from tmi_ops.recovery.point_in_time.execution import Recovered
from tmi_ops.runbooks.journal import Answer
from tmi_ops.settings import PostgresSettings


def check_recovered(
    recovered: Recovered, destination: Destination, programs: Programs, database: str, source: SourceReading | None
) -> tuple[Answer, ...]:
    """Check a stopped cluster: first its pages, then, started, its relations, schema, built-in rows and heartbeat.

    Args:
        source: the live database's schema and heartbeat; None if it could not be read.

    Raises:
        RecoveryError: it does not start.
    """
    pages = _asked("page_checksums", lambda: check_pages(recovered, programs))
    base = recovered.plan.base
    with running_cluster(destination, base.superuser or base.role, programs) as address:
        return (pages, *check_running(address, programs, database, source, bound_of(recovered)))


def check_running(
    address: PostgresSettings, programs: Programs, database: str, source: SourceReading | None, bound: Bound
) -> tuple[Answer, ...]:
    """Check a running cluster that nobody else uses; `address` is its superuser's.

    If the fence closed the database, the copy is closed too (through WAL), so it is opened here.
    """
    with connect(address) as connection:
        shut = connection.execute(
            "SELECT FROM pg_database WHERE datname = %s AND NOT datallowconn", (database,)
        ).fetchone()
        if shut is not None:
            allow_connections(connection, database, allowed=True)
    with _amcheck_cleared_away(address):
        relations = _asked("amcheck", lambda: check_relations(address, programs))
    return (relations, *check_database(address, database, source, bound))


def check_database(
    address: PostgresSettings, database: str, source: SourceReading | None, bound: Bound
) -> tuple[Answer, ...]:
    """Check the schema, built-in rows and heartbeat of a running cluster; `address` is its superuser's."""
    if not _has_database(address, database):
        absent = failed(f"The cluster has no database {database}.")
        return (_asked("schema", lambda: absent),)
    of_tmi = address.model_copy(update={"database": database})
    reading = functools.cache(lambda: read_schema(of_tmi))
    schema = source.schema if source else None
    beats = source.beats if source else None
    return (
        _asked("schema", lambda: check_schema(reading(), schema)),
        _asked("built_in_rows", lambda: check_built_in_rows(reading(), schema)),
        _asked("heartbeat", lambda: check_heartbeat(of_tmi, bound, beats)),
    )


def failed_checks(answers: tuple[Answer, ...]) -> str:
    """The failed checks in one line; empty if none failed."""
    return " ".join(f"{one.title}: {one.detail}" for one in answers if one.outcome == "failed")


def _asked(name: CheckName, question: Callable[[], checks.Answer]) -> Answer:
    begun = time.monotonic()
    found = answer_to(question)
    return Answer(
        title=TITLES[name],
        outcome=STORED[found.outcome],
        detail=found.seen,
        findings=said(found),
        seconds=time.monotonic() - begun,
    )


@contextmanager
def _amcheck_cleared_away(address: PostgresSettings) -> Iterator[None]:
    """pg_amcheck needs its extension in each database; drop it where it was not installed before."""
    lacking = [name for name in _databases(address) if not _has_amcheck(address, name)]
    try:
        yield
    finally:
        for name in lacking:
            with connect(address, name) as connection:
                connection.execute("DROP EXTENSION IF EXISTS amcheck")


def _databases(address: PostgresSettings) -> list[str]:
    with connect(address) as connection:
        return [name for (name,) in connection.execute("SELECT datname FROM pg_database WHERE datallowconn").fetchall()]


def _has_database(address: PostgresSettings, name: str) -> bool:
    return name in _databases(address)


def _has_amcheck(address: PostgresSettings, database: str) -> bool:
    with connect(address, database) as connection:
        return connection.execute("SELECT FROM pg_extension WHERE extname = 'amcheck'").fetchone() is not None
