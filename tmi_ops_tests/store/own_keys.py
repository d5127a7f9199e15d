"""An S3 server with Object Lock whose keys have the policies of docs/iam, which it enforces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from tmi_ops.settings import StoreSettings
from tmi_ops.stack import seaweedfs
from tmi_ops.stack.ports import seaweed_ports
from tmi_ops.stack.seaweedfs import S3Credentials, start_seaweedfs
from tmi_ops_tests.raw_s3 import raw_client

POLICIES = Path(__file__).parents[2] / "docs" / "iam"
BUCKET, PREFIX, ENVIRONMENT = "locked", "tmi-ops", "development"
_SECRET = SecretStr("a secret of tests alone")


@dataclass(frozen=True)
class OwnKeys:
    """`admin` may everything; `writer`, `prover` and `pruner` what their policies allow."""

    admin: StoreSettings
    writer: StoreSettings
    prover: StoreSettings
    pruner: StoreSettings


def policy(purpose: str) -> str:
    text = (POLICIES / f"{purpose}.json").read_text()
    return text.replace("BUCKET", BUCKET).replace("PREFIX", PREFIX).replace("ENVIRONMENT", ENVIRONMENT)


@contextmanager
def server_with_policies(root: Path) -> Iterator[OwnKeys]:
    names = ("admin", "writer", "prover", "pruner")
    everything = {"actions": ["Admin", "Read", "List", "Tagging", "Write"]}

    def identity(name: str) -> dict[str, object]:
        credentials = [{"accessKey": name, "secretKey": _SECRET.get_secret_value()}]
        return {
            "name": name,
            "credentials": credentials,
            **(everything if name == "admin" else {"policyNames": [name]}),
        }

    configuration = {
        "identities": [identity(name) for name in names],
        "policies": [{"name": name, "content": policy(name)} for name in names[1:]],
    }
    ports = seaweed_ports()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seaweedfs, "_identities", lambda _: json.dumps(configuration))
        service = start_seaweedfs(root / "data", ports, S3Credentials("admin", _SECRET), root / "s3.log")

    def settings(name: str) -> StoreSettings:
        return StoreSettings(
            bucket=BUCKET,
            prefix=PREFIX,
            endpoint_url=f"http://127.0.0.1:{ports.s3}",
            access_key_id=SecretStr(name),
            secret_access_key=_SECRET,
        )

    try:
        keys = OwnKeys(*map(settings, names))
        raw_client(keys.admin).create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
        yield keys
    finally:
        service.process.kill()  # its orderly stop takes 20 s, and its data is thrown away
        service.stop()
