"""Connections in the clear and failed logins, from real ones."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tmi_ops.checks.finding import Outcome
from tmi_ops.health.answer import Cause
from tmi_ops.health.probes.security import Encryption, FailedLogins
from tmi_ops.postgres.cluster import RunningCluster
from tmi_ops.postgres.connections import connection_parameters
from tmi_ops.postgres.programs import Programs
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.certificates import skip_without_tls
from tmi_ops_tests.health.conftest import counters, eventually, probe
from tmi_ops_tests.physical import reload_configuration

Open = Callable[..., psycopg.Connection[Any]]
Run = Callable[..., list[tuple[Any, ...]]]


def own_address() -> str | None:
    """An address of this machine that is not loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probing:
        try:
            probing.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address: str = probing.getsockname()[0]
        return None if address.startswith("127.") else address


@pytest.fixture
def remote_address(cluster: RunningCluster, database: PostgresSettings) -> Iterator[str]:
    """The server as another machine would reach it."""
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    hba = cluster.directory / "pg_hba.conf"
    before = hba.read_text()
    hba.write_text(f"{before}\nhost all all {address}/32 scram-sha-256\n")
    reload_configuration(database)
    yield address
    hba.write_text(before)
    reload_configuration(database)


def test_a_connection_from_another_machine_without_tls_is_a_warning(
    database: PostgresSettings, another_session: Open, remote_address: str
) -> None:
    another_session(host=remote_address)
    found = probe(database, "ssl_connections")
    assert found.outcome is Outcome.WARNING
    assert f"from {remote_address}" in found.answer.seen
    assert any("ALTER SYSTEM SET ssl = on" in remedy for remedy in found.answer.advice.sql)


@pytest.fixture
def speaking_tls(programs: Programs, cluster: RunningCluster, database: PostgresSettings, sql: Run) -> Iterator[None]:
    skip_without_tls(programs)
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("this machine has no openssl to make a certificate")
    key, certificate = cluster.directory / "server.key", cluster.directory / "server.crt"
    subprocess.run(
        [openssl, "req", "-new", "-x509", "-nodes", "-days", "1", "-newkey", "ec", "-pkeyopt",
         "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    key.chmod(0o600)
    owner = cluster.directory.stat()
    for file in (key, certificate):
        shutil.chown(file, owner.st_uid, owner.st_gid)
    sql("ALTER SYSTEM SET ssl = on")
    reload_configuration(database)
    yield
    sql("ALTER SYSTEM RESET ssl")
    reload_configuration(database)


@pytest.mark.usefixtures("speaking_tls")
def test_an_encrypted_connection_from_another_machine_is_well(
    database: PostgresSettings, another_session: Open, remote_address: str
) -> None:
    another_session(host=remote_address, sslmode="require")
    found = probe(database, "ssl_connections")
    assert found.outcome is Outcome.OK
    assert isinstance(found.reading, Encryption)
    assert [one.protocol for one in found.reading.connections if one.remote] == ["TLSv1.3"]


def test_failed_logins_are_counted_since_the_last_reading_by_role(database: PostgresSettings) -> None:
    before = counters(database)
    for user in ("mallory", "mallory", database.user):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(**{**connection_parameters(database), "user": user, "password": "guess"})
    found = eventually(
        lambda: (one := probe(database, "failed_logins", "2,100", last=before)).outcome is not Outcome.OK and one
    )
    assert found.outcome is Outcome.WARNING
    assert isinstance(found.reading, FailedLogins)
    assert found.reading.by_role == {"mallory": 2, database.user: 1}
    assert found.reading.complete


def test_a_role_that_may_not_read_the_log_is_told_the_grants_and_they_suffice(
    database: PostgresSettings, monitor: PostgresSettings, sql: Run
) -> None:
    found = probe(monitor, "failed_logins")
    assert (found.outcome, found.cause) == (Outcome.UNKNOWN, Cause.RIGHT)
    sql(*found.answer.advice.sql)
    assert probe(monitor, "failed_logins", "1000000,").outcome is Outcome.OK
    sql(f"REVOKE EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint) FROM {monitor.user}")
    sql(f"REVOKE pg_read_server_files FROM {monitor.user}")


@pytest.mark.slow
def test_a_server_that_logs_elsewhere_is_said_so(programs: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    from tmi_ops.stack.postgresql import throwaway_server

    with throwaway_server(programs, tmp_path_factory.mktemp("stderr")) as running:
        found = probe(running.address, "failed_logins")
        assert (found.outcome, found.cause) == (Outcome.UNKNOWN, Cause.NOT_VISIBLE)
        assert "standard error" in found.answer.seen
