"""S3 clients that a process keeps between openings of one store.

A service opens the store several times a minute, for its readings and for its alerts. Creating the clients takes 0.06
CPU s, and checking the bucket is a request that costs as much as a put.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tmi_ops.settings import StoreSettings
from tmi_ops.store.s3.client import READ_TIMEOUT_S, connect_store, store_session

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

HURRIED_READ_TIMEOUT_S = 5
# The bucket is checked again after this time, and after any request that failed.
TRUSTED_FOR_S = 600.0
_REFUSED = (301, 400, 401, 403)
_SERVER_ERRORS = 500
_MOST = 64
_CREDENTIAL_FILES = {
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
    "AWS_CONFIG_FILE": "~/.aws/config",
}


@dataclass
class Clients:
    """The clients of one store. `impatient` fails at once; `patient` retries a request while the server struggles."""

    impatient: S3Client
    patient: S3Client
    asked_at: float | None = None

    @property
    def must_ask(self) -> bool:
        """Whether to check first that the bucket answers."""
        return self.asked_at is None or time.monotonic() - self.asked_at > TRUSTED_FOR_S

    def doubt(self, **_: Any) -> None:
        self.asked_at = None

    def doubt_if_refused(self, http_response: Any, parsed: dict[str, Any], **_: Any) -> None:
        """Doubt the bucket after a refusal, but not if an object is absent or has changed."""
        code = parsed.get("Error", {}).get("Code")
        status = http_response.status_code
        if code == "NoSuchBucket" or status in _REFUSED or status >= _SERVER_ERRORS:
            self.doubt()


_LOCK = threading.Lock()
_KEPT: OrderedDict[object, Clients] = OrderedDict()


def make_clients(settings: StoreSettings, *, hurried: bool) -> Clients:
    """New clients.

    Raises:
        StoreError: the endpoint is not a URL, or the AWS profile does not exist.
    """
    session = store_session()
    silence_s = HURRIED_READ_TIMEOUT_S if hurried else READ_TIMEOUT_S
    impatient = connect_store(session, settings, patience_s=0, read_timeout_s=silence_s)
    clients = Clients(impatient, impatient if hurried else connect_store(session, settings))
    for client in (clients.impatient, clients.patient):
        events: Any = client.meta.events
        events.register("after-call-error.s3", clients.doubt)
        events.register("after-call.s3", clients.doubt_if_refused)
    return clients


def kept_clients(settings: StoreSettings, *, hurried: bool) -> Clients:
    """This process's earlier clients for the same settings and credentials; new ones if there are none."""
    key = (settings, hurried, _credentials())
    with _LOCK:
        clients = _KEPT.get(key)
        if clients is None:
            clients = _KEPT[key] = make_clients(settings, hurried=hurried)
        _KEPT.move_to_end(key)
        while len(_KEPT) > _MOST:
            _KEPT.popitem(last=False)
        return clients


def _credentials() -> object:
    """What botocore would find: its environment variables, and when its files last changed."""
    variables = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    files = (Path(os.environ.get(name, usual)).expanduser() for name, usual in _CREDENTIAL_FILES.items())
    return variables, tuple(_changed(file) for file in files)


def _changed(file: Path) -> tuple[str, int | None]:
    try:
        return str(file), file.stat().st_mtime_ns
    except OSError:
        return str(file), None
