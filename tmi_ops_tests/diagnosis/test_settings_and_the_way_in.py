"""Set-ups that are broken before any question reaches the server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tmi_ops.checks.finding import Outcome
from tmi_ops.diagnosis import configuration
from tmi_ops.diagnosis.diagnose import diagnose
from tmi_ops.diagnosis.finding import Area
from tmi_ops.postgres.cluster import free_port
from tmi_ops_tests.diagnosis.asserting import assert_cause
from tmi_ops_tests.diagnosis.conftest import Examine, Variables
from tmi_ops_tests.house import House


def test_a_healthy_environment_has_no_finding_at_all_and_is_left_as_it_was(examine: Examine) -> None:
    diagnosis = examine()
    assert diagnosis.root_cause is None
    assert diagnosis.healthy
    assert {step.outcome for step in diagnosis.results} == {Outcome.OK, Outcome.NOT_APPLICABLE}
    # No Dagster is configured here; everything else was looked at.
    assert {step.area for step in diagnosis.at(Outcome.NOT_APPLICABLE)} == {Area.SCHEDULING}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"TMI_ENV": "prod"}, ("'prod'", "production", "TMI_OPS_RPO"), id="unknown environment"),
        pytest.param({"POSTGRES_PORT": "54x2"}, ("POSTGRES_PORT", "tmi-ops settings"), id="port is no number"),
        pytest.param({"TMI_OPS_RPO": "soon"}, ("TMI_OPS_RPO", "duration"), id="objective is no duration"),
        pytest.param(
            {"TMI_ENV": "production", "POSTGRES_SSLMODE": "prefer"},
            ("sslmode=prefer", "POSTGRES_SSLMODE=require"),
            id="weak TLS in production",
        ),
        pytest.param({"TMI_DATABASE_URL": "mysql://x"}, ("postgresql://user",), id="address of another database"),
    ],
)
def test_settings_that_cannot_be_used_are_named_first_and_nothing_else_is_asked(
    healthy: Variables, tmp_path: Path, changes: dict[str, str], words: tuple[str, ...]
) -> None:
    diagnosis = diagnose({**healthy, **changes}, tmp_path)
    assert_cause(diagnosis, "settings", *words)
    assert [step.name for step in diagnosis.results if step.outcome is not Outcome.SKIPPED] == ["settings"]
    assert {step.because for step in diagnosis.at(Outcome.SKIPPED)} == {"settings"}


def test_an_env_file_that_others_can_read_is_a_warning_with_its_chmod(examine: Examine, tmp_path: Path) -> None:
    file = tmp_path / ".env.dev"
    file.write_text("POSTGRES_PASSWORD=secret\n")
    file.chmod(0o644)
    fix = assert_cause(examine(), "env-files", "other users of this machine can read", outcome=Outcome.WARNING)
    assert fix == (f"chmod 600 {file}",)
    file.chmod(0o600)
    assert examine().root_cause is None


def test_a_home_with_a_file_in_its_way_is_named(examine: Examine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    diagnosis = examine(TMI_OPS_HOME=str(tmp_path / "file" / "home"))
    assert_cause(diagnosis, "home", f"{tmp_path}/file is not a directory", "set TMI_OPS_HOME")


def test_a_full_disk_is_named_with_the_command_that_shows_what_fills_it(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"total": 100_000_000_000, "used": 99_900_000_000, "free": 100_000_000})
    monkeypatch.setattr(configuration.shutil, "disk_usage", lambda place: usage)
    assert_cause(examine(), "home", "100.0 MB free of 100.0 GB", "du -xh", "larger disk")


def test_a_host_name_that_does_not_resolve_is_named_before_everything_that_needs_it(examine: Examine) -> None:
    diagnosis = examine(POSTGRES_HOST="nowhere.invalid")
    assert_cause(diagnosis, "dns", "nowhere.invalid", "set POSTGRES_HOST", "getent hosts nowhere.invalid")
    assert diagnosis.result("authentication").because == "dns"
    # The store is another chain, and whole.
    assert diagnosis.result("store-delete").outcome is Outcome.OK


def test_a_closed_port_says_how_to_start_the_server(examine: Examine) -> None:
    port = free_port()
    diagnosis = examine(POSTGRES_PORT=str(port))
    assert_cause(diagnosis, "port", f"127.0.0.1:{port} refuses", "systemctl start postgresql", "set POSTGRES_PORT")


def test_another_program_on_the_port_is_not_taken_for_postgresql(examine: Examine, web_server: int) -> None:
    diagnosis = examine(POSTGRES_PORT=str(web_server))
    assert_cause(diagnosis, "port", "is not PostgreSQL", "set POSTGRES_HOST and POSTGRES_PORT", f":{web_server}'")


def test_a_server_without_tls_is_named_where_tls_is_required(examine: Examine) -> None:
    diagnosis = examine(POSTGRES_SSLMODE="require")
    assert_cause(diagnosis, "tls", "does not offer TLS", "ALTER SYSTEM SET ssl = on;", "SELECT pg_reload_conf();")
    assert diagnosis.result("port").outcome is Outcome.OK


def test_secrets_are_in_no_finding(examine: Examine, healthy: Variables, server_house: House) -> None:
    diagnosis = examine(POSTGRES_PASSWORD="hunter2-and-more", REDIS_PASSWORD="hunter2-and-more")
    said = repr(diagnosis)
    for secret in ("hunter2-and-more", healthy["TMI_OPS_S3_SECRET_ACCESS_KEY"]):
        assert secret not in said


@pytest.fixture
def web_server() -> Iterator[int]:
    """A port where somebody answers as a web server does to what it does not understand."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
