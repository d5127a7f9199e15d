"""The webserver answers to its own names alone, whatever page a browser comes from."""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tmi_ops.orchestration.webserver import allowed_hosts, is_allowed
from tmi_ops.postgres.cluster import free_port

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


@pytest.mark.slow
def test_the_attack_by_a_page_that_rebinds_its_name_reaches_no_webserver(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    argv = [
        sys.executable,
        "-m",
        "tmi_ops.orchestration.webserver",
        "--port",
        str(port),
        "--workspace",
        "workspace.yaml",
    ]
    process = subprocess.Popen(argv, cwd=tmp_path, env={"DAGSTER_HOME": str(tmp_path)})

    def asked(**headers: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/server_info", headers=headers)
        return connection.getresponse().status

    try:
        while True:
            try:
                assert process.poll() is None
                if asked() == 200:
                    break
            except OSError:
                time.sleep(0.3)
        assert asked(Host="evil.example") == 403
        assert asked(Origin="https://evil.example") == 403
        assert asked(Host=f"localhost:{port}", Origin=f"http://localhost:{port}") == 200
    finally:
        process.terminate()
        process.wait(30)
