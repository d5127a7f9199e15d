"""The S3 client, and what the server's refusals mean for a person."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tmi_ops.error_codes import Code
from tmi_ops.errors import ObjectMissingError, OpsError, StoreError
from tmi_ops.progress import begin_waiting, end_waiting
from tmi_ops.settings import StoreSettings, without_credentials
from tmi_ops.store.listings import page_parsers

if TYPE_CHECKING:
    from boto3.session import Session
    from botocore.loaders import Loader
    from mypy_boto3_s3 import S3Client

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60
# How long a request is sent again and again while the server cannot be reached or struggles: a restart is outlasted.
# botocore's own retries are over within 3 s, and all requests of a client share a quota of them.
PATIENCE_S = 45.0
LONGEST_PAUSE_S = 5.0
_FIRST_PAUSE_S = 0.1
# botocore's own, for what passes at once.
_ATTEMPTS = 2
POOL_CONNECTIONS = 32

MISSING_CODES = {"NoSuchKey", "404", "NotFound"}
WRONG_KEY_CODES = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "ExpiredToken",
    "InvalidClientTokenId",
}
DENIED_CODES = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled"}
_BUSY_CODES = {"SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "RequestLimitExceeded"}
_SELF = "the store"
_SERVER_ERRORS = 500
_NOT_IMPLEMENTED = 501
WRONG_REGION_CODES = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}
_KEYS_STEP = (
    "check TMI_OPS_S3_ACCESS_KEY_ID and TMI_OPS_S3_SECRET_ACCESS_KEY, or, if these are not set, the standard AWS "
    "credentials"
)


def store_session() -> Session:
    """What several clients share: a second client of one session costs 5 ms.

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
    """Read once in a process: a service that opens the store at every tick would spend 0.1 CPU s on the same JSON.

    Nothing of it depends on credentials or settings, which each session reads for itself.
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
    """Make a client; nothing is sent yet. It is safe to use from several threads.

    Args:
        patience_s: how long a request is repeated before its failure counts.
        read_timeout_s: how long the server may say nothing.

    Raises:
        StoreError: the endpoint is not an address.
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
        # We send and check SHA-256 ourselves; botocore's CRC on top would cost time and prove nothing more.
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
    events: Any = client.meta.events  # its stubs allow no handler that answers
    events.register("needs-retry.s3", _Patience(patience_s).pause_before_next)
    events.register("before-call.s3", lambda **_: begin_waiting(_SELF))
    for answered in ("after-call.s3", "after-call-error.s3"):
        events.register(answered, lambda **_: end_waiting(_SELF))
    return client


class _Patience:
    """Answers botocore's question whether a failed request is worth another attempt, after botocore's own no."""

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
        """Seconds to wait before the request is sent again; None: its failure counts."""
        from botocore.exceptions import ConnectionError as NoConnectionError
        from botocore.exceptions import HTTPClientError

        answer = response[1] if response is not None else {}
        code = str(answer.get("Error", {}).get("Code", ""))
        if not isinstance(caught_exception, HTTPClientError | NoConnectionError) and not _may_pass(answer, code):
            return None
        begun: float = request_dict.setdefault("context", {}).setdefault("tmi_ops_begun", time.monotonic())
        if time.monotonic() - begun >= self._seconds:
            return None
        pause = min(LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(attempts, 10))
        return pause * random.uniform(0.5, 1)  # noqa: S311


@contextmanager
def refusals_explained(where: str, key: str | None = None) -> Iterator[None]:
    """Turn boto's exceptions inside the block into a StoreError that names the next step.

    Args:
        where: the store in words.
        key: the object in hand, for messages and so that its absence becomes ObjectMissingError.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _explain_answer(error.response, where, key) from error
    except BotoCoreError as error:
        raise _explain_failure(error, where) from error


def error_code(error: Any) -> str:
    """The server's own code of a ClientError, such as `NoSuchKey`, or the HTTP status as text."""
    return str(error.response.get("Error", {}).get("Code", ""))


def http_status(error: Any) -> int:
    """The HTTP status of a ClientError; 0 when it has none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _explain_answer(response: Any, where: str, key: str | None) -> OpsError:
    code = str(response.get("Error", {}).get("Code", ""))
    said = str(response.get("Error", {}).get("Message", "")).strip() or code
    if code == "NoSuchBucket":
        return StoreError(
            f"The bucket of {where} does not exist.",
            hint="create it, or correct TMI_OPS_S3_BUCKET and TMI_OPS_S3_ENDPOINT_URL",
            code=Code.STORE_ADDRESS,
        )
    if code in MISSING_CODES and key is not None:
        return ObjectMissingError(f"The store has no object {key}.", hint="list the backups with `tmi-ops backups`")
    if code in WRONG_KEY_CODES:
        return StoreError(
            f"The store {where} rejected the access keys ({code}).", hint=_KEYS_STEP, code=Code.STORE_KEYS_REJECTED
        )
    if code in DENIED_CODES:
        return StoreError(
            f"The store {where} denied the request: the access keys lack a right ({said}).",
            hint="grant the policy for their purpose (docs/iam); `tmi-ops doctor` lists what they lack",
            code=Code.STORE_RIGHT_MISSING,
        )
    if code in ("InvalidRequest", "ObjectLockConfigurationNotFoundError") and "lock" in said.lower():
        return StoreError(
            f"The bucket of {where} has no Object Lock ({said}).",
            hint="use a bucket that was created with Object Lock, or unset TMI_OPS_RETAIN",
            code=Code.STORE_ADDRESS,
        )
    if code in WRONG_REGION_CODES:
        return StoreError(
            f"The bucket of {where} is in another region ({said}).",
            hint="set TMI_OPS_S3_REGION to the bucket's region",
            code=Code.STORE_ADDRESS,
        )
    request = f" a request for {key}" if key else ""
    return StoreError(
        f"The store {where} answered{request} with an error: {code}: {said}",
        hint="see the S3 server's log",
        transient=_may_pass(response, code),
    )


def _explain_failure(error: Exception, where: str) -> StoreError:
    from botocore import exceptions

    said = without_credentials(str(error))
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return StoreError(
            f"No access keys are configured for the store {where}.", hint=_KEYS_STEP, code=Code.STORE_KEYS_REJECTED
        )
    if isinstance(error, exceptions.ProfileNotFound):
        return StoreError(
            f"The AWS configuration is wrong: {error}.", hint="correct AWS_PROFILE", code=Code.STORE_KEYS_REJECTED
        )
    if isinstance(error, exceptions.SSLError):
        return StoreError(
            f"The TLS connection to the store {where} failed: {said}",
            hint="use https in TMI_OPS_S3_ENDPOINT_URL only if the server supports it, and set AWS_CA_BUNDLE to its "
            "certificate authority",
            code=Code.STORE_UNREACHABLE,
        )
    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError | exceptions.IncompleteReadError):
        return StoreError(
            f"The store {where} could not be reached: {said}",
            hint="check TMI_OPS_S3_ENDPOINT_URL, DNS and the network, and that the S3 server is running",
            code=Code.STORE_UNREACHABLE,
            transient=True,
        )
    return StoreError(
        f"The store {where} cannot be used: {said}", hint="check the configuration with `tmi-ops settings`"
    )


def _may_pass(response: Any, code: str) -> bool:
    """Whether the server struggles (500, 503) or is asked too much, rather than refusing what we ask."""
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return (status >= _SERVER_ERRORS and status != _NOT_IMPLEMENTED) or code in _BUSY_CODES


def _secret(value: Any) -> str:
    return str(value.get_secret_value())
