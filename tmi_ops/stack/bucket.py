"""The stack's bucket."""

from __future__ import annotations

from pydantic import SecretStr

from tmi_ops.errors import StackError, StoreError
from tmi_ops.settings import StoreSettings
from tmi_ops.stack.seaweedfs import S3Credentials
from tmi_ops.store.s3.bucket import make_bucket

# The server has just begun to answer, and may refuse for a moment.
_PATIENCE_S = 10.0


def ensure_bucket(endpoint_url: str, region: str, bucket: str, credentials: S3Credentials) -> None:
    """Create the bucket if it does not exist.

    Raises:
        StackError: the S3 server refused us.
    """
    store = StoreSettings(
        bucket=bucket,
        endpoint_url=endpoint_url,
        region=region,
        access_key_id=SecretStr(credentials.access_key_id),
        secret_access_key=credentials.secret_access_key,
    )
    try:
        make_bucket(store, patience_s=_PATIENCE_S)
    except StoreError as error:
        raise StackError(
            f"The bucket {bucket} could not be created in the stack's S3 server: {error.message}", hint=error.hint
        ) from None
