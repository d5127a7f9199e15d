"""Three environments in one UI, each in its own process: started as the units start them, asked as a browser asks."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tmi_ops.postgres.cluster import free_port
from tmi_ops.settings import PostgresSettings
from tmi_ops.stack.dagster_runs import _ask
from tmi_ops_tests.deploy.files import DEPLOY, ENVIRONMENTS, ROOT, unit

pytestmark = pytest.mark.slow

PATIENCE_S = 200.0
LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename
  ... on PythonError { message }
  ... on RepositoryLocation { repositories { assetNodes { assetKey { path } groupName } } } } } } } }"""


@dataclass
class Fleet:
    """The running processes by name, where the UI is, and each environment's password."""

    processes: Mapping[str, subprocess.Popen[bytes]]
    ui: str
    passwords: Mapping[str, str]
    logs: Path

    def said(self) -> str:
        return "\n".join(f"{file.name}: {file.read_text()[-2000:]}" for file in self.logs.glob("*.log"))


@pytest.fixture(scope="module")
def fleet(server: PostgresSettings) -> Iterator[Fleet]:
    """Below /tmp: the path of a socket may have 107 letters."""
    root = Path(tempfile.mkdtemp(prefix="fleet-"))
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        yield _start(root, server, processes)
    finally:
        for process in processes.values():
            os.killpg(process.pid, signal.SIGKILL)  # with its children, which would only count down
            process.wait()
        shutil.rmtree(root, ignore_errors=True)


def _start(root: Path, server: PostgresSettings, processes: dict[str, subprocess.Popen[bytes]]) -> Fleet:
    assert server.password is not None
    records = {
        "DAGSTER_HOME": str(root / "dagster"),
        "DAGSTER_PG_HOST": server.host,
        "DAGSTER_PG_PORT": str(server.port),
        "DAGSTER_PG_USERNAME": server.user,
        "DAGSTER_PG_PASSWORD": server.password.get_secret_value(),
        "DAGSTER_PG_DB": server.database,
    }
    (root / "dagster").mkdir()
    shutil.copyfile(ROOT / "dagster.yaml", root / "dagster" / "dagster.yaml")
    workspace = root / "workspace.yaml"
    workspace.write_text((DEPLOY / "fleet" / "workspace.yaml").read_text().replace("/run/", f"{root}/run/"))
    passwords = {environment: secrets.token_hex(16) for environment in ENVIRONMENTS}
    common = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(root), **records}
    for environment, password in passwords.items():
        folder = root / "etc" / environment
        folder.mkdir(parents=True)
        (root / "run" / f"tmi-ops-{environment}").mkdir(parents=True)
        (folder / f".env.{environment}").write_text("POSTGRES_SSLMODE=require\n")
        variables = {"TMI_ENV": environment, "TMI_OPS_HOME": str(root / environment), "POSTGRES_PASSWORD": password}
        line = _command_of_unit(environment).replace("/run/", f"{root}/run/")
        processes[environment] = _run(shlex.split(line), common | variables, folder, root / f"{environment}.log")
    port = free_port()
    webserver = ["dagster_webserver", "--host", "127.0.0.1", "--port", str(port), "--workspace", str(workspace)]
    processes["webserver"] = _run(webserver, common, root, root / "webserver.log")
    return Fleet(processes, f"http://127.0.0.1:{port}", passwords, root)


def _command_of_unit(environment: str) -> str:
    line: str = unit(DEPLOY / "systemd" / "tmi-ops-code@.service")["Service"]["ExecStart"]
    return re.sub(r"^\S+/dagster ", "dagster ", line).replace("%i", environment)


def _run(line: list[str], variables: Mapping[str, str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *line],
            env=variables,
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _loaded_locations(fleet: Fleet) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    entries: list[dict[str, Any]] = []
    while time.monotonic() < deadline:
        assert all(process.poll() is None for process in fleet.processes.values()), fleet.said()
        with suppress(Exception):
            entries = _ask(fleet.ui, LOCATIONS)["workspaceOrError"]["locationEntries"]
        found = {entry["name"]: entry["locationOrLoadError"] or {} for entry in entries}
        if len(found) == len(ENVIRONMENTS) and all(
            one.get("__typename") == "RepositoryLocation" for one in found.values()
        ):
            return found
        time.sleep(0.5)
    raise AssertionError(f"{entries}\n{fleet.said()}")


def test_one_ui_shows_three_locations_each_with_its_own_prefix_and_groups(fleet: Fleet) -> None:
    locations = _loaded_locations(fleet)
    assert set(locations) == set(ENVIRONMENTS)
    for environment, location in locations.items():
        assets = [node for repository in location["repositories"] for node in repository["assetNodes"]]
        assert {node["assetKey"]["path"][0] for node in assets} == {environment}
        assert {node["groupName"].partition("_")[0] for node in assets} == {environment}


def test_no_process_but_its_own_code_server_knows_an_environments_password(fleet: Fleet) -> None:
    _loaded_locations(fleet)
    for environment, password in fleet.passwords.items():
        own = fleet.processes[environment].pid
        knowing = {pid for pid in _processes() if password in _environment_of(pid)}
        assert own in knowing
        assert {_ancestor_in(pid, fleet) for pid in knowing} == {environment}
    assert "webserver" not in {_ancestor_in(pid, fleet) for pid in _processes() if _knows_any(pid, fleet)}


def _knows_any(pid: int, fleet: Fleet) -> bool:
    return any(password in _environment_of(pid) for password in fleet.passwords.values())


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _environment_of(pid: int) -> str:
    with suppress(OSError):  # it ended meanwhile
        return (Path("/proc") / str(pid) / "environ").read_bytes().decode(errors="replace")
    return ""


def _ancestor_in(pid: int, fleet: Fleet) -> str:
    """Which process of the fleet this one is, or descends from."""
    names = {process.pid: name for name, process in fleet.processes.items()}
    while pid > 1 and pid not in names:
        pid = int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    return names.get(pid, "a stranger")
