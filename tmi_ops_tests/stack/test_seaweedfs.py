from __future__ import annotations

import secrets
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from pydantic import SecretStr

from tmi_ops.stack.bucket import ensure_bucket
from tmi_ops.stack.ports import seaweed_ports
from tmi_ops.stack.seaweedfs import ROLES, S3Credentials, SeaweedPorts, start_seaweedfs
from tmi_ops.stack.service import RunningService

pytestmark = pytest.mark.slow

CREDENTIALS = S3Credentials("access", SecretStr("a-secret-of-the-test"))
BUCKET = "kept"


@contextmanager
def running(root: Path, ports: SeaweedPorts) -> Iterator[tuple[RunningService, Any]]:
    service = start_seaweedfs(root / "data", ports, CREDENTIALS, root / "s3.log")
    try:
        endpoint_url = f"http://127.0.0.1:{ports.s3}"
        ensure_bucket(endpoint_url, "us-east-1", BUCKET, CREDENTIALS)
        client = boto3.client(
            "s3",
            endpoint_url=endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=CREDENTIALS.access_key_id,
            aws_secret_access_key=CREDENTIALS.secret_access_key.get_secret_value(),
            config=Config(retries={"max_attempts": 0}),
        )
        yield service, client
    finally:
        service.stop()


@pytest.mark.parametrize("same_ports", [True, False], ids=["on the same ports", "on other ports"])
@pytest.mark.parametrize("ending", ["orderly", "kill -9"])
def test_every_acknowledged_object_is_there_after_a_restart(tmp_path: Path, ending: str, same_ports: bool) -> None:
    ports = seaweed_ports()
    bodies = {
        f"object-{number}": secrets.token_bytes(size) for number, size in enumerate((0, 17, 5_000_000, 9_000_000))
    }
    with running(tmp_path, ports) as (service, client):
        for key, body in bodies.items():
            client.put_object(Bucket=BUCKET, Key=key, Body=body)
        if ending == "kill -9":
            service.process.send_signal(signal.SIGKILL)
            service.process.wait()
    with running(tmp_path, ports if same_ports else seaweed_ports()) as (_, client):
        assert {key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in bodies} == bodies
        client.put_object(Bucket=BUCKET, Key="after", Body=b"writable")


def test_the_server_is_ready_for_a_put_at_once_and_stops_in_order(tmp_path: Path) -> None:
    with running(tmp_path, seaweed_ports()) as (service, client):
        client.put_object(Bucket=BUCKET, Key="first", Body=b"no retry needed")
        service.stop()
    assert service.process.returncode == 0


def test_the_file_server_behind_s3_is_closed_to_everybody_else(tmp_path: Path) -> None:
    ports = seaweed_ports()
    with running(tmp_path, ports) as (_, client):
        client.put_object(Bucket=BUCKET, Key="private", Body=b"rows of a database")
        filer = ports.http[ROLES.index("filer")]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"http://127.0.0.1:{filer}/buckets/{BUCKET}/private", timeout=5)
