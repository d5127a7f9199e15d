"""The peers of physical backups, pgBackRest and barman-cloud, set up beside us on the same servers.

pgBackRest speaks to S3 over TLS only, so all sides go through one TLS front (stunnel) to the same S3 server. The
`pgbackrest` on the PATH counts: Debian's knows PostgreSQL up to 15, a newer one is built with meson from its sources.
The peers read the server's files and must run as its user; so must TMI_OPS_PG_BINDIR. barman-cloud is left out where it
is not installed.

    apt-get install stunnel4 libzstd-dev liblz4-dev libssl-dev libxml2-dev libpq-dev libyaml-dev libbz2-dev
    /usr/bin/python3 -m venv /tmp/barman
    /tmp/barman/bin/pip install 'barman[cloud,lz4]' zstandard psycopg2-binary

That Python must be one that the server's user may run.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import Servers
from tmi_ops.postgres.cluster import free_port
from tmi_ops.postgres.unprivileged import SERVER_USER
from tmi_ops.stack.ports import is_free

STANZA = "main"
BARMAN = Path("/tmp/barman/bin")  # noqa: S108 - a throw-away environment
Words = list[str | Path]


@dataclass(frozen=True)
class Bench:
    """The servers, the address of the TLS front, and what every side is told by variables."""

    servers: Servers
    port: int
    directory: Path
    sockets: Path
    env: Mapping[str, str]
    front_pid: int = 0

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def ours(self, *words: str | Path) -> Words:
        """A `tmi-ops` command."""
        return [Path(sys.executable).parent / "tmi-ops", *words]

    def pgbackrest(self, *words: str | Path) -> Words:
        """A pgBackRest command, run as the server's user."""
        return [
            *as_server(),
            pgbackrest_program(),
            f"--config={self.directory / 'pgbackrest.conf'}",
            f"--stanza={STANZA}",
            *words,
        ]

    def barman(self, program: str, *words: str | Path) -> Words:
        """A barman-cloud command, run as the server's user; the store comes first, then `words`."""
        cloud: Words = ["--cloud-provider", "aws-s3", "--endpoint-url", self.endpoint]
        return [*as_server(), BARMAN / f"barman-cloud-{program}", *cloud, *words]

    @property
    def barman_store(self) -> tuple[str, str]:
        return f"s3://{self.servers.store.bucket}/barman", STANZA


def pgbackrest_program() -> str:
    """Where it lies; a server's archive_command has another PATH than we have."""
    found = shutil.which("pgbackrest")
    if found is None:
        raise FileNotFoundError("pgbackrest")
    return found


def barman_is_here() -> bool:
    return BARMAN.is_dir()


def as_server() -> Words:
    """A prefix: PostgreSQL refuses root, so as root the peers run as the server does."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={SERVER_USER}", f"--regid={pwd.getpwnam(SERVER_USER).pw_gid}", "--clear-groups"]


@contextmanager
def bench(running: Servers, directory: Path, sockets: Path) -> Iterator[Bench]:
    """Write the peers' configuration and start the TLS front."""
    port = free_port()
    certificate = directory / "front.pem"
    _run(
        [
            *["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"],
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", directory / "front.key", "-out", certificate),
        ]
    )
    front = directory / "stunnel.conf"
    front.write_text(
        f"foreground = yes\npid =\ndebug = 3\n[s3]\naccept = 127.0.0.1:{port}\ncert = {certificate}\n"
        f"key = {directory / 'front.key'}\nconnect = {str(running.store.endpoint_url).removeprefix('http://')}\n"
    )
    process = subprocess.Popen(["stunnel", front], stderr=subprocess.DEVNULL)  # noqa: S607
    environment = _environment(running, directory, port, certificate)
    made = Bench(running, port, directory, sockets, environment, process.pid)
    _configure_pgbackrest(made)
    try:
        while is_free(port):
            time.sleep(0.05)
        yield made
    finally:
        process.terminate()
        process.wait()


def _configure_pgbackrest(made: Bench) -> None:
    store, postgres = made.servers.store, made.servers.postgres
    for name in ("log", "lock", "spool"):
        (made.directory / name).mkdir()
        (made.directory / name).chmod(0o777)
    (made.directory / "pgbackrest.conf").write_text(
        f"""[global]
repo1-type=s3
repo1-path=/pgbackrest
repo1-s3-bucket={store.bucket}
repo1-s3-endpoint=127.0.0.1
repo1-s3-region={store.region}
repo1-s3-uri-style=path
repo1-storage-port={made.port}
repo1-storage-verify-tls=n
compress-type=zst
compress-level=1
process-max=2
start-fast=y
archive-async=y
log-level-console=error
log-level-file=off
log-path={made.directory / "log"}
lock-path={made.directory / "lock"}
spool-path={made.directory / "spool"}
[{STANZA}]
pg1-path={made.servers.data}
pg1-port={postgres.port}
pg1-socket-path={made.sockets}
pg1-user={postgres.user}
pg1-database=postgres
"""
    )


def _environment(running: Servers, directory: Path, port: int, certificate: Path) -> dict[str, str]:
    key, secret, password = running.store.access_key_id, running.store.secret_access_key, running.postgres.password
    if key is None or secret is None or password is None:
        raise AssertionError
    postgres = running.postgres
    return {
        "AWS_ACCESS_KEY_ID": key.get_secret_value(),
        "AWS_SECRET_ACCESS_KEY": secret.get_secret_value(),
        "AWS_DEFAULT_REGION": running.store.region,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_CA_BUNDLE": str(certificate),
        "PGBACKREST_REPO1_S3_KEY": key.get_secret_value(),
        "PGBACKREST_REPO1_S3_KEY_SECRET": secret.get_secret_value(),
        "PGPASSWORD": password.get_secret_value(),
        "HOME": str(directory),
        "TMI_ENV": "measurement",
        "TMI_OPS_RPO": "1h",
        "TMI_OPS_RTO": "1h",
        "TMI_OPS_HOME": str(directory / "home"),
        "TMI_OPS_PG_BINDIR": str(running.programs.bindir),
        "TMI_OPS_S3_ENDPOINT_URL": f"https://127.0.0.1:{port}",
        "TMI_OPS_S3_BUCKET": str(running.store.bucket),
        "TMI_OPS_S3_REGION": running.store.region,
        "POSTGRES_HOST": postgres.host,
        "POSTGRES_PORT": str(postgres.port),
        "POSTGRES_USER": postgres.user,
        "POSTGRES_PASSWORD": password.get_secret_value(),
        "POSTGRES_DB": postgres.database,
        "POSTGRES_SSLMODE": postgres.sslmode,
    }


def _run(argv: Sequence[str | Path]) -> None:
    subprocess.run([str(word) for word in argv], check=True, capture_output=True)
