"""The stack's bucket."""

from __future__ import annotations

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tmi_ops.errors import StackError
from tmi_ops.stack.seaweedfs import S3Credentials


def ensure_bucket(endpoint_url: str, region: str, bucket: str, credentials: S3Credentials) -> None:
    """Create the bucket if it does not exist.

    Raises:
        StackError: the S3 server refused us.
    """
    client = boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=region,
        aws_access_key_id=credentials.access_key_id,
        aws_secret_access_key=credentials.secret_access_key.get_secret_value(),
        config=Config(retries={"max_attempts": 5, "mode": "standard"}, s3={"addressing_style": "path"}),
    )
    try:
        if bucket not in [entry["Name"] for entry in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=bucket)
    except (BotoCoreError, ClientError) as error:
        raise StackError(f"The bucket {bucket} could not be created in the stack's S3 server: {error}.") from None
