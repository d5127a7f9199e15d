"""A cache that answers late, or never."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tmi_ops.settings import RedisSettings


@contextmanager
def accepting(answer_after_s: float | None, upstream: RedisSettings) -> Iterator[int]:
    """The port of a server that hands everything on to a cache so much later; None: it never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve(client: socket.socket) -> None:
            with client, socket.create_connection((upstream.host, upstream.port)) as cache_of_ours:
                while data := client.recv(1 << 16):
                    if answer_after_s is None:
                        continue
                    time.sleep(answer_after_s)
                    cache_of_ours.sendall(data)
                    client.sendall(cache_of_ours.recv(1 << 20))

        def listen() -> None:
            while True:
                try:
                    client = listening.accept()[0]
                except OSError:
                    return
                threading.Thread(target=serve, args=[client], daemon=True).start()

        threading.Thread(target=listen, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
