"""Where the stack's Dagster finds its code."""

from __future__ import annotations

import os
import stat
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from tmi_ops.stack.instance_mark import HEADER, instance_mark
from tmi_ops.stack.layout import StackLayout
from tmi_ops.stack.orchestrator import LONGEST_SOCKET, WORKSPACE_FILE, _answers, prepare_dagster_home


@pytest.mark.parametrize("depth", [1, LONGEST_SOCKET])
def test_the_workspace_names_one_code_server_to_which_nobody_else_can_connect(tmp_path: Path, depth: int) -> None:
    layout = StackLayout(tmp_path / ("h" * depth))
    layout.prepare()
    code = prepare_dagster_home(layout)
    (location,) = yaml.safe_load((layout.dagster_home / WORKSPACE_FILE).read_text())["load_from"]
    assert location["grpc_server"] == {"socket": str(code), "location_name": "tmi_ops"}
    assert len(os.fsencode(code)) <= LONGEST_SOCKET
    assert stat.S_IMODE(code.parent.stat().st_mode) == 0o700
    assert code.parent.stat().st_uid == os.geteuid()
    if code.parent != layout.dagster_home:
        code.parent.rmdir()


def test_the_webserver_of_a_stack_that_took_the_port_in_the_same_moment_is_not_taken_for_ours() -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header(HEADER, instance_mark("/other"))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Not into the tests' output."""

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert not _answers(server.server_port, instance_mark("/ours"))
        assert _answers(server.server_port, instance_mark("/other"))
        server.shutdown()
