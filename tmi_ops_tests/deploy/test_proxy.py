"""The login in front of Dagster's page: deploy/proxy/Caddyfile, run by Caddy itself."""

from __future__ import annotations

import base64
import http.client
import http.server
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tmi_ops.postgres.cluster import free_port
from tmi_ops_tests.deploy.files import DEPLOY

CADDY = shutil.which("caddy") or ""
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CADDY, reason="the caddy program is not here")]


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        said = f"{self.server.server_port} {self.headers['Host']} {self.headers.get('Authorization')}"
        self.wfile.write(said.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def webserver() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.fixture
def proxy(tmp_path: Path, webserver: int) -> Iterator[int]:
    port = free_port()
    shutil.copy(DEPLOY / "proxy" / "Caddyfile", tmp_path)
    for file, name in (("operators", "olga"), ("lookers", "luis")):
        hashed = subprocess.run(
            [CADDY, "hash-password", "--plaintext", f"{name}s"], capture_output=True, text=True, check=True
        )
        (tmp_path / file).write_text(f"{name} {hashed.stdout}")
    told = {
        "TMI_OPS_OPERATE": f"http://ops.example.org:{port}",
        "TMI_OPS_LOOK": f"http://look.example.org:{port}",
        "TMI_OPS_OPERATE_UPSTREAM": f"127.0.0.1:{webserver}",
        "TMI_OPS_LOOK_UPSTREAM": "127.0.0.1:1",
        "HOME": str(tmp_path),
        "PATH": os.defpath,
    }
    argv = [CADDY, "run", "--config", "Caddyfile", "--adapter", "caddyfile"]
    process = subprocess.Popen(argv, cwd=tmp_path, env=told, stderr=subprocess.DEVNULL)
    while True:
        try:
            asked(port, "ops.example.org")
            break
        except OSError:
            assert process.poll() is None
            time.sleep(0.1)
    yield port
    process.terminate()
    process.wait(30)


def asked(port: int, host: str, login: str = "") -> tuple[int, str]:
    headers = {"Host": host}
    if login:
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/", headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_only_who_logs_in_reaches_the_page_and_each_reaches_his_own(proxy: int, webserver: int) -> None:
    assert asked(proxy, "ops.example.org") == (401, "")
    assert asked(proxy, "ops.example.org", "olga:wrong") == (401, "")
    assert asked(proxy, "ops.example.org", "luis:luiss") == (401, ""), "who may look may not start runs"
    status, said = asked(proxy, "ops.example.org", "olga:olgas")
    assert (status, said) == (200, f"{webserver} ops.example.org None"), "the password goes no further"
    assert asked(proxy, "look.example.org") == (401, "")
    assert asked(proxy, "look.example.org", "luis:luiss")[0] == 502, "of the read-only webserver, which is not up here"
    assert asked(proxy, "evil.example", "olga:olgas") == (200, ""), "no page of ours has this name"
