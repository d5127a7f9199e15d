"""The servers a measurement runs on: a throw-away PostgreSQL and a throw-away S3, below a directory of its own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from tmi_ops.postgres.programs import Programs, server_programs
from tmi_ops.progress import SilentReport
from tmi_ops.schema.migration import migrate
from tmi_ops.settings import OBJECTIVES, PostgresSettings, RedisSettings, Settings, StoreSettings
from tmi_ops.stack.bucket import ensure_bucket
from tmi_ops.stack.dataset import DatasetSummary, fill_database
from tmi_ops.stack.ports import seaweed_ports
from tmi_ops.stack.postgresql import throwaway_server
from tmi_ops.stack.seaweedfs import S3Credentials, start_seaweedfs

POSTGRES_MAJOR = 17
# As a server of the embedded stack has it; the rest is what a scratch cluster has.
POSTGRES_PARAMETERS = {"wal_level": "replica", "max_wal_senders": "4", "max_connections": "50"}
BUCKET, REGION = "measurement", "us-east-1"


@dataclass(frozen=True)
class Servers:
    """What both sides of a measurement talk to. `data`: the data directory; `s3_pid`: the S3 server's process."""

    postgres: PostgresSettings
    store: StoreSettings
    programs: Programs
    data: Path
    s3_pid: int = 0

    @property
    def postgres_pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def settings(self, environment: str, home: Path) -> Settings:
        """Of an environment on these servers, with development's objectives."""
        return Settings(
            environment=environment,
            postgres=self.postgres,
            redis=RedisSettings(),
            store=self.store,
            objectives=OBJECTIVES["development"],
            home=home,
        )


@contextmanager
def servers(
    directory: Path, *, major: int = POSTGRES_MAJOR, parameters: Mapping[str, str] | None = None
) -> Iterator[Servers]:
    """Start both servers; they and their data are gone when the block ends.

    Args:
        parameters: of PostgreSQL, over `POSTGRES_PARAMETERS`.
    """
    bindir = os.environ.get("TMI_OPS_PG_BINDIR")
    programs = server_programs(major, Path(bindir) if bindir else None)
    wanted = {**POSTGRES_PARAMETERS, **(parameters or {})}
    credentials = S3Credentials("measurement", SecretStr(secrets.token_urlsafe(24)))
    with throwaway_server(programs, directory / "postgres", parameters=wanted) as cluster:
        ports = seaweed_ports()
        s3 = start_seaweedfs(directory / "s3", ports, credentials, directory / "s3.log")
        try:
            endpoint_url = f"http://127.0.0.1:{ports.s3}"
            ensure_bucket(endpoint_url, REGION, BUCKET, credentials)
            store = StoreSettings(
                bucket=BUCKET,
                endpoint_url=endpoint_url,
                region=REGION,
                access_key_id=SecretStr(credentials.access_key_id),
                secret_access_key=credentials.secret_access_key,
            )
            postgres = cluster.address.model_copy(update={"database": "tmi"})
            yield Servers(postgres, store, programs, cluster.directory, s3.process.pid)
        finally:
            s3.process.kill()  # its orderly stop takes long, and its data is thrown away
            s3.stop()


def make_database(postgres: PostgresSettings, size: int) -> DatasetSummary:
    """A TMI database of about `size` bytes, always the same."""
    migrate(postgres, SilentReport())
    return fill_database(postgres, SilentReport(), size=size, seed=1)
