"""Lines of pg_hba.conf, and connections others could read, found on a real server that speaks TLS."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tmi_ops.access.declared import RoleKind
from tmi_ops.access.facts import HbaRule
from tmi_ops.access.findings import Drift
from tmi_ops.access.hba import admitting
from tmi_ops.checks.finding import Severity
from tmi_ops.postgres.cluster import RunningCluster
from tmi_ops.postgres.connections import connect, connection_parameters
from tmi_ops_tests.access.conftest import Site, run_on
from tmi_ops_tests.physical import reload_configuration, set_parameter

ANYBODY = "lets every account on the server's machine connect as any of the roles without a password"


@pytest.fixture(scope="module", autouse=True)
def speaking_tls(cluster: RunningCluster) -> Iterator[None]:
    """The server has a certificate; without TLS it would call every hostssl line an error."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("this machine has no openssl to make a certificate")
    with connect(cluster.address) as connection:
        ((configured,),) = run_on(connection, "SELECT setting FROM pg_config WHERE name = 'CONFIGURE'")
    if "openssl" not in configured:
        pytest.skip("this PostgreSQL was built without TLS")
    data, owner = cluster.directory, cluster.directory.stat()
    make = [openssl, "req", "-new", "-x509", "-nodes", "-days", "1", "-newkey", "ec"]
    make += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-keyout", "server.key", "-out", "server.crt"], cwd=data, check=True, capture_output=True)
    for name in ("server.key", "server.crt"):
        os.chown(data / name, owner.st_uid, owner.st_gid)
        (data / name).chmod(0o600)
    set_parameter(cluster.address, "ssl", "on")
    yield
    set_parameter(cluster.address, "ssl", "off")


@pytest.fixture
def hba(cluster: RunningCluster) -> Iterator[Path]:
    """The server's pg_hba.conf; as it was, afterwards."""
    file = cluster.directory / "pg_hba.conf"
    before = file.read_text()
    yield file
    file.write_text(before)
    reload_configuration(cluster.address)


def with_lines(hba: Path, site: Site, *lines: str) -> tuple[Drift, ...]:
    """What is found when these lines come after one that lets the administrator in."""
    roles = {kind.value: site.name(kind) for kind in RoleKind}
    text = "\n".join(line.format(database=site.admin.database, **roles) for line in lines)
    hba.write_text(f"host all {site.admin.user} 127.0.0.1/32 scram-sha-256\n{text}\n")
    reload_configuration(site.admin)
    return tuple(one for one in site.check() if "pg_hba.conf" in one.what + one.subject)


def test_a_role_that_no_line_lets_in_is_named_with_the_line_it_needs(standing: Site, hba: Path) -> None:
    found = with_lines(hba, standing, "hostssl {database} {app},{owner},{readonly},{monitor} all scram-sha-256")
    backup = standing.name(RoleKind.BACKUP)
    assert [(one.subject, one.severity) for one in found] == [(backup, Severity.WARNING)] * 2
    assert f"hostssl  {standing.admin.database}  {backup}  all  scram-sha-256" in found[0].by_hand[0]
    assert f"hostssl  replication  {backup}  all  scram-sha-256" in found[1].by_hand[0]


def test_a_line_for_all_databases_does_not_let_the_backup_role_replicate(standing: Site, hba: Path) -> None:
    found = with_lines(hba, standing, "hostssl all all all scram-sha-256")
    assert [one.what for one in found] == [
        "no line of pg_hba.conf admits it to replication (`all` does not include it)"
    ]
    assert (
        with_lines(hba, standing, "hostssl all all all scram-sha-256", "hostssl replication all all scram-sha-256")
        == ()
    )


def test_a_reject_before_the_line_hides_it(standing: Site, hba: Path) -> None:
    replication = "hostssl replication all all scram-sha-256"
    found = with_lines(hba, standing, replication, "host all {app} all reject", "hostssl all all all scram-sha-256")
    assert [one.subject for one in found] == [standing.name(RoleKind.APP)]


def test_lines_that_let_roles_in_too_easily_are_named_by_number(standing: Site, hba: Path) -> None:
    found = with_lines(
        hba,
        standing,
        "hostssl replication all all scram-sha-256",
        "hostssl {database} {app} 10.0.0.0/8 trust",
        "host {database} {readonly} 10.0.0.0/8 scram-sha-256",
        "hostssl {database} {monitor} 10.0.0.0/8 md5",
        "local all all trust",
        "hostssl all all all scram-sha-256",
    )
    assert {(one.subject, one.severity.value, one.what.split(" from ")[-1]) for one in found} == {
        ("pg_hba.conf line 3", "critical", "10.0.0.0 without any password"),
        ("pg_hba.conf line 4", "warning", "10.0.0.0 without TLS"),
        ("pg_hba.conf line 5", "warning", "10.0.0.0 with md5 if the password is stored as md5"),
        (
            "pg_hba.conf line 6",
            "warning",
            "lets every account on the server's machine connect as any of the roles without a password",
        ),
    }


def test_a_line_the_server_does_not_understand_is_reported(standing: Site, hba: Path) -> None:
    hba.write_text(hba.read_text() + "hostssl all all all scram-sha-257\n")
    assert any("invalid authentication method" in one.what for one in standing.check())


def test_users_and_databases_may_be_given_as_regular_expressions() -> None:
    rule = HbaRule(1, "hostssl", ("/^tmi",), ("/^tmi_(app|owner)$",), "all", "scram-sha-256")
    assert admitting([rule], "tmi_app", "tmi") == [rule]
    assert admitting([rule], "tmi_backup", "tmi") == []
    assert admitting([rule], "tmi_app", "other") == []
    assert admitting([HbaRule(1, "host", ("all",), ("/(",), "all", "trust")], "tmi_app", "tmi") == []


def own_address() -> str:
    """An address of this machine that is not the loopback; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def test_a_connection_without_tls_from_another_machine_is_found_and_one_with_tls_is_not(
    standing: Site, hba: Path
) -> None:
    address = own_address()
    with_lines(hba, standing, "host all all all scram-sha-256")
    app = standing.as_role(RoleKind.APP).model_copy(update={"host": address})
    for sslmode, exposed in (("disable", True), ("require", False)):
        parameters = {**connection_parameters(app), "sslmode": sslmode, "application_name": "tmi-server"}
        with psycopg.connect(**parameters):
            said = [one for one in standing.check() if "without TLS: rows are sent" in one.what]
        assert [(one.subject, one.severity) for one in said] == (
            [(standing.name(RoleKind.APP), Severity.CRITICAL)] if exposed else []
        ), sslmode
