"""The store as a stranger sees it: a plain S3 client, for tampering."""

from __future__ import annotations

from typing import Any

import boto3

from tmi_ops.settings import StoreSettings
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.s3.backend import S3Backend


def raw_client(store: StoreSettings) -> Any:
    assert store.access_key_id is not None
    assert store.secret_access_key is not None
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint_url,
        region_name=store.region,
        aws_access_key_id=store.access_key_id.get_secret_value(),
        aws_secret_access_key=store.secret_access_key.get_secret_value(),
    )


def s3_of(store: ObjectStore) -> S3Backend:
    """The back end of a store that is on an S3 server."""
    assert isinstance(store.backend, S3Backend)
    return store.backend


def stored_keys(store: StoreSettings) -> list[str]:
    listing = raw_client(store).list_objects_v2(Bucket=store.bucket, Prefix=f"{store.prefix}/")
    return [item["Key"] for item in listing.get("Contents", [])]


def key_ending(store: StoreSettings, ending: str) -> str:
    (key,) = [key for key in stored_keys(store) if key.endswith(ending)]
    return key


def read_raw(store: StoreSettings, key: str) -> bytes:
    content: bytes = raw_client(store).get_object(Bucket=store.bucket, Key=key)["Body"].read()
    return content


def write_raw(store: StoreSettings, key: str, content: bytes) -> None:
    raw_client(store).put_object(Bucket=store.bucket, Key=key, Body=content)


def delete_raw(store: StoreSettings, key: str) -> None:
    raw_client(store).delete_object(Bucket=store.bucket, Key=key)
