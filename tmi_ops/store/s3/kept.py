"""S3 clients that a process keeps between openings of one store.

A service opens the store several times a minute, for its readings and for its alerts. Creating the clients takes 0.06
CPU s, and checking the bucket is a request that costs as much as a put.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tmi_ops.settings import StoreSettings
from tmi_ops.store.s3.client import READ_TIMEOUT_S, connect_store, store_session

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

HURRIED_READ_TIMEOUT_S = 5
# The bucket is checked again after this time. After a request that failed, the clients are made anew, with the
# credentials of then.
TRUSTED_FOR_S = 600.0
_REFUSED = (301, 400, 401, 403)
_SERVER_ERRORS = 500
_MOST = 256
_CREDENTIAL_FILES = {
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
    "AWS_CONFIG_FILE": "~/.aws/config",
}


@dataclass
class Clients:
    """The clients of one store. `impatient` fails at once; `patient` retries a request while the server struggles.

    `failed`: a request of theirs failed or was refused.
    """

    impatient: S3Client
    patient: S3Client
    failed: bool = False
    _asked: dict[str, float] = field(default_factory=dict)

    def must_ask(self, root: str) -> bool:
        """Whether to check first that the bucket answers below this prefix."""
        asked_at = self._asked.get(root)
        return self.failed or asked_at is None or time.monotonic() - asked_at > TRUSTED_FOR_S

    def answered(self, root: str) -> None:
        """The bucket has answered."""
        self._asked[root] = time.monotonic()

    def fail(self, **_: Any) -> None:
        self.failed = True

    def fail_if_refused(self, http_response: Any, parsed: dict[str, Any], **_: Any) -> None:
        """Not if an object is absent or has changed."""
        code = parsed.get("Error", {}).get("Code")
        status = http_response.status_code
        if code == "NoSuchBucket" or status in _REFUSED or status >= _SERVER_ERRORS:
            self.fail()


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
        events.register("after-call-error.s3", clients.fail)
        events.register("after-call.s3", clients.fail_if_refused)
    return clients


def kept_clients(settings: StoreSettings, *, hurried: bool) -> Clients:
    """This process's earlier clients for the same settings and credentials; new ones if there are none."""
    address = (settings.endpoint_url, settings.region, settings.bucket)
    key = (address, settings.access_key_id, settings.secret_access_key, hurried, _credentials())
    with _LOCK:
        clients = _KEPT.get(key)
        if clients is None or clients.failed:
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
