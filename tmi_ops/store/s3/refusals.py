"""Explains botocore's exceptions and an S3 server's refusals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tmi_ops.error_codes import Code
from tmi_ops.errors import OpsError, StoreError
from tmi_ops.settings import without_credentials
from tmi_ops.store.backend import missing

MISSING_CODES = {"NoSuchKey", "404", "NotFound"}
WRONG_KEY_CODES = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "ExpiredToken",
    "InvalidClientTokenId",
}
DENIED_CODES = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled"}
_DAMAGED_ON_THE_WAY = {"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}
_BUSY_CODES = {"SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "RequestLimitExceeded"}
_SERVER_ERRORS = 500
_NOT_IMPLEMENTED = 501
WRONG_REGION_CODES = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}
_KEYS_STEP = (
    "check TMI_OPS_S3_ACCESS_KEY_ID and TMI_OPS_S3_SECRET_ACCESS_KEY, or, if these are not set, the standard AWS "
    "credentials"
)


@contextmanager
def refusals_explained(where: str, key: str | None = None) -> Iterator[None]:
    """Turn boto's exceptions inside the block into a StoreError that names the next step.

    Args:
        where: the store, for messages.
        key: the object being accessed, for messages and to turn its absence into ObjectMissingError.
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
    """The HTTP status of a ClientError; 0 if it has none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def arrived_damaged(error: Any) -> bool:
    """Whether the server says that the request's body arrived damaged, so that sending it again is worthwhile."""
    return error_code(error) in _DAMAGED_ON_THE_WAY


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
        return missing(key)
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
        transient=may_pass(response, code),
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


def may_pass(response: Any, code: str) -> bool:
    """Whether the server fails (5xx except 501) or is overloaded, rather than refusing the request."""
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return (status >= _SERVER_ERRORS and status != _NOT_IMPLEMENTED) or code in _BUSY_CODES
