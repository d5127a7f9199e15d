"""An HTTP proxy before the S3 server that misbehaves on demand."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

from tmi_ops.settings import StoreSettings

LATE_S = 0.7

Fault = Literal[
    "refuse 403",  # answered by the proxy as a server does whose keys lack a right
    "refuse 500",  # answered by the proxy, the server never sees the request
    "refuse 501",
    "refuse 503",
    "cut request",  # the connection breaks while the body is on its way
    "damage request",  # a bit of the body flips on its way
    "cut answer",  # the connection breaks in the middle of the answer's body
    "lose answer",  # the server does it, but its answer never arrives
    "answer late",  # the server does it, but its answer takes a while
    "hide 412",  # the server pretends to have obeyed a conditional put
    "empty 200",  # answered by the proxy as a web page does, the server never sees the request
]


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]

    @property
    def is_part(self) -> bool:
        return self.method == "PUT" and "partNumber=" in self.path

    @property
    def is_completion(self) -> bool:
        return self.method == "POST" and "uploadId=" in self.path

    @property
    def is_range(self) -> bool:
        return self.method == "GET" and "Range" in self.headers


@dataclass
class FaultyProxy:
    """Set `choose` to say which request suffers which fault; `suffered` counts them. `clock` sets the server's."""

    settings: StoreSettings
    choose: Callable[[Request], Fault | None] = lambda request: None
    clock: Callable[[], datetime] | None = None
    suffered: list[Fault] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def first(self, count: int, fault: Fault, which: Callable[[Request], bool]) -> None:
        """Let the first `count` requests of a kind suffer a fault."""
        left = [count]

        def choose(request: Request) -> Fault | None:
            if left[0] and which(request):
                left[0] -= 1
                return fault
            return None

        self.choose = choose

    def fault_for(self, request: Request) -> Fault | None:
        with self.lock:
            fault = self.choose(request)
            if fault is not None:
                self.suffered.append(fault)
            return fault


@contextmanager
def faulty_proxy(settings: StoreSettings) -> Iterator[FaultyProxy]:
    """A proxy before the server of `settings`; its own `settings` lead through it."""
    upstream = urlsplit(settings.endpoint_url or "").netloc

    class Handler(_Handler):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    through = settings.model_copy(update={"endpoint_url": f"http://127.0.0.1:{server.server_address[1]}"})
    Handler.proxy = proxy = FaultyProxy(through)
    Handler.upstream = upstream
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultyProxy
    upstream: str
    protocol_version = "HTTP/1.1"

    def do_any(self) -> None:
        request = Request(self.command, self.path, dict(self.headers.items()))
        fault = self.proxy.fault_for(request)
        length = int(self.headers.get("Content-Length", 0))
        if fault == "cut request":
            self.rfile.read(length // 2)
            return self._break()
        body = bytearray(self.rfile.read(length))
        if fault is not None and fault.startswith("refuse"):
            return self._refuse(int(fault.split()[1]))
        if fault == "empty 200":
            return self._answer(200, [], b"", cut=False)
        if fault == "damage request":
            body[len(body) // 2] ^= 1
        status, headers, answer = self._forward(body)
        if fault == "answer late":
            time.sleep(LATE_S)
        if fault == "lose answer":
            return self._break()
        if fault == "hide 412" and status == http.HTTPStatus.PRECONDITION_FAILED:
            status, answer = 200, b""
            headers.append(("ETag", '"pretended"'))
        return self._answer(status, headers, answer, cut=fault == "cut answer")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_any

    def _forward(self, body: bytearray) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.upstream, timeout=30)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], answer: bytes, *, cut: bool) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() == "date" and self.proxy.clock is not None:
                self.send_header(name, format_datetime(self.proxy.clock(), usegmt=True))
            elif name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = dict(headers).get("Content-Length", "0") if self.command == "HEAD" else str(len(answer))
        self.send_header("Content-Length", length)
        self.end_headers()
        if cut:
            self.wfile.write(answer[: len(answer) // 2])
            return self._break()
        self.wfile.write(answer)
        return None

    def _refuse(self, status: int) -> None:
        code = {403: "AccessDenied", 500: "InternalError", 501: "NotImplemented", 503: "SlowDown"}[status]
        answer = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        self._answer(status, [("Content-Type", "application/xml")], answer, cut=False)

    def _break(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        pass
