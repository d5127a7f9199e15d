"""The stack's two PostgreSQL clusters: TMI's database and Dagster's."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from psycopg import sql
from pydantic import SecretStr

from tmi_ops.postgres.cluster import (
    SCRATCH_PARAMETERS,
    RunningCluster,
    free_port,
    initialise_cluster,
    scratch_directory,
    start_cluster,
)
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.unprivileged import server_identity
from tmi_ops.private import make_directory, open_log
from tmi_ops.settings import PostgresSettings
from tmi_ops.stack.ports import LOOPBACK

TMI_USER = "postgres"
TMI_DATABASE = "tmi"
DAGSTER_USER = "dagster"
DAGSTER_DATABASE = "dagster"

# As a production server should be set up: physical and incremental backups and query statistics work at once.
TMI_PARAMETERS: Mapping[str, str] = {
    "wal_level": "replica",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "summarize_wal": "on",
    # Without a receiver, WAL must not fill the disk.
    "max_slot_wal_keep_size": "4GB",
    "shared_preload_libraries": "pg_stat_statements",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
}
# Small tables that no backup depends on; small in memory and on disk.
DAGSTER_PARAMETERS: Mapping[str, str] = {
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
}


def tmi_address(port: int, password: SecretStr) -> PostgresSettings:
    """The address of TMI's database in the stack. Loopback only, so without TLS."""
    return PostgresSettings(
        host=LOOPBACK, port=port, user=TMI_USER, password=password, database=TMI_DATABASE, sslmode="disable"
    )


def dagster_address(port: int, password: SecretStr) -> PostgresSettings:
    """The address of Dagster's database."""
    return PostgresSettings(
        host=LOOPBACK, port=port, user=DAGSTER_USER, password=password, database=DAGSTER_DATABASE, sslmode="disable"
    )


def start_stack_cluster(
    programs: Programs,
    directory: Path,
    address: PostgresSettings,
    *,
    parameters: Mapping[str, str],
    log: Path,
    inherit: Sequence[int] = (),
) -> RunningCluster:
    """Start the cluster in `directory`; initialises it first if there is none.

    Raises:
        ProgramError: it could not be initialised or started.
    """
    data = directory / "data"
    make_directory(directory, directory.parent.stat().st_mode & 0o777)
    if not data.exists():
        _make_cluster(programs, directory, data, address)
    _forget_dead_postmaster(data / "postmaster.pid")
    identity = server_identity(programs.path("postgres"), directory)
    identity.take_over(data)
    with open_log(log):  # created before the server writes to it, so that it is 0600
        pass
    return start_cluster(programs, data, identity, address, parameters=parameters, log=log, inherit=inherit)


@contextmanager
def throwaway_server(
    programs: Programs, root: Path, *, parameters: Mapping[str, str] | None = None
) -> Iterator[RunningCluster]:
    """A temporary server on a loopback port, for tests and measurements; removed when the block ends.

    Raises:
        ProgramError: it could not be initialised or started.
    """
    with scratch_directory(root) as directory:
        password = SecretStr(secrets.token_urlsafe(24))
        address = PostgresSettings(
            host=LOOPBACK,
            port=free_port(),
            user=f"tmi_ops_scratch_{secrets.token_hex(4)}",
            database="postgres",
            sslmode="disable",
            password=password,
        )
        data = directory / "data"
        identity = initialise_cluster(programs, data, superuser=address.user, password=password, sync=False)
        cluster = start_cluster(
            programs,
            data,
            identity,
            address,
            parameters={**SCRATCH_PARAMETERS, **(parameters or {})},
            log=directory / "server.log",
            remove_if_orphaned=(directory,),
        )
        try:
            yield cluster
        finally:
            cluster.stop()


def _forget_dead_postmaster(pid_file: Path) -> None:
    """Remove the pid file of a zombie: PostgreSQL takes it for a running postmaster, and some containers never reap."""
    with suppress(OSError, ValueError, IndexError):
        pid = int(pid_file.read_text().splitlines()[0])
        # The state follows the program's name, which is in parentheses and may hold anything.
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            pid_file.unlink()


def _make_cluster(programs: Programs, directory: Path, data: Path, address: PostgresSettings) -> None:
    """Run initdb in another directory and rename it, so that an interrupted one does not look like a cluster."""
    unfinished = directory / "data.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    password = address.password or SecretStr("")
    initialise_cluster(programs, unfinished, superuser=address.user, password=password)
    unfinished.rename(data)


def ensure_database(address: PostgresSettings) -> None:
    """Create the database of `address` if it does not exist.

    Raises:
        DatabaseError: the server refused us.
    """
    with connect(address, "postgres") as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [address.database]).fetchone()
        if found is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(address.database)))
