"""An S3 server of one test's own, that may be killed and started again upon its data."""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr

from tmi_ops.settings import StoreSettings
from tmi_ops.stack.ports import seaweed_ports
from tmi_ops.stack.seaweedfs import S3Credentials, start_seaweedfs
from tmi_ops_tests.raw_s3 import raw_client

BUCKET = "backups"


class KillableS3:
    """A SeaweedFS with a bucket. `settings` stay the same through deaths and restarts."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._ports = seaweed_ports()
        self._credentials = S3Credentials("tmi-ops-tests", SecretStr(secrets.token_urlsafe(24)))
        self.settings = StoreSettings(
            bucket=BUCKET,
            endpoint_url=f"http://127.0.0.1:{self._ports.s3}",
            access_key_id=SecretStr(self._credentials.access_key_id),
            secret_access_key=self._credentials.secret_access_key,
        )
        self._coming_back: threading.Thread | None = None
        self.start()

    def start(self) -> None:
        self._service = start_seaweedfs(self._root / "data", self._ports, self._credentials, self._root / "s3.log")

    def kill(self) -> None:
        """kill -9."""
        os.killpg(self._service.process.pid, signal.SIGKILL)
        self._service.process.wait()
        self._service.guard.release()

    def die_and_come_back(self) -> None:
        """kill -9, and a start that nobody waits for."""
        self.kill()
        self._coming_back = threading.Thread(target=self.start)
        self._coming_back.start()

    def stop(self) -> None:
        if self._coming_back is not None:
            self._coming_back.join()
        self._service.stop()


@contextmanager
def killable_s3(root: Path) -> Iterator[KillableS3]:
    """A running server with an empty bucket, for the length of a `with` block."""
    root.mkdir(parents=True, exist_ok=True)
    server = KillableS3(root)
    try:
        raw_client(server.settings).create_bucket(Bucket=BUCKET)
        yield server
    finally:
        server.stop()
