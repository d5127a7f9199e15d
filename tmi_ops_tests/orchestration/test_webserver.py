"""The webserver answers to its own names alone, whatever page a browser comes from."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tmi_ops.orchestration.webserver import OwnNamesOnly, allowed_hosts, is_allowed
from tmi_ops.postgres.cluster import free_port
from tmi_ops.stack.dagster_runs import await_code_location
from tmi_ops.stack.instance_mark import instance_mark
from tmi_ops_tests.stack.conftest import await_

OURS = allowed_hosts("")


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ([("host", "localhost:3000")], True),
        ([("Host", "127.0.0.1:3000")], True),
        ([("host", "[::1]:3000")], True),
        ([("host", "localhost:3000"), ("origin", "http://localhost:3000")], True),
        ([("host", "evil.example:3000")], False),
        ([("host", "localhost.evil.example")], False),
        ([("host", "localhost@evil.example")], False),
        ([("host", "localhost:3000"), ("origin", "https://evil.example")], False),
        ([("host", "localhost:3000"), ("origin", "null")], False),
        ([("host", "localhost"), ("host", "evil.example")], False),
        ([], False),
    ],
)
def test_a_request_must_call_us_by_our_name_and_come_from_our_page(
    headers: list[tuple[str, str]], allowed: bool
) -> None:
    assert is_allowed([(name.encode(), value.encode()) for name, value in headers], OURS) is allowed


def test_names_are_those_that_were_told() -> None:
    told = allowed_hosts("Ops.example.org, look.example.org")
    assert is_allowed([(b"host", b"ops.example.org")], told)
    assert not is_allowed([(b"host", b"localhost:3000")], told)


def test_every_answer_says_whose_webserver_it_is() -> None:
    sent: list[dict[str, Any]] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b""})

    async def keep(message: Any) -> None:
        sent.append(message)

    ours = OwnNamesOnly(app, OURS, instance_mark("/one"))
    asyncio.run(ours({"type": "http", "headers": [(b"host", b"localhost")]}, keep, keep))
    assert sent[0]["headers"] == [(b"a", b"b"), (b"x-tmi-ops-instance", instance_mark("/one").encode())]
    assert instance_mark("/one") != instance_mark("/another")


@pytest.mark.slow
def test_a_page_that_rebinds_its_name_reaches_no_webserver_and_a_code_server_that_dies_is_started_anew(
    tmp_path: Path,
) -> None:
    port = free_port()
    (tmp_path / "small.py").write_text("from dagster import Definitions\ndefs = Definitions()\n")
    (tmp_path / "workspace.yaml").write_text("load_from:\n  - python_file: small.py\n")
    webserver = ("tmi_ops.orchestration.webserver", "--port", str(port), "--workspace", "workspace.yaml")
    process = subprocess.Popen(
        [sys.executable, "-m", *webserver], cwd=tmp_path, env={"DAGSTER_HOME": str(tmp_path)}, start_new_session=True
    )

    def asked(**headers: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/server_info", headers=headers)
        return connection.getresponse().status

    def is_up() -> bool:
        assert process.poll() is None
        with suppress(OSError):
            return asked() == 200
        return False

    try:
        await_(is_up, "the webserver answers")
        assert asked(Host="evil.example") == 403
        assert asked(Origin="https://evil.example") == 403
        assert asked(Host=f"localhost:{port}", Origin=f"http://localhost:{port}") == 200

        (dead,) = code_servers_of(process.pid)
        os.kill(dead, signal.SIGKILL)
        (alive,) = await_(lambda: [pid for pid in code_servers_of(process.pid) if pid != dead], "it is started anew")
        assert await_code_location(f"http://127.0.0.1:{port}") == "small.py"
        assert code_servers_of(process.pid) == [alive]
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def code_servers_of(webserver: int) -> list[int]:
    """Its children that serve code, without those that are dead and not yet buried."""
    found = []
    for child in Path(f"/proc/{webserver}/task").glob("*/children"):
        for pid in map(int, child.read_text().split()):
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"grpc" in words:
                found.append(pid)
    return found
