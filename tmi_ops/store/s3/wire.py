"""A minimal HTTP client for puts of small objects: one write and a short response, over persistent connections.

With synchronous commits there are hundreds of puts a second, and urllib3 with http.client takes more CPU for each than
the kernel does. The caller needs another way for everything but a plain response.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

_CHUNK = 1 << 16
# A response to a put is some hundred bytes long, with the explanation of a refusal some thousand.
_LONGEST_ANSWER = 1 << 18
_HEAD_END = b"\r\n\r\n"


class WireError(OSError):
    """The response cannot be parsed here."""


@dataclass(frozen=True)
class Answer:
    """`headers` by name in lower case."""

    status: int
    headers: dict[str, str]


class Wire:
    """Connections to one server, from any thread.

    Args:
        tls: None for plain text.
        connect_s, silence_s: timeouts, in seconds, for connecting and for waiting for data.
    """

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None, connect_s: float, silence_s: float) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._connect_s, self._silence_s = connect_s, silence_s
        self._kept: deque[socket.socket] = deque()

    def exchange(self, request: bytes) -> Answer:
        """Send a request whole, once, and read the response.

        Raises:
            OSError: the request may or may not have arrived.
        """
        connection = self._free() or self._connect()
        try:
            connection.sendall(request)
            answer, keeps = _read_answer(connection)
        except BaseException:
            connection.close()
            raise
        if keeps:
            self._kept.append(connection)
        else:
            connection.close()
        return answer

    def close(self) -> None:
        """Close the idle connections."""
        while (connection := self._pop()) is not None:
            connection.close()

    def _free(self) -> socket.socket | None:
        """An idle connection that the server has not closed meanwhile: no data is waiting on it."""
        while (connection := self._pop()) is not None:
            readable = select.poll()
            readable.register(connection, select.POLLIN)
            if not readable.poll(0):
                return connection
            connection.close()
        return None

    def _pop(self) -> socket.socket | None:
        with suppress(IndexError):
            return self._kept.pop()
        return None

    def _connect(self) -> socket.socket:
        plain = socket.create_connection((self._host, self._port), self._connect_s)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection = plain if self._tls is None else self._tls.wrap_socket(plain, server_hostname=self._host)
            connection.settimeout(self._silence_s)
        except BaseException:
            plain.close()
            raise
        return connection


def _read_answer(connection: socket.socket) -> tuple[Answer, bool]:
    """The response, and whether another request may follow on the same connection."""
    held = b""
    while (end := held.find(_HEAD_END)) < 0:
        if len(held) > _LONGEST_ANSWER or not (came := connection.recv(_CHUNK)):
            raise WireError("The server ended the connection.")
        held += came
    answer, version = parse_head(held[:end])
    length = answer.headers.get("content-length", "")
    if not length.isdigit() or int(length) > _LONGEST_ANSWER:
        return answer, False
    missing = int(length) - (len(held) - end - len(_HEAD_END))
    while missing > 0:
        if not (came := connection.recv(min(missing, _CHUNK))):
            raise WireError("The server ended the connection.")
        missing -= len(came)
    keeps = version == "HTTP/1.1" and answer.headers.get("connection", "").lower() != "close"
    return answer, keeps and missing == 0


def parse_head(head: bytes) -> tuple[Answer, str]:
    """Parse a response's status line and headers; also return the HTTP version. Pure.

    Raises:
        WireError: it is not a final response.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    status = rest.partition(" ")[0]
    if not version.startswith("HTTP/1.") or not ("200" <= status <= "599" and status.isdigit() and len(status) == 3):
        raise WireError(f"The server answered with {first[:40]!r}.")
    fields = (line.partition(":") for line in lines)
    return Answer(int(status), {name.strip().lower(): value.strip() for name, _, value in fields}), version
