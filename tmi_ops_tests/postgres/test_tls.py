"""A server that lets in encrypted connections only, verified against a certificate authority of its owner's own.

Its pg_hba.conf has nothing but hostssl lines, so whatever succeeds here was encrypted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tmi_ops.backup.base import back_up_base
from tmi_ops.backup.logical import back_up_logical
from tmi_ops.checks.finding import Outcome
from tmi_ops.diagnosis.diagnose import diagnose
from tmi_ops.errors import DatabaseError, OpsError, ProgramError
from tmi_ops.postgres.connections import connect, libpq_environment
from tmi_ops.postgres.programs import Programs, run_program
from tmi_ops.postgres.replication import connect_replication
from tmi_ops.progress import SilentReport
from tmi_ops.schema.engine import snapshot
from tmi_ops.settings import PostgresSettings, StoreSettings
from tmi_ops.store.catalogue import list_backups
from tmi_ops.store.objects import open_store
from tmi_ops.wal.receiver import StreamOptions, catch_up_wal
from tmi_ops_tests.certificates import Authority, Certificate, make_authority, skip_without_tls
from tmi_ops_tests.diagnosis.asserting import assert_cause
from tmi_ops_tests.house import House, house
from tmi_ops_tests.physical import reload_configuration, settings_for
from tmi_ops_tests.variables import variables_of

HOST = "localhost"
ONLY_TLS = "hostssl all all all scram-sha-256\nhostssl replication all all scram-sha-256\n"
Way = Literal["psycopg", "replication", "pg_dump"]
WAYS: tuple[Way, ...] = ("psycopg", "replication", "pg_dump")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority") / "ours", "the owner's own CA")


@pytest.fixture(scope="module")
def tls_house(tmp_path_factory: pytest.TempPathFactory, programs: Programs, authority: Authority) -> Iterator[House]:
    skip_without_tls(programs)
    served = authority.certify(HOST)
    with house(programs, tmp_path_factory.mktemp("tls")) as built:
        install(served, built)
        (built.data / "ca.crt").write_bytes(authority.file.read_bytes())
        built.identity.take_over(built.data / "ca.crt")
        (built.data / "pg_hba.conf").write_text(ONLY_TLS)
        built.address = built.address.model_copy(
            update={"host": HOST, "sslmode": "verify-full", "sslrootcert": str(authority.file)}
        )
        built.configure_files({"ssl": "on", "ssl_ca_file": "ca.crt", "listen_addresses": HOST})
        built.run("CREATE TABLE secrets AS SELECT i, md5(i::text) FROM generate_series(1, 1000) i")
        yield built


def install(certificate: Certificate, server: House) -> None:
    """As the server's own; takes effect with its next start or reload."""
    for file, place in ((certificate.certificate, "server.crt"), (certificate.key, "server.key")):
        (server.data / place).write_bytes(file.read_bytes())
        (server.data / place).chmod(0o600)
        server.identity.take_over(server.data / place)


@pytest.fixture
def verified(tls_house: House) -> PostgresSettings:
    return tls_house.address


def reach(way: Way, postgres: PostgresSettings, programs: Programs) -> None:
    """Log in on one of the three ways on which tmi_ops does."""
    if way == "psycopg":
        with connect(postgres) as connection:
            connection.execute("SELECT 1")
    elif way == "replication":
        with connect_replication(postgres) as connection:
            connection.query("IDENTIFY_SYSTEM")
    else:
        run_program([programs.path("pg_dump"), "--schema-only"], env=libpq_environment(postgres))


