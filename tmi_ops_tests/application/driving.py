"""A test's hold on the application: starting it, using it as a person would, and asking it afterwards."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import tmi_ops_tests
from tmi_ops.postgres.connections import connect
from tmi_ops.settings import PostgresSettings, RedisSettings
from tmi_ops_tests.application.journal import Journal, Row, Write
from tmi_ops_tests.application.tokens import SignedIn

PATIENCE_S = 30.0
_ID_COLUMNS = {"threat_models": "version", "threats": "1", "audit_entries": "1"}


@dataclass(frozen=True)
class StaleRead:
    """What the application shows of a threat model, and what the database holds. None: no such threat model."""

    id: str
    shown: int | None
    stored: int | None


class Application:
    """See the package's docstring. `env_file` holds its connection strings, `journal` what was acknowledged."""

    def __init__(self, directory: Path, postgres: PostgresSettings, redis: RedisSettings) -> None:
        self.env_file = directory / "application.env"
        self.journal = Journal(directory / "acknowledged.jsonl")
        self._redis = redis
        self._port = 0
        self._process: subprocess.Popen[str] | None = None
        self.connect_to(postgres, redis)

    # Its life.

    def launch(self) -> None:
        """Start the process, at the same port as before, and have it write."""
        module = f"{tmi_ops_tests.__name__}.application.serving"
        told = ["--env-file", self.env_file, "--journal", self.journal.file, "--port", str(self._port)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, told)],
            cwd=Path(tmi_ops_tests.__file__).parent.parent,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())
        self.start()

    def kill(self) -> None:
        """End the process at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
        self._process = None

    def connect_to(self, postgres: PostgresSettings, redis: RedisSettings | None = None) -> None:
        """Write the env file. It is read at `start` and whenever a lost connection is made anew."""
        self._redis = redis or self._redis
        values = {
            "POSTGRES_HOST": postgres.host,
            "POSTGRES_PORT": postgres.port,
            "POSTGRES_USER": postgres.user,
            "POSTGRES_PASSWORD": postgres.password.get_secret_value() if postgres.password else "",
            "POSTGRES_DB": postgres.database,
            "POSTGRES_SSLMODE": postgres.sslmode,
            "REDIS_HOST": self._redis.host,
            "REDIS_PORT": self._redis.port,
            "REDIS_PASSWORD": self._redis.password.get_secret_value() if self._redis.password else "",
            "REDIS_DB": self._redis.db,
        }
        self.env_file.write_text("".join(f"{name}='{value}'\n" for name, value in values.items()))

    # What hooks of a runbook are given.

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def health_url(self) -> str:
        return f"{self.url}/health"

    @property
    def start_command(self) -> str:
        """A shell command that has it read its env file and write."""
        return self._post_command("start")

    @property
    def stop_command(self) -> str:
        """A shell command that ends when it has stopped writing."""
        return self._post_command("stop")

    # What people do with it.

    def start(self) -> None:
        self._ask("/start", method="POST")

    def stop(self) -> None:
        self._ask("/stop", method="POST")

    def is_healthy(self) -> bool:
        return self._ask("/health")[0] == 200

    def sign_in(self) -> SignedIn:
        status, pair = self._ask("/sign_in", method="POST")
        assert status == 200, pair
        return SignedIn(*pair)

    def revoke(self, user: SignedIn) -> None:
        status, said = self._ask("/revoke", method="POST", token=user.token)
        assert status == 200, said

    def accepts(self, user: SignedIn) -> bool:
        """Whether the user's token opens the door."""
        return self._decides("/me", user.token)

    def refreshes(self, user: SignedIn) -> bool:
        """Whether the user stays signed in when the token ends."""
        return self._decides(f"/refresh/{user.refresh_token}", None)

    def version_shown(self, model: str) -> int | None:
        """The version that a person sees of a threat model; None where there is no such threat model."""
        status, found = self._ask(f"/threat_models/{model}")
        assert status in (200, 404), found
        return found["version"] if found else None

    # What is asked afterwards.

    def acknowledged(self) -> list[Write]:
        return [write for write in self.journal.read() if write.acknowledged]

    def wait_for_writes(self, count: int) -> None:
        """Until so many more transactions were acknowledged than at the call."""
        wanted = len(self.acknowledged()) + count
        deadline = time.monotonic() + PATIENCE_S
        while len(self.acknowledged()) < wanted:
            assert time.monotonic() < deadline, f"no {count} transactions more: {self._ask('/health')}"
            time.sleep(0.02)

    def missing(self, postgres: PostgresSettings, before: datetime) -> list[Row]:
        """Rows acknowledged before a moment that the database lacks, or holds in an older version."""
        due = {
            (row.table, row.id): row
            for write in self.acknowledged()
            if write.acknowledged and write.acknowledged < before
            for row in write.rows
        }
        stored = self._stored(postgres)
        return [row for place, row in due.items() if stored.get(place, 0) < row.version]

    def present(self, postgres: PostgresSettings, after: datetime, until: datetime) -> list[Row]:
        """New rows of transactions begun between two moments that the database holds all the same."""
        stored = self._stored(postgres)
        return [
            row
            for write in self.journal.read()
            if after < write.begun < until
            for row in write.rows
            if row.version == 1 and (row.table, row.id) in stored
        ]

    def stale_reads(self, postgres: PostgresSettings) -> list[StaleRead]:
        """Threat models of which the application shows something else than the database holds. Stops its writing."""
        self.stop()
        stored = self._stored(postgres)
        known = {row.id for write in self.journal.read() for row in write.rows if row.table == "threat_models"}
        reads = [StaleRead(id, self.version_shown(id), stored.get(("threat_models", id))) for id in sorted(known)]
        return [read for read in reads if read.shown != read.stored]

    @staticmethod
    def _stored(postgres: PostgresSettings) -> dict[tuple[str, str], int]:
        with connect(postgres) as connection:
            return {
                (table, id): version
                for table, column in _ID_COLUMNS.items()
                for id, version in connection.execute(f"SELECT id, {column} FROM {table}")
            }

    def _decides(self, path: str, token: str | None) -> bool:
        status, said = self._ask(path, token=token)
        assert status in (200, 401), said
        return status == 200

    def _post_command(self, verb: str) -> str:
        call = f"import urllib.request as r; r.urlopen(r.Request('{self.url}/{verb}', method='POST'))"
        return f"{shlex.quote(sys.executable)} -c {shlex.quote(call)}"

    def _ask(self, path: str, *, method: str = "GET", token: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(self.url + path, method=method, headers=headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@contextmanager
def running_application(directory: Path, *, postgres: PostgresSettings, redis: RedisSettings) -> Iterator[Application]:
    """The application, writing, for the length of a `with` block. `postgres` is the app role's address."""
    application = Application(directory, postgres, redis)
    application.launch()
    try:
        yield application
    finally:
        application.kill()
