"""Production as docs/production.md says: a role for each purpose, verify-full, keys.

Every command of the page does what the page says of it, in its order; every scheduled job is green afterwards, and
doctor and `tmi-ops roles check` advise nothing against each other.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from dagster import DagsterInstance

from tmi_ops.checks.finding import is_typed
from tmi_ops.cli.main import tmi_ops
from tmi_ops.definitions import environment_definitions
from tmi_ops.errors import OpsError
from tmi_ops.postgres.programs import Programs
from tmi_ops.settings import StoreSettings
from tmi_ops_tests.certificates import make_authority, skip_without_tls
from tmi_ops_tests.commands import command, screens
from tmi_ops_tests.deploy.files import unit
from tmi_ops_tests.following import Reader
from tmi_ops_tests.house import House, house
from tmi_ops_tests.webhook import Webhook, webhook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCREENS = """
status
backups
wal gaps
wal status
wal line
doctor --verbose
health --verbose
check
prune --dry-run
maintain --dry-run
restore --latest --dry-run --into copy
recover corruption --dry-run
recover list
alerts --all
holds
drills
drills latest
settings
keys show
roles check
roles plan
"""
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "production.md"
HOST = "localhost"


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
        built.configure_files({"ssl": "on", "listen_addresses": HOST})
        yield built


@dataclass(frozen=True)
class Production:
    """An environment by the book; the process is in its directory, and in its environment. `administrator`: what names
    that one. `heard`: what the alert channel was told."""

    server: House
    administrator: Mapping[str, str]
    heard: Webhook


@pytest.fixture(scope="module")
def production(
    server_by_the_book: House, s3: StoreSettings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Production]:
    """Somebody has done what docs/production.md says."""
    server, directory = server_by_the_book, tmp_path_factory.mktemp("production") / "production"
    with pytest.MonkeyPatch.context() as patch, webhook() as heard, services() as start:
        reader = Reader(
            directory.parent,
            {"PATH": os.environ["PATH"]},
            what_is_here(server, s3, directory, heard),
            {"systemctl enable --now": start},
            sql=lambda text: psql(server, text),
            hba=lambda lines: append(server.data / "pg_hba.conf", lines),
        )
        reader.follow(PAGE.read_text())
        patch.chdir(directory)
        patch.setenv("TMI_ENV", reader.variables["TMI_ENV"])
        assert server.address.password is not None
        administrator = {
            "POSTGRES_USER": server.address.user,
            "POSTGRES_PASSWORD": server.address.password.get_secret_value(),
        }
        yield Production(server, administrator, heard)


def what_is_here(server: House, s3: StoreSettings, directory: Path, heard: Webhook) -> dict[str, str]:
    """The hosts, paths and secrets of the page, and what they are on this machine."""
    address = server.address
    assert s3.access_key_id is not None
    assert s3.secret_access_key is not None
    assert address.password is not None
    return {
        "/etc/tmi-ops/production": str(directory),
        "/etc/tmi-ops/ca.crt": str(address.sslrootcert),
        "db.example.org": HOST,
        "POSTGRES_PORT=5432": f"POSTGRES_PORT={address.port}",
        "POSTGRES_PASSWORD=...": f"POSTGRES_PASSWORD={address.password.get_secret_value()}",
        "https://s3.example.org": s3.endpoint_url or "",
        "tmi-backups": f"book-{secrets.token_hex(6)}",
        "ACCESS_KEY_ID=...": f"ACCESS_KEY_ID={s3.access_key_id.get_secret_value()}",
        "SECRET_ACCESS_KEY=...": f"SECRET_ACCESS_KEY={s3.secret_access_key.get_secret_value()}",
        "jsons://alerts.example.org": f"json://127.0.0.1:{heard.port}",
    }


@contextmanager
def services() -> Iterator[Callable[[str], None]]:
    """Runs the command of a unit, with the variables and in the directory that the unit names, as systemd would."""
    running: list[subprocess.Popen[bytes]] = []

    def start(file: str) -> None:
        service = unit(Path(file))["Service"]
        variables = dict(one.split("=", 1) for one in shlex.split(service["Environment"]))
        environment = {"PATH": os.environ["PATH"], **variables}
        words, directory = shlex.split(service["ExecStart"]), service["WorkingDirectory"]
        running.append(subprocess.Popen(words, cwd=directory, env=environment, stderr=subprocess.DEVNULL))
        while words[1] == "wal" and command("wal", "status", env=environment, cwd=directory).returncode:
            assert running[-1].poll() is None
            time.sleep(0.1)

    try:
        yield start
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(60)


def psql(server: House, text: str) -> None:
    """As the superuser, and as the page says: it stops at the first error."""
    assert server.address.password is not None
    login = {"PGPASSWORD": server.address.password.get_secret_value(), "PGSSLROOTCERT": str(server.address.sslrootcert)}
    where = f"host={HOST} port={server.address.port} user=postgres dbname=postgres sslmode=verify-full"
    done = subprocess.run(
        [server.programs.path("psql"), "--no-psqlrc", "--set=ON_ERROR_STOP=1", where],
        input=text,
        env={"PATH": os.environ["PATH"], **login},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def append(file: Path, text: str) -> None:
    with file.open("a") as opened:
        opened.write(text)


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


def test_the_page_is_followed_to_the_end_and_the_test_alert_arrives(production: Production) -> None:
    assert any("test" in title.lower() for title in production.heard.titles)


def test_compose_names_the_roles_of_the_page() -> None:
    example = (ROOT / "deploy" / "compose" / "environment.env.example").read_text()
    of_page, of_example = (
        [line for line in text.splitlines() if "_USER=" in line and " " not in line]
        for text in (PAGE.read_text(), example)
    )
    assert len(of_page) == 3
    assert of_page == of_example


def test_doctor_and_roles_check_advise_nothing_against_each_other(production: Production) -> None:
    # As the backup role, and as the administrator, who sees what others may not. The page has asked the doctor.
    for variables in ({}, production.administrator):
        code, said = run("roles", "check", **variables)
        assert code == 0, said


def test_every_screen_of_production_fits_80_columns(production: Production) -> None:
    words = [line.split() for line in SCREENS.splitlines() if line]
    shown = screens(words, env={"PATH": os.environ["PATH"], "TMI_ENV": "production"}, cwd=Path.cwd())
    assert all(shown)
    wide = [
        (one, line)
        for one, screen in zip(words, shown, strict=True)
        for line in screen.splitlines()
        # An address, an id or a path is longer than a line, and a command or a statement is copied as a whole.
        if len(line) > 80 and not is_typed(line.strip()) and len(max(line.split(), key=len)) < 40
    ]
    assert wide == []


def test_the_doctor_names_a_role_that_gets_no_connection(production: Production) -> None:
    code, said = run("doctor", "--json", TMI_OPS_MONITOR_PASSWORD="forgotten")
    assert code == 1
    assert json.loads(said)["root_cause"] == "logins"
    (finding,) = next(one for one in json.loads(said)["checks"] if one["name"] == "logins")["findings"]
    assert "tmi_monitor" in finding["what"]
    assert "TMI_OPS_MONITOR_PASSWORD" in finding["advice"]["text"]


def test_production_by_the_book_is_green_and_stays_so(production: Production) -> None:
    jobs = environment_definitions("production")
    for job in sorted({str(schedule.job_name) for schedule in jobs.schedules or ()}):
        done = jobs.resolve_job_def(job).execute_in_process(instance=DagsterInstance.ephemeral(), raise_on_error=False)
        assert done.success, (job, [event.message for event in done.all_events if event.is_failure])
    for name in ("health", "status", "doctor"):
        code, said = run(name)
        assert code == 0, f"{name}: {said}"
    code, said = run("roles", "check", **production.administrator)
    assert code == 0, said
