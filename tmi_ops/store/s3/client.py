"""The S3 client: how it is created, and how long a request is retried."""

from __future__ import annotations

import functools
import random
import time
from typing import TYPE_CHECKING, Any

from tmi_ops.error_codes import Code
from tmi_ops.errors import StoreError
from tmi_ops.progress import begin_waiting, end_waiting
from tmi_ops.settings import StoreSettings
from tmi_ops.store.s3.listings import page_parsers
from tmi_ops.store.s3.refusals import may_pass, refusals_explained

if TYPE_CHECKING:
    from boto3.session import Session
    from botocore.loaders import Loader
    from mypy_boto3_s3 import S3Client

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60
# How long a request is retried while the server is unreachable or overloaded: long enough to outlast a restart.
# botocore's own retries end within 3 s, and all requests of a client share a quota of them.
PATIENCE_S = 45.0
LONGEST_PAUSE_S = 5.0
_FIRST_PAUSE_S = 0.1
# botocore's own attempts, for failures that pass at once.
_ATTEMPTS = 2
POOL_CONNECTIONS = 32
_SELF = "the store"


def store_session() -> Session:
    """The session that several clients share: a second client of one session costs 5 ms.

    Raises:
        StoreError: the configured AWS profile does not exist.
    """
    import botocore.session
    from boto3.session import Session

    loader = _service_models()
    with refusals_explained("on S3"):
        reading = botocore.session.get_session()
        reading.register_component("data_loader", loader)
        reading.register_component("response_parser_factory", page_parsers())
        session = Session(botocore_session=reading)
    # Each boto3 session adds its own directory to the loader's.
    loader.search_paths[:] = dict.fromkeys(loader.search_paths)
    return session


@functools.cache
def _service_models() -> Loader:
    """Load once per process: a service that opens the store at every tick would spend 0.1 CPU s on the same JSON.

    None of it depends on credentials or settings, which each session reads for itself.
    """
    from botocore.loaders import create_loader

    return create_loader()


def connect_store(
    session: Session,
    settings: StoreSettings,
    *,
    patience_s: float = PATIENCE_S,
    read_timeout_s: float = READ_TIMEOUT_S,
) -> S3Client:
    """Create a client; nothing is sent yet. It is thread-safe.

    Args:
        patience_s: how long a request is retried before it fails.
        read_timeout_s: how long to wait for data from the server.

    Raises:
        StoreError: the endpoint is not a URL.
    """
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    own_keys = settings.access_key_id is not None and settings.secret_access_key is not None
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        max_pool_connections=POOL_CONNECTIONS,
        tcp_keepalive=True,
        # We send and check SHA-256 ourselves; botocore's CRC on top would cost time and show nothing more.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if settings.endpoint_url else "auto"},
    )
    with refusals_explained(settings.describe()):
        try:
            client: S3Client = session.client(
                "s3",
                region_name=settings.region,
                endpoint_url=settings.endpoint_url,
                aws_access_key_id=_secret(settings.access_key_id) if own_keys else None,
                aws_secret_access_key=_secret(settings.secret_access_key) if own_keys else None,
                config=config,
            )
        except ValueError as error:
            if isinstance(error, BotoCoreError):
                raise
            raise StoreError(
                f"The store's endpoint is not a URL: {settings.public_endpoint!r}.",
                hint="write TMI_OPS_S3_ENDPOINT_URL as https://host:port",
                code=Code.STORE_ADDRESS,
            ) from None
    events: Any = client.meta.events  # its stubs do not know handlers that return a value
    events.register("needs-retry.s3", _Patience(patience_s).pause_before_next)
    events.register("before-call.s3", lambda **_: begin_waiting(_SELF))
    for answered in ("after-call.s3", "after-call-error.s3"):
        events.register(answered, lambda **_: end_waiting(_SELF))
    return client


class _Patience:
    """Answers botocore's question whether to retry a failed request, after botocore's own retries have ended."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def pause_before_next(
        self,
        response: tuple[Any, dict[str, Any]] | None,
        attempts: int,
        caught_exception: Exception | None,
        request_dict: dict[str, Any],
        **_: Any,
    ) -> float | None:
        """Seconds to wait before the request is sent again; None to let it fail."""
        from botocore.exceptions import ConnectionError as NoConnectionError
        from botocore.exceptions import HTTPClientError

        answer = response[1] if response is not None else {}
        code = str(answer.get("Error", {}).get("Code", ""))
        if not isinstance(caught_exception, HTTPClientError | NoConnectionError) and not may_pass(answer, code):
            return None
        begun: float = request_dict.setdefault("context", {}).setdefault("tmi_ops_begun", time.monotonic())
        if time.monotonic() - begun >= self._seconds:
            return None
        pause = min(LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(attempts, 10))
        return pause * random.uniform(0.5, 1)  # noqa: S311


def _secret(value: Any) -> str:
    return str(value.get_secret_value())
