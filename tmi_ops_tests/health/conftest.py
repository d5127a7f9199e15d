"""One server for all of health's tests, set up so that every bad state can be made for real; a database for each."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from tmi_ops.health.counters import Counters
from tmi_ops.health.counting import read_counters
from tmi_ops.health.examine import Examination, Examined, ask, thresholds_in_force
from tmi_ops.health.last_reading import Kept, window
from tmi_ops.health.registry import PROBES
from tmi_ops.health.session import ProbeSession
from tmi_ops.postgres.cluster import RunningCluster
from tmi_ops.postgres.connections import connect, connection_parameters
from tmi_ops.postgres.programs import Programs
from tmi_ops.settings import OBJECTIVES, PostgresSettings, RedisSettings, Settings, StoreSettings
from tmi_ops.stack.postgresql import throwaway_server

WELL_EQUIPPED = {
    "wal_level": "logical",
    "max_wal_senders": "6",
    "max_prepared_transactions": "5",
    "max_connections": "40",
    "shared_preload_libraries": "pg_stat_statements",
    "autovacuum": "on",
    "autovacuum_naptime": "2147483",  # it is on, and never comes: the tests see what it would find
    "logging_collector": "on",
    "log_filename": "server.log",
    "archive_mode": "on",
    "shared_buffers": "64MB",
    "listen_addresses": "*",
}
PATIENCE_S = 15.0
# What a session has done is seen in the statistics by the next one.
FLUSH = "SELECT pg_stat_force_next_flush()"
STATISTICS_IN_MEMORY_SINCE = 150000


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Iterator[RunningCluster]:
    with throwaway_server(programs, tmp_path_factory.mktemp("health"), parameters=WELL_EQUIPPED) as running:
        with connect(running.address) as connection:
            run_on(connection, "ALTER SYSTEM SET archive_command = '/bin/true'", "SELECT pg_reload_conf()")
        yield running


@pytest.fixture(scope="session")
def server(cluster: RunningCluster) -> PostgresSettings:
    """Also what the project's `database` fixture makes its databases in."""
    return cluster.address


@pytest.fixture
def at_home(database: PostgresSettings, tmp_path: Path) -> Settings:
    """Settings without a store, so that an examination takes no time over S3."""
    return Settings(
        environment="development",
        postgres=database,
        redis=RedisSettings(),
        store=StoreSettings(),
        objectives=OBJECTIVES["development"],
        home=tmp_path / "home",
    )


@pytest.fixture
def sql(database: PostgresSettings) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Run statements in the test's database; the rows of the last are returned."""
    with connect(database) as connection:
        yield lambda *statements: run_on(connection, *statements)


@pytest.fixture
def another_session(database: PostgresSettings) -> Iterator[Callable[..., psycopg.Connection[Any]]]:
    """Open sessions of an application; all end with the test."""
    with ExitStack() as stack:

        def open_session(**changes: Any) -> psycopg.Connection[Any]:
            parameters = {**connection_parameters(database), "application_name": "shop", **changes}
            connection = psycopg.connect(**parameters, autocommit=True)
            stack.callback(connection.close)
            return connection

        yield open_session


@pytest.fixture
def monitor(database: PostgresSettings) -> Iterator[PostgresSettings]:
    """A role with pg_monitor and CONNECT, and nothing else."""
    with role(database, "GRANT pg_monitor TO {name}") as settings:
        yield settings


@pytest.fixture
def stranger(database: PostgresSettings) -> Iterator[PostgresSettings]:
    """A role that may connect, and nothing else."""
    with role(database) as settings:
        yield settings


@contextmanager
def role(database: PostgresSettings, *grants: str) -> Iterator[PostgresSettings]:
    """A login role for the length of a `with` block; `{name}` and `{database}` in grants are filled in."""
    name, password = f"role_{secrets.token_hex(4)}", secrets.token_urlsafe(12)
    with connect(database) as connection:
        run_on(connection, f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
        run_on(connection, f'REVOKE ALL ON DATABASE "{database.database}" FROM PUBLIC')
        run_on(connection, f'GRANT CONNECT ON DATABASE "{database.database}" TO {name}')
        run_on(connection, *(grant.format(name=name, database=database.database) for grant in grants))
        yield database.model_copy(update={"user": name, "password": SecretStr(password)})
        run_on(connection, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def probe(
    postgres: PostgresSettings,
    name: str,
    threshold: str | None = None,
    *,
    last: Counters | None = None,
    exact_bloat: bool = False,
) -> Examined:
    """Ask one probe; `threshold` is `warning,critical`, `last` an earlier reading that rates are measured from."""
    how = Examination(thresholds=(f"{name}={threshold}",) if threshold else ())
    with connect(postgres) as connection:
        session = ProbeSession(connection, postgres, 30.0, exact_bloat)
        session.window = window(Kept(last=last) if last else None, read_counters(session))
        return ask(next(one for one in PROBES if one.name == name), session, thresholds_in_force(how)[name])


def counters(postgres: PostgresSettings) -> Counters:
    """The server's counters now."""
    with connect(postgres) as connection:
        return read_counters(ProbeSession(connection, postgres, 30.0))


def run_on(connection: psycopg.Connection[Any], *statements: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for statement in statements:
        if statement == FLUSH and connection.info.server_version < STATISTICS_IN_MEMORY_SINCE:
            flush_by_waiting(connection)
            continue
        cursor = connection.execute(statement.encode())
        rows = cursor.fetchall() if cursor.description else []
    return rows


def flush_by_waiting(connection: psycopg.Connection[Any]) -> None:
    """A session tells the collector at most every half second, and the collector tells others as seldom."""
    for _ in range(2):
        time.sleep(0.6)
        connection.execute("SELECT 1")


@contextmanager
def in_background(connection: psycopg.Connection[Any], statement: str) -> Iterator[threading.Thread]:
    """Run a statement that will be cut short; it is over when the block ends."""

    def work() -> None:
        try:
            connection.execute(statement.encode())
        except psycopg.Error:
            connection.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        if thread.is_alive() and not connection.closed:
            connection.cancel_safe()
        thread.join(PATIENCE_S)


def eventually(question: Callable[[], Any]) -> Any:
    """Ask again until the answer is true, and return it."""
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := question()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
    return answer


def log_of(cluster: RunningCluster) -> Path:
    return cluster.directory / "log" / "server.log"
