"""A webhook that remembers what it was told, and may refuse, or never answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    body: str

    @property
    def message(self) -> dict[str, Any]:
        """What apprise's json:// channel sends: `title`, `message` and `type`."""
        content: dict[str, Any] = json.loads(self.body)
        return content


@dataclass
class Webhook:
    """`status` is what it answers; None holds every request until `let_go`."""

    port: int
    status: int | None = 200
    requests: list[Request] = field(default_factory=list)
    let_go: threading.Event = field(default_factory=threading.Event)

    @property
    def titles(self) -> list[str]:
        return [request.message["title"] for request in self.requests]


@contextmanager
def webhook() -> Iterator[Webhook]:
    """A webhook on this machine, for the length of a `with` block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            status = heard.status
            if status is None:
                heard.let_go.wait()
                return
            heard.requests.append(Request(self.command, self.path, body))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    heard = Webhook(server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield heard
    finally:
        heard.let_go.set()
        server.shutdown()
        server.server_close()
