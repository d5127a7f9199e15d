"""Dagster's code server, webserver and daemon, as processes of the stack. Nothing here imports Dagster.

They share one code server: by default webserver and daemon would each start their own, and the daemon a new one every
minute.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import LiteralString

import psycopg

import tmi_ops
from tmi_ops.error_codes import Code
from tmi_ops.errors import StackError
from tmi_ops.postgres.connections import connection_parameters
from tmi_ops.settings import PostgresSettings
from tmi_ops.stack.instance_mark import HEADER, instance_mark
from tmi_ops.stack.layout import StackLayout
from tmi_ops.stack.ports import LOOPBACK
from tmi_ops.stack.service import RunningService, start_service

INSTANCE_FILE = "dagster.yaml"
WORKSPACE_FILE = "workspace.yaml"
LOCATION = "tmi_ops"
# The maximum length of a socket's path, with some room.
LONGEST_SOCKET = 100
# Importing Dagster is slow on a busy machine with cold caches.
READY_TIMEOUT_S = 180.0


def checkout_file(name: str) -> Path:
    """The committed `name`: in the working directory, else next to the package.

    Raises:
        StackError: there is none, as in an installation from a wheel.
    """
    for directory in (Path.cwd(), Path(tmi_ops.__file__).resolve().parent.parent):
        if (directory / name).is_file():
            return directory / name
    raise StackError(
        f"{name} was not found in the working directory or next to the tmi_ops package.",
        hint="run tmi-ops from a checkout of its repository, or start without Dagster: `tmi-ops up --no-dagster`",
        code=Code.STACK_NOT_INSTALLED,
    )


def prepare_dagster_home(layout: StackLayout) -> Path:
    """Write dagster.yaml and a workspace with the stack's code server to DAGSTER_HOME.

    Returns:
        The code server's socket. Who can connect to it can run code as us, so it is in a private directory.
    """
    shutil.copyfile(checkout_file(INSTANCE_FILE), layout.dagster_home / INSTANCE_FILE)
    code = layout.dagster_home / "code.sock"
    if len(os.fsencode(code)) > LONGEST_SOCKET:
        code = Path(tempfile.mkdtemp(prefix="tmi-ops-")) / code.name
    server = {"grpc_server": {"socket": str(code), "location_name": LOCATION}}
    # JSON is YAML.
    (layout.dagster_home / WORKSPACE_FILE).write_text(json.dumps({"load_from": [server]}) + "\n")
    return code


def start_code_server(
    code: Path, variables: Mapping[str, str], log: Path, *, stopping: Callable[[], bool], inherit: Sequence[int]
) -> RunningService:
    """Start the code server, which loads our definitions and is the parent of runs.

    Raises:
        StackError: it did not start.
    """
    code.unlink(missing_ok=True)
    return start_service(
        "Dagster code server",
        [
            sys.executable,
            *("-m", "dagster", "api", "grpc", "--module-name", "tmi_ops.definitions"),
            *("--socket", code, "--location-name", LOCATION),
        ],
        log=log,
        ready=lambda: stopping() or _listens(code),
        env={**os.environ, **variables},
        timeout_s=READY_TIMEOUT_S,
        inherit=inherit,
        poll_s=0.1,
    )


def start_webserver(
    port: int, variables: Mapping[str, str], log: Path, *, stopping: Callable[[], bool], inherit: Sequence[int]
) -> RunningService:
    """Start Dagster's UI.

    Raises:
        StackError: it did not start.
    """
    return _start(
        "Dagster UI",
        ["tmi_ops.orchestration.webserver", "--host", LOOPBACK, "--port", str(port), "--log-level", "warning"],
        variables,
        log,
        ready=lambda: stopping() or _answers(port, instance_mark(variables["DAGSTER_HOME"])),
        inherit=inherit,
    )


def start_daemon(
    records: PostgresSettings,
    variables: Mapping[str, str],
    log: Path,
    *,
    stopping: Callable[[], bool],
    inherit: Sequence[int],
) -> RunningService:
    """Start the daemon of schedules, sensors and the run queue; ready once it reports its heartbeat.

    Raises:
        StackError: it did not start.
    """
    since = datetime.now(UTC)
    return _start(
        "Dagster daemon",
        ["dagster._daemon", "run", "--log-format", "rich"],
        variables,
        log,
        ready=lambda: stopping() or _heart_beats(records, since),
        inherit=inherit,
    )


def _start(
    name: str,
    module_and_options: Sequence[str],
    variables: Mapping[str, str],
    log: Path,
    *,
    ready: Callable[[], bool],
    inherit: Sequence[int],
) -> RunningService:
    return start_service(
        name,
        [sys.executable, "-m", *module_and_options, "--workspace", Path(variables["DAGSTER_HOME"]) / WORKSPACE_FILE],
        log=log,
        ready=ready,
        env={**os.environ, **variables},
        timeout_s=READY_TIMEOUT_S,
        inherit=inherit,
        poll_s=0.3,
    )


def _listens(code: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(code))
        except OSError:
            return False
    return True


def _answers(port: int, mark: str) -> bool:
    """Whether our own webserver answers, and not that of another stack that took the port at the same time."""
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/server_info", timeout=5) as answer:
            return bool(answer.headers.get(HEADER) == mark)
    except OSError:
        return False


def _heart_beats(records: PostgresSettings, since: datetime) -> bool:
    try:
        with psycopg.connect(**connection_parameters(records)) as connection:
            if not _one(connection, "SELECT to_regclass('daemon_heartbeats') IS NOT NULL"):
                return False  # Dagster has not created its tables yet
            utc = since.replace(tzinfo=None)  # as Dagster writes it
            return _one(connection, "SELECT count(*) FROM daemon_heartbeats WHERE timestamp >= %s", utc)
    except psycopg.Error:
        return False


def _one(connection: psycopg.Connection[tuple[object, ...]], query: LiteralString, *values: object) -> bool:
    row = connection.execute(query, values).fetchone()
    return row is not None and bool(row[0])
