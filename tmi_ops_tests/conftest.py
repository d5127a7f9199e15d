"""Real servers for the tests, one of each for the whole run: PostgreSQL, S3, Redis protocol."""

from __future__ import annotations

import os
import secrets
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from pydantic import SecretStr

from tmi_ops.postgres.cluster import free_port
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs, found_programs, server_programs
from tmi_ops.settings import OBJECTIVES, PostgresSettings, RedisSettings, Settings, StoreSettings
from tmi_ops.stack.ports import seaweed_ports
from tmi_ops.stack.postgresql import throwaway_server
from tmi_ops.stack.seaweedfs import S3Credentials, start_seaweedfs
from tmi_ops.stack.valkey import start_valkey
from tmi_ops_tests.raw_s3 import raw_client

# A shell that runs the tests in the background has them ignore Ctrl-C, and so would every program they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example may take says something of the machine alone.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")

# The server's programs; `make test-versions` names each PostgreSQL of this machine in turn.
BINDIR_VARIABLE = "TMI_OPS_TEST_PG_BINDIR"
SOURCE_MAJOR = 17
# A worker that begins one of these last lets the others wait for it.
LONGEST = (
    "orchestration/test_daemon.py",
    "runbooks/test_corruption.py",
    "wal/receiving/test_faults.py",
    "stack/test_life_of_a_stack.py",
    "wal/receiving/test_histories.py",
    "orchestration/test_foreign_database.py",
    "orchestration/test_recovery_runbooks.py",
    "orchestration/test_main_job.py",
    "access/test_by_the_book.py",
    "stack/test_standing_stack.py",
    "recovery/point_in_time/test_targets.py",
    "shadow/test_replaying.py",
    "drill/test_execution.py",
    "rescue/test_property.py",
)
SOURCE_PARAMETERS = {"wal_level": "replica", "max_wal_senders": "4", "max_connections": "100"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, then those that start servers, so that all workers end at about the same time."""
    tests = Path(__file__).parent
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))

    def turn(item: pytest.Item) -> tuple[int, int]:
        name = str(item.path.relative_to(tests))
        return LONGEST.index(name) if name in LONGEST else len(LONGEST), -slow[item.path]

    items.sort(key=turn)


@pytest.fixture(scope="session")
def programs() -> Programs:
    bindir = os.environ.get(BINDIR_VARIABLE)
    if not bindir:
        return server_programs(SOURCE_MAJOR)
    return server_programs(found_programs(Path(bindir))[0].major, Path(bindir))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Iterator[PostgresSettings]:
    """A PostgreSQL server for the whole run; each test makes its own database in it."""
    root = tmp_path_factory.mktemp("server")
    with throwaway_server(programs, root, parameters=SOURCE_PARAMETERS) as cluster:
        yield cluster.address


@pytest.fixture
def database(server: PostgresSettings) -> Iterator[PostgresSettings]:
    """An empty database of its own for one test."""
    name = f"tmi_{secrets.token_hex(4)}"
    with connect(server) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield server.model_copy(update={"database": name})
    with connect(server) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreSettings]:
    """An S3 server for the whole run, without a bucket."""
    root = tmp_path_factory.mktemp("s3")
    ports = seaweed_ports()
    credentials = S3Credentials("tmi-ops-tests", SecretStr(secrets.token_urlsafe(24)))
    service = start_seaweedfs(root / "data", ports, credentials, root / "s3.log")
    yield StoreSettings(
        endpoint_url=f"http://127.0.0.1:{ports.s3}",
        access_key_id=SecretStr(credentials.access_key_id),
        secret_access_key=credentials.secret_access_key,
    )
    service.process.kill()  # its orderly stop takes 20 s, and its data is thrown away
    service.stop()


@pytest.fixture(scope="session")
def shared_bucket(s3: StoreSettings) -> str:
    """One bucket for the whole run: the S3 server keeps volumes for each, and runs out of them."""
    return make_bucket(s3)


def make_bucket(s3: StoreSettings) -> str:
    bucket = f"test-{secrets.token_hex(6)}"
    raw_client(s3).create_bucket(Bucket=bucket)
    return bucket


@pytest.fixture
def store_settings(s3: StoreSettings, shared_bucket: str) -> StoreSettings:
    """A store of its own for one test."""
    return s3.model_copy(update={"bucket": shared_bucket, "prefix": f"tmi-ops-{secrets.token_hex(6)}"})


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisSettings]:
    root = tmp_path_factory.mktemp("redis")
    password = SecretStr(secrets.token_urlsafe(24))
    port = free_port()
    service = start_valkey(root / "data", port, password, root / "valkey.log")
    yield RedisSettings(host="127.0.0.1", port=port, password=password)
    service.stop()


@pytest.fixture
def settings(
    database: PostgresSettings, store_settings: StoreSettings, redis_server: RedisSettings, tmp_path: Path
) -> Settings:
    """Settings of a development environment on the real servers, with its own database, bucket and home."""
    return Settings(
        environment="development",
        postgres=database,
        redis=redis_server,
        store=store_settings,
        objectives=OBJECTIVES["development"],
        home=tmp_path / "home",
    )
