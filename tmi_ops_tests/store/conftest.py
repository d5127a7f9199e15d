"""One test's store, the same bucket seen by a plain client, and keys of age."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyrage
import pytest

from tmi_ops.settings import StoreSettings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.store.s3.client import connect_store, store_session

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ENVIRONMENT = "development"


@dataclass(frozen=True)
class RawBucket:
    """The store without us in between: for looking at what is really there, and for tampering with it."""

    client: S3Client
    bucket: str
    prefix: str

    @property
    def root(self) -> str:
        return f"{self.prefix}/{ENVIRONMENT}/"

    def read(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=self.root + key)["Body"].read()

    def write(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.root + key, Body=data)

    def remove(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self.root + key)

    def keys(self) -> list[str]:
        listed = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix).get("Contents", [])
        return [item["Key"].removeprefix(self.root) for item in listed]

    def uploads(self) -> list[str]:
        listed = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.prefix).get("Uploads", [])
        return [item["Key"] for item in listed]


@dataclass(frozen=True)
class AgeKeys:
    recipient: str
    identity_file: Path


@pytest.fixture
def store(store_settings: StoreSettings) -> ObjectStore:
    return open_store(store_settings, ENVIRONMENT)


@pytest.fixture
def raw(store_settings: StoreSettings) -> RawBucket:
    assert store_settings.bucket is not None
    return RawBucket(connect_store(store_session(), store_settings), store_settings.bucket, store_settings.prefix)


@pytest.fixture
def age_keys(tmp_path: Path) -> AgeKeys:
    return make_age_keys(tmp_path / "key.txt")


@pytest.fixture
def encrypting_store(store_settings: StoreSettings, age_keys: AgeKeys) -> ObjectStore:
    return open_store(with_age(store_settings, age_keys), ENVIRONMENT)


def make_age_keys(file: Path) -> AgeKeys:
    identity = pyrage.x25519.Identity.generate()
    file.write_text(f"# made for a test\n{identity}\n")
    return AgeKeys(str(identity.to_public()), file)


def with_age(settings: StoreSettings, keys: AgeKeys) -> StoreSettings:
    return settings.model_copy(update={"age_recipients": (keys.recipient,), "age_identity_file": keys.identity_file})
