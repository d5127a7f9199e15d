"""Production as docs/access.md and deploy/compose/environment.env.example say: a role for each purpose, verify-full.

Every command and every scheduled job is green there, and doctor and `tmi-ops roles check` advise nothing against each
other.
"""

from __future__ import annotations

import contextlib
import io
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Production:
    """An environment by the book; its variables are the process's meanwhile. `administrator`: what names that one."""

    server: House
    home: Path
    administrator: Mapping[str, str]


@pytest.fixture(scope="module")
def production(
    server_by_the_book: House, s3: StoreSettings, shared_bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Production]:
    """Roles are applied, pg_hba.conf has the lines that `roles check` names, TMI's tables are there."""
    server, directory = server_by_the_book, tmp_path_factory.mktemp("production")
    server.run("CREATE DATABASE tmi")
    server.run("CREATE EXTENSION pg_stat_statements", database="tmi")
    of_tmi = server.address.model_copy(update={"database": "tmi"})
    assert s3.access_key_id is not None
    assert s3.secret_access_key is not None
    common = {
        **postgres_variables(of_tmi),
        "TMI_ENV": "production",
        "POSTGRES_SSLROOTCERT": str(of_tmi.sslrootcert),
        "TMI_OPS_S3_ENDPOINT_URL": s3.endpoint_url or "",
        "TMI_OPS_S3_BUCKET": shared_bucket,
        "TMI_OPS_S3_PREFIX": f"tmi-ops-{secrets.token_hex(6)}",
        "TMI_OPS_S3_ACCESS_KEY_ID": s3.access_key_id.get_secret_value(),
        "TMI_OPS_S3_SECRET_ACCESS_KEY": s3.secret_access_key.get_secret_value(),
        "TMI_OPS_HOME": str(directory / "home"),
        "TMI_OPS_RPO": "1h",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        for name, value in common.items():
            patch.setenv(name, value)
        assert run("roles", "apply", "--yes")[0] in (0, 1)
        hba = server.data / "pg_hba.conf"
        hba.write_text(hba.read_text() + "\n".join(advised_hba_lines(run("roles", "check", "--json")[1])) + "\n")
        reload_configuration(server.address)
        for name, value in _roles_by_the_example(directory / "home").items():
            patch.setenv(name, value)
        for command in (("migrate",), ("wal", "stream", "--catch-up", "--quiet"), ("heartbeat",)):
            code, said = run(*command)
            assert code == 0, (command, said)
        administrator = {name: common[name] for name in ("POSTGRES_USER", "POSTGRES_PASSWORD")}
        yield Production(server, directory / "home", administrator)


def run(*arguments: str, **variables: str) -> tuple[int, str]:
    """A command in this process: its exit code, and what it printed."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        for name, value in variables.items():
            patch.setenv(name, value)
        try:
            code = tmi_ops.main(args=list(arguments), standalone_mode=False)
        except OpsError as error:
            return error.exit_code, str(error)
    return code if isinstance(code, int) else 0, said.getvalue()


def advised_hba_lines(said: str) -> list[str]:
    """The lines of pg_hba.conf that `tmi-ops roles check` names."""
    findings = json.loads(said)["findings"]
    lines = [line for one in findings for line in one["advice"]["text"].splitlines() if line.startswith("host")]
    return [line.partition("  #")[0] for line in lines]


def test_doctor_and_roles_check_advise_nothing_against_each_other(production: Production) -> None:
    for command in (("check",), ("doctor",), ("roles", "check")):
        code, said = run(*command)
        assert code == 0, f"{command}: {said}"
    # As the administrator, who sees what the others may not.
    code, said = run("roles", "check", **production.administrator)
    assert code == 0, said


def test_the_doctor_names_a_role_that_gets_no_connection(production: Production) -> None:
    code, said = run("doctor", "--json", TMI_OPS_MONITOR_PASSWORD="forgotten")
    assert code == 1
    assert json.loads(said)["root_cause"] == "logins"
    (finding,) = next(one for one in json.loads(said)["checks"] if one["name"] == "logins")["findings"]
    assert "tmi_monitor" in finding["what"]
    assert "TMI_OPS_MONITOR_PASSWORD" in finding["advice"]["text"]


def test_production_by_the_book_is_green_and_stays_so(production: Production) -> None:
    jobs = environment_definitions("production")
    # A base backup before WAL, and both before a drill.
    scheduled = {str(schedule.job_name) for schedule in jobs.schedules or ()}
    first = ["base_backup", "wal_catch_up", "heartbeat", "logical_backup", "wal_catch_up", "recovery_drill"]
    for job in (*first, *sorted(scheduled - set(first))):
        done = jobs.resolve_job_def(job).execute_in_process(instance=DagsterInstance.ephemeral(), raise_on_error=False)
        assert done.success, (job, [event.message for event in done.all_events if event.is_failure])
    for command in (
        ("backups",),
        ("wal", "gaps"),
        ("prune", "--dry-run"),
        ("maintain", "--plan"),
        ("health",),
        ("status",),
        ("doctor",),
    ):
        code, said = run(*command)
        assert code == 0, f"{command}: {said}"
    code, said = run("roles", "check", **production.administrator)
    assert code == 0, said


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