def test_psycopg_verifies_authority_and_name_and_the_session_is_encrypted(verified: PostgresSettings) -> None:
    with connect(verified) as connection:
        row = connection.execute("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
    assert row is not None
    assert row[0]
    assert row[1] in ("TLSv1.2", "TLSv1.3")
    with snapshot(verified) as engine:
        assert engine.exec_driver_sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").scalar()


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_verifies_authority_and_name(way: Way, verified: PostgresSettings, programs: Programs) -> None:
    reach(way, verified, programs)


@pytest.mark.slow
def test_logical_backup_base_backup_and_wal_travel_encrypted(
    verified: PostgresSettings, store_settings: StoreSettings, tmp_path: Path
) -> None:
    settings = settings_for(verified, store_settings, tmp_path)
    store = open_store(store_settings, settings.environment)
    dumped = back_up_logical(settings, store, "custom", SilentReport())
    assert dumped.fingerprints["public.secrets"].rows == 1000
    based = back_up_base(settings, store, SilentReport())
    received = catch_up_wal(settings, store, SilentReport(), StreamOptions())
    assert received is not None
    assert received.segments >= 1
    assert {entry.manifest.backup_id for entry in list_backups(store)} == {dumped.backup_id, based.backup_id}


@pytest.mark.parametrize("way", WAYS)
def test_a_certificate_of_another_authority_is_refused_and_the_setting_named(
    way: Way, verified: PostgresSettings, programs: Programs, tmp_path: Path
) -> None:
    stranger = make_authority(tmp_path / "stranger", "somebody else's CA")
    wrong = verified.model_copy(update={"sslrootcert": str(stranger.file)})
    error = refusal(way, wrong, programs)
    assert "certificate verify failed" in str(error)
    if way != "pg_dump":
        assert "POSTGRES_SSLROOTCERT" in error.hint
        assert not error.transient


@pytest.mark.parametrize("way", WAYS)
def test_a_certificate_for_another_host_is_refused_and_both_names_are_said(
    way: Way, verified: PostgresSettings, programs: Programs
) -> None:
    error = refusal(way, verified.model_copy(update={"host": "127.0.0.1"}), programs)
    assert 'server certificate for "localhost"' in str(error)
    assert 'does not match host name "127.0.0.1"' in str(error)
    if way != "pg_dump":
        assert "POSTGRES_HOST" in error.hint
        assert not error.transient


@pytest.mark.parametrize("way", WAYS)
def test_a_connection_unverified_is_refused_by_the_server_and_the_setting_named(
    way: Way, verified: PostgresSettings, programs: Programs
) -> None:
    error = refusal(way, verified.model_copy(update={"sslmode": "disable"}), programs)
    assert re.search("no encryption|SSL off", str(error))
    if way != "pg_dump":
        assert "POSTGRES_SSLMODE=require" in error.hint


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_asks_for_a_client_certificate_lets_in_who_shows_one(
    way: Way, tls_house: House, authority: Authority, programs: Programs
) -> None:
    ours = authority.certify("tmi_backup")
    with tls_house.role("REPLICATION", reads=True) as role:
        how = "scram-sha-256 clientcert=verify-ca"
        lines = [f"hostssl {database} {role.user} all {how}" for database in ("all", "replication")]
        with tls_house.hba(*lines):
            error = refusal(way, role, programs)
            assert "requires a valid client certificate" in str(error)
            if way != "pg_dump":
                assert "POSTGRES_SSLCERT" in error.hint
            shown = role.model_copy(update={"sslcert": str(ours.certificate), "sslkey": str(ours.key)})
            reach(way, shown, programs)


def test_a_missing_authority_is_named(verified: PostgresSettings, programs: Programs) -> None:
    error = refusal("psycopg", verified.model_copy(update={"sslrootcert": "/no/such/ca.crt"}), programs)
    assert "/no/such/ca.crt" in str(error)
    assert "POSTGRES_SSLROOTCERT" in error.hint


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"POSTGRES_HOST": "127.0.0.1"}, ("another name than 127.0.0.1", '"localhost"'), id="other name"),
        pytest.param({"POSTGRES_SSLMODE": "disable"}, ("only hostssl lines", "POSTGRES_SSLMODE=require"), id="clear"),
        pytest.param({"POSTGRES_SSLROOTCERT": "/no/such/ca.crt"}, ("/no/such/ca.crt", "cannot be read"), id="no file"),
    ],
)
def test_the_doctor_names_tls_and_the_setting_that_mends_it(
    verified: PostgresSettings,
    store_settings: StoreSettings,
    tmp_path: Path,
    changes: dict[str, str],
    words: tuple[str, ...],
) -> None:
    whole = variables_of(settings_for(verified, store_settings, tmp_path))
    whole |= {"POSTGRES_SSLROOTCERT": verified.sslrootcert or ""}
    healthy = diagnose(whole, tmp_path)
    assert "verified" in healthy.result("tls").answer.seen
    assert not healthy.result("replication").answer.cause
    broken = diagnose({**whole, **changes}, tmp_path)
    assert_cause(broken, "tls", *words)
    assert broken.result("authentication").because == "tls"


def test_the_doctor_tells_a_strange_authority(
    verified: PostgresSettings, store_settings: StoreSettings, tmp_path: Path
) -> None:
    stranger = make_authority(tmp_path / "stranger", "somebody else's CA")
    variables = variables_of(settings_for(verified, store_settings, tmp_path))
    diagnosis = diagnose({**variables, "POSTGRES_SSLROOTCERT": str(stranger.file)}, tmp_path)
    assert_cause(diagnosis, "tls", f"was not signed by the authority in {stranger.file}", "openssl s_client")


def test_the_doctor_sees_a_certificate_end_before_it_does_and_afterwards(
    tls_house: House, authority: Authority, store_settings: StoreSettings, tmp_path: Path
) -> None:
    variables = variables_of(settings_for(tls_house.address, store_settings, tmp_path))
    variables |= {"POSTGRES_SSLROOTCERT": str(authority.file)}
    unverified = tls_house.address.model_copy(update={"sslmode": "require", "sslrootcert": None})
    try:
        install(authority.certify(HOST, days=3), tls_house)
        reload_configuration(unverified)
        soon = diagnose(variables, tmp_path).result("tls")
        assert soon.outcome is Outcome.WARNING
        assert "SELECT pg_reload_conf();" in soon.answer.advice.steps

        install(authority.certify_for_the_past(HOST), tls_house)
        reload_configuration(unverified)
        assert_cause(diagnose(variables, tmp_path), "tls", "certificate has expired", "date -u", "x509 -noout -dates")
    finally:
        install(authority.certify(HOST), tls_house)
        reload_configuration(unverified)
    assert diagnose(variables, tmp_path).result("tls").outcome is Outcome.OK


def refusal(way: Way, postgres: PostgresSettings, programs: Programs) -> OpsError:
    kind = ProgramError if way == "pg_dump" else DatabaseError
    with pytest.raises(kind) as caught:
        reach(way, postgres, programs)
    return caught.value
