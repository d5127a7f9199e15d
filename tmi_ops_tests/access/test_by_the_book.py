"""Production as docs/access.md and deploy/compose/environment.env.example say: a role for each purpose, verify-full.

Every command and every scheduled job is green there, and doctor and `tmi-ops roles check` advise nothing against each
other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from dagster import DagsterInstance

from tmi_ops.access.passwords import known_passwords, password_file
from tmi_ops.cli.main import tmi_ops
from tmi_ops.definitions import environment_definitions
from tmi_ops.errors import OpsError
from tmi_ops.postgres.programs import Programs
from tmi_ops.settings import StoreSettings
from tmi_ops_tests.certificates import make_authority, skip_without_tls
from tmi_ops_tests.house import House, house
from tmi_ops_tests.physical import reload_configuration
from tmi_ops_tests.variables import postgres_variables

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HOST = "localhost"
EXAMPLE = Path(__file__).parents[2] / "deploy" / "compose" / "environment.env.example"
Command = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def server_by_the_book(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Iterator[House]:
    """It lets in encrypted connections alone, and shows the certificate of a CA of its owner's."""
    skip_without_tls(programs)
    authority = make_authority(tmp_path_factory.mktemp("authority") / "ours", "the owner's own CA")
    served = authority.certify(HOST)
    with house(programs, tmp_path_factory.mktemp("book"), {"fsync": "on"}) as built:
        for file, place in ((served.certificate, "server.crt"), (served.key, "server.key")):
            (built.data / place).write_bytes(file.read_bytes())
            (built.data / place).chmod(0o600)
            built.identity.take_over(built.data / place)
        (built.data / "pg_hba.conf").write_text("hostssl all postgres all scram-sha-256\n")
        built.address = built.address.model_copy(
            update={"host": HOST, "sslmode": "verify-full", "sslrootcert": str(authority.file)}
        )
        built.configure_files({"ssl": "on", "listen_addresses": HOST, "max_slot_wal_keep_size": "1GB"})
        yield built


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """A command in this process: its exit code, and what it printed."""

    def run(*arguments: str, **variables: str) -> tuple[int, str]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            try:
                code = tmi_ops.main(args=list(arguments), standalone_mode=False)
            except OpsError as error:
                return error.exit_code, str(error)
        return code if isinstance(code, int) else 0, capsys.readouterr().out

    return run


def advised_hba_lines(said: str) -> list[str]:
    """The lines of pg_hba.conf that `tmi-ops roles check` names."""
    findings = json.loads(said)["findings"]
    lines = [line for one in findings for line in one["advice"]["text"].splitlines() if line.startswith("host")]
    return [line.partition("  #")[0] for line in lines]


def test_production_by_the_book_is_green_and_stays_so(
    server_by_the_book: House,
    store_settings: StoreSettings,
    tmp_path: Path,
    run: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = server_by_the_book
    assert store_settings.access_key_id is not None
    assert store_settings.secret_access_key is not None
    server.run("CREATE DATABASE tmi", "CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    server.run("CREATE EXTENSION IF NOT EXISTS pg_stat_statements", database="tmi")
    of_tmi = server.address.model_copy(update={"database": "tmi"})
    administrator = {
        name: value for name, value in postgres_variables(of_tmi).items() if "USER" in name or "PASS" in name
    }
    common = {
        **postgres_variables(of_tmi),
        "TMI_ENV": "production",
        "POSTGRES_SSLROOTCERT": str(of_tmi.sslrootcert),
        "TMI_OPS_S3_ENDPOINT_URL": store_settings.endpoint_url or "",
        "TMI_OPS_S3_BUCKET": store_settings.bucket or "",
        "TMI_OPS_S3_PREFIX": store_settings.prefix,
        "TMI_OPS_S3_ACCESS_KEY_ID": store_settings.access_key_id.get_secret_value(),
        "TMI_OPS_S3_SECRET_ACCESS_KEY": store_settings.secret_access_key.get_secret_value(),
        "TMI_OPS_HOME": str(tmp_path / "home"),
        "TMI_OPS_RPO": "1h",
    }
    monkeypatch.chdir(tmp_path)
    for name, value in common.items():
        monkeypatch.setenv(name, value)

    # What an administrator does once, and what roles check then still leaves to a person.
    assert run("roles", "apply", "--yes")[0] in (0, 1)
    server.run("ALTER DATABASE tmi SET search_path = public")
    hba = server.data / "pg_hba.conf"
    hba.write_text(hba.read_text() + "\n".join(advised_hba_lines(run("roles", "check", "--json")[1])) + "\n")
    reload_configuration(server.address)
    code, said = run("roles", "check")
    assert code == 0, said

    for name, value in _roles_by_the_example(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    for command in (
        ("migrate",),
        ("check",),
        ("wal", "stream", "--catch-up", "--quiet"),
        ("heartbeat",),
    ):
        code, said = run(*command)
        assert code == 0, (command, said)

    jobs = environment_definitions("production")
    for job in (
        "base_backup",
        "wal_catch_up",
        "heartbeat",
        "logical_backup",
        "wal_catch_up",
        "recovery_drill",
        "retention",
        "health",
        "access",
        "maintenance",
        "objectives",
    ):
        done = jobs.resolve_job_def(job).execute_in_process(instance=DagsterInstance.ephemeral(), raise_on_error=False)
        failures = [event.message for event in done.all_events if event.is_failure]
        assert done.success, (job, failures)
    assert {schedule.job_name for schedule in jobs.schedules or ()} <= _begun(jobs.schedules)

    for command in (
        ("backups",),
        ("verify", "latest", "--quiet"),
        ("wal", "gaps"),
        ("prune", "--dry-run"),
        ("maintain", "--plan"),
        ("health",),
        ("status",),
        ("doctor",),
        ("roles", "check"),
    ):
        code, said = run(*command)
        assert code == 0, f"{command}: {said}"
    # As the administrator, who sees what the others may not: nothing that was advised has gone against the roles.
    code, said = run("roles", "check", **administrator)
    assert code == 0, said
    code, said = run("restore", "--backup", "latest", "--into", "tmi_restored", "--quiet", "--yes")
    assert code == 2
    assert "lacks CREATEDB" in said
    restorer = {"TMI_OPS_RESTORER_USER": administrator["POSTGRES_USER"]}
    restorer["TMI_OPS_RESTORER_PASSWORD"] = administrator["POSTGRES_PASSWORD"]
    code, said = run("restore", "--backup", "latest", "--into", "tmi_restored", "--quiet", "--yes", **restorer)
    assert code == 0, said


def _begun(schedules: object) -> set[str]:
    """Jobs of which this test has seen a run: every one that a schedule begins, but the first full backup's."""
    return {
        "access",
        "base_backup",
        "health",
        "heartbeat",
        "logical_backup",
        "maintenance",
        "objectives",
        "recovery_drill",
        "retention",
        "wal_catch_up",
    }


def _roles_by_the_example(home: Path) -> Mapping[str, str]:
    """The variables of the example that name roles, each with the password that `roles apply` generated."""
    passwords = {
        kind.value: value for kind, value in known_passwords({}, password_file(home, "production")).file.items()
    }
    named = dict(line.split("=", 1) for line in EXAMPLE.read_text().splitlines() if "_USER=" in line)
    found = {}
    for variable, role in named.items():
        found[variable] = role
        found[variable.replace("_USER", "_PASSWORD")] = passwords[role.removeprefix("tmi_")].get_secret_value()
    return found
