"""Creating a bucket."""

from __future__ import annotations

from typing import Any

from tmi_ops.errors import StoreError
from tmi_ops.settings import StoreSettings
from tmi_ops.store.s3.client import connect_store, store_session
from tmi_ops.store.s3.refusals import error_code, refusals_explained

_NO_CONSTRAINT = "us-east-1"
_OURS, _SOMEBODYS = "BucketAlreadyOwnedByYou", "BucketAlreadyExists"


def make_bucket(settings: StoreSettings, *, patience_s: float = 0) -> None:
    """Create the bucket of the settings unless we own it already. May be repeated.

    Raises:
        StoreError: the server refused the request, or another AWS account owns the name.
    """
    client = connect_store(store_session(), settings, patience_s=patience_s)
    request: Any = {"Bucket": str(settings.bucket)}
    if settings.region != _NO_CONSTRAINT and settings.endpoint_url is None:
        request["CreateBucketConfiguration"] = {"LocationConstraint": settings.region}
    with refusals_explained(settings.describe()):
        try:
            client.create_bucket(**request)
        except client.exceptions.ClientError as error:
            code = error_code(error)
            if code == _SOMEBODYS and settings.endpoint_url is None:
                raise StoreError(
                    f"The bucket {settings.bucket} belongs to another AWS account.",
                    hint="choose another name with `--set TMI_OPS_S3_BUCKET=...`",
                ) from None
            if code not in (_OURS, _SOMEBODYS):  # servers other than AWS return either for one's own bucket
                raise
