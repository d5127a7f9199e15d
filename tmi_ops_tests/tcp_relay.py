"""A network between a client and a server on this machine, which can be cut."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class TcpRelay:
    """Hands bytes to and fro between its own port and `target`'s, until it is cut.

    With `tls` it speaks TLS to clients, for servers that were built without.
    """

    def __init__(self, target: int, tls: ssl.SSLContext | None = None) -> None:
        self._target = target
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._is_whole = threading.Event()
        self._is_whole.set()
        # Seconds before each piece of up to 64 KiB is handed on.
        self.delay = 0.0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection; new ones are refused until `mend`."""
        self._is_whole.clear()
        for connection in list(self._open):
            _close(connection)

    def mend(self) -> None:
        self._is_whole.set()

    def redirect(self, target: int) -> None:
        """From now on new connections lead to another port, as a name in DNS may."""
        self._target = target

    def handed_on(self, content: bytes) -> None:
        """For who counts: what has passed, in either direction."""

    def close(self) -> None:
        self.cut()
        _close(self._listener)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._is_whole.is_set():
                _close(client)
                continue
            try:
                if self._tls is not None:
                    client = self._tls.wrap_socket(client, server_side=True)
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                _close(client)
                continue
            self._open |= {client, server}
            for here, there in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(here, there), daemon=True).start()

    def _pump(self, here: socket.socket, there: socket.socket) -> None:
        with suppress(OSError):
            while content := here.recv(1 << 16):
                if self.delay:
                    time.sleep(self.delay)
                there.sendall(content)
                self.handed_on(content)
        _close(here)
        _close(there)
        self._open -= {here, there}


def _close(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def tcp_relay(target: int, tls: ssl.SSLContext | None = None) -> Iterator[TcpRelay]:
    """A relay to a port of this machine, for the length of a `with` block."""
    relay = TcpRelay(target, tls)
    try:
        yield relay
    finally:
        relay.close()
