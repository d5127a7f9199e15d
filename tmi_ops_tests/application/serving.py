"""The application's process: `python -m tmi_ops_tests.application.serving`. Prints its port when it answers."""

from __future__ import annotations

import argparse
import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
from redis.exceptions import RedisError

from tmi_ops_tests.application import tokens
from tmi_ops_tests.application.journal import Journal
from tmi_ops_tests.application.reaching import Reaching
from tmi_ops_tests.application.threat_models import USER, read_through
from tmi_ops_tests.application.writing import Writer

Answer = tuple[HTTPStatus, Any]


class Server(ThreadingHTTPServer):
    """What the requests share."""

    daemon_threads = True

    def __init__(self, port: int, env_file: Path, journal: Journal) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.reaching = Reaching(env_file)
        self.writer = Writer(self.reaching, journal)


class Handler(BaseHTTPRequestHandler):
    """GET /health, /threat_models/ID, /me, /refresh/TOKEN; POST /start, /stop, /sign_in, /revoke.

    /me and /revoke are about the bearer token that comes with them.
    """

    server: Server

    def do_GET(self) -> None:
        name, _, argument = self.path.strip("/").partition("/")
        if name == "health":
            self._answer(self._health)
        elif name == "threat_models":
            self._answer(lambda: self._threat_model(argument))
        elif name == "me":
            self._answer(lambda: _allowed(tokens.is_accepted(self.server.reaching.cache, self._bearer())))
        elif name == "refresh":
            self._answer(lambda: _allowed(tokens.can_refresh(self.server.reaching.cache, argument)))
        else:
            self._answer(lambda: (HTTPStatus.NOT_FOUND, None))

    def do_POST(self) -> None:
        self._answer(
            {"/start": self._start, "/stop": self._stop, "/revoke": self._revoke}.get(self.path, self._sign_in)
        )

    def log_message(self, *_: Any) -> None:
        """Requests are not worth a line each."""

    def _answer(self, action: Any) -> None:
        try:
            status, content = action()
        except (psycopg.Error, RedisError) as error:
            status, content = HTTPStatus.SERVICE_UNAVAILABLE, f"{type(error).__name__}: {error}"
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _health(self) -> Answer:
        if not self.server.writer.is_on:
            return HTTPStatus.SERVICE_UNAVAILABLE, "stopped"
        with self.server.reaching.database() as connection:
            connection.execute("SELECT FROM users LIMIT 1")
        self.server.reaching.cache.ping()
        if self.server.writer.failure:
            return HTTPStatus.SERVICE_UNAVAILABLE, self.server.writer.failure
        return HTTPStatus.OK, "healthy"

    def _threat_model(self, model: str) -> Answer:
        with self.server.reaching.database() as connection:
            found = read_through(connection, self.server.reaching.cache, model)
        return (HTTPStatus.OK, found) if found else (HTTPStatus.NOT_FOUND, None)

    def _start(self) -> Answer:
        self.server.writer.pause()
        self.server.reaching.forget()
        self.server.writer.resume()
        return HTTPStatus.OK, "started"

    def _stop(self) -> Answer:
        self.server.writer.pause()
        return HTTPStatus.OK, "stopped"

    def _sign_in(self) -> Answer:
        signed_in = tokens.sign_in(self.server.reaching.cache, USER)
        return HTTPStatus.OK, [signed_in.token, signed_in.refresh_token]

    def _revoke(self) -> Answer:
        tokens.revoke(self.server.reaching.cache, self._bearer())
        return HTTPStatus.OK, "revoked"

    def _bearer(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")


def _allowed(yes: bool) -> Answer:
    return (HTTPStatus.OK, "welcome") if yes else (HTTPStatus.UNAUTHORIZED, "not welcome")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--env-file", type=Path, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    told = parser.parse_args()
    server = Server(told.port, told.env_file, Journal(told.journal))
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
