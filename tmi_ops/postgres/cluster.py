"""Clusters that we initialise, start and stop ourselves. Scratch clusters exist only for a block of work.

`launch_cluster` starts every server, not as root and without our environment. The embedded stack's server listens on a
loopback port; servers that we only inspect are sheltered: a socket in a private directory, and settings on the command
line, which override every file of the cluster.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from pydantic import SecretStr

from tmi_ops.errors import DiskSpaceError, ProgramError
from tmi_ops.postgres.connections import connection_parameters
from tmi_ops.postgres.guard import Guard, guard
from tmi_ops.postgres.programs import PROGRAM_LIMIT_S, Programs, plain_environment, program_failed
from tmi_ops.postgres.shelter import PORT, session_options, sheltered_settings, socket_directory
from tmi_ops.postgres.unprivileged import ServerIdentity, server_identity, without_network
from tmi_ops.private import no_link
from tmi_ops.settings import PostgresSettings
from tmi_ops.text import format_size

LOOPBACK = "127.0.0.1"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
SCRATCH_PARAMETERS: Mapping[str, str] = {
    # A scratch cluster is discarded after a crash, so nothing in it needs to be durable.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",
}


@dataclass
class RunningCluster:
    """A server that we started: its address and its process."""

    address: PostgresSettings
    directory: Path
    process: subprocess.Popen[bytes]
    guard: Guard

    def stop(self) -> None:
        """Fast shutdown; immediate shutdown if it does not end in time."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGQUIT)
                self.process.wait(STOP_TIMEOUT_S)
        self.guard.release()


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def initialise_cluster(
    programs: Programs, data: Path, *, superuser: str, password: SecretStr, sync: bool = True, confined: bool = False
) -> ServerIdentity:
    """Run initdb for the absent or empty directory `data`: UTF-8, data checksums, SCRAM for everybody.

    Args:
        confined: see `server_identity`.

    Returns:
        The account with which the cluster must be started.

    Raises:
        ProgramError: initdb failed.
    """
    data.parent.mkdir(parents=True, exist_ok=True)
    data.mkdir(mode=0o700, exist_ok=True)
    identity = server_identity(programs.path("postgres"), data.parent, confined=confined)
    identity.take_over(data)
    with tempfile.NamedTemporaryFile("w", dir=data.parent, prefix="pw-", suffix=".tmp") as pwfile:
        pwfile.write(password.get_secret_value() + "\n")
        pwfile.flush()
        identity.take_over(Path(pwfile.name))
        argv: list[str | Path] = [
            programs.path("initdb"),
            "--pgdata",
            data,
            "--username",
            superuser,
            "--pwfile",
            pwfile.name,
            "--auth",
            "scram-sha-256",
            "--encoding",
            "UTF8",
            "--locale",
            "C",
            "--data-checksums",
        ]
        done = subprocess.run(
            identity.command(argv if sync else [*argv, "--no-sync"]),
            cwd="/",
            env=plain_environment(),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=PROGRAM_LIMIT_S,
            **identity.process_options(),
        )
    if done.returncode != 0:
        raise program_failed("initdb", done.returncode, done.stderr)
    return identity


def start_cluster(
    programs: Programs,
    data: Path,
    identity: ServerIdentity,
    address: PostgresSettings,
    *,
    parameters: Mapping[str, str],
    log: Path,
    remove_if_orphaned: Sequence[Path] = (),
    inherit: Sequence[int] = (),
) -> RunningCluster:
    """Start a server on the loopback port of `address` and wait until it answers.

    Args:
        inherit: file descriptors that the server keeps open, such as a lock that must last as long as it does.

    Raises:
        ProgramError: it ended or did not answer in time; the message has the end of its log.
    """
    settings = {
        "listen_addresses": LOOPBACK,
        "port": str(address.port),
        "unix_socket_directories": "",
        **parameters,
    }
    cluster = launch_cluster(
        programs,
        data,
        identity,
        address,
        parameters=settings,
        log=log,
        remove_if_orphaned=remove_if_orphaned,
        inherit=inherit,
    )
    try:
        _await_answer(cluster, log)
    except BaseException:
        cluster.stop()
        raise
    return cluster


def launch_cluster(
    programs: Programs,
    data: Path,
    identity: ServerIdentity,
    address: PostgresSettings,
    *,
    parameters: Mapping[str, str],
    log: Path,
    remove_if_orphaned: Sequence[Path] = (),
    inherit: Sequence[int] = (),
) -> RunningCluster:
    """Start a server's process with exactly these parameters; does not wait until it answers."""
    argv: list[str | Path] = [programs.path("postgres"), "-D", data]
    for name, value in parameters.items():
        argv += ["-c", f"{name}={value}"]
    with open(log, "ab", opener=no_link) as output:
        process = subprocess.Popen(
            identity.command(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=plain_environment(),
            start_new_session=True,
            pass_fds=inherit,
            **identity.process_options(),
        )
    return RunningCluster(address, data, process, guard(process.pid, remove_if_orphaned))


@contextlib.contextmanager
def sheltered_cluster(
    programs: Programs,
    data: Path,
    identity: ServerIdentity,
    address: PostgresSettings,
    *,
    parameters: Mapping[str, str],
    log: Path,
    remove_if_orphaned: Path | None = None,
) -> Iterator[RunningCluster]:
    """Start a server that only our own account can reach, for a `with` block; it may not answer yet.

    Args:
        address: the role, its password and the database; the returned cluster's address has the socket.
        parameters: override those of the shelter.
    """
    with socket_directory(identity) as sockets:
        shelter = {**sheltered_settings(programs.major, programs.libraries), "unix_socket_directories": str(sockets)}
        # Ours come last: only one recovery target may be set, and only after the others were emptied.
        wanted = {name: value for name, value in shelter.items() if name not in parameters} | dict(parameters)
        cluster = launch_cluster(
            programs,
            data,
            identity,
            address.model_copy(update={"host": str(sockets), "port": PORT, "sslmode": "disable"}),
            parameters=wanted,
            log=log,
            remove_if_orphaned=(sockets, *([remove_if_orphaned] if remove_if_orphaned else [])),
        )
        try:
            yield cluster
        finally:
            cluster.stop()


@contextlib.contextmanager
def scratch_cluster(
    programs: Programs, scratch_root: Path, *, parameters: Mapping[str, str] | None = None
) -> Iterator[RunningCluster]:
    """A temporary cluster below `scratch_root`; server and data are removed when the block ends, however it ends.

    Its superuser has a random name, so that all roles of a source can be restored.

    Raises:
        ProgramError: it could not be created or started.
    """
    with scratch_directory(scratch_root) as directory:
        superuser = f"tmi_ops_scratch_{secrets.token_hex(4)}"
        password = SecretStr(secrets.token_urlsafe(24))
        data = directory / "data"
        identity = initialise_cluster(programs, data, superuser=superuser, password=password, sync=False, confined=True)
        address = PostgresSettings(
            user=superuser,
            database="postgres",
            password=password,
            options=session_options(programs.major, superuser=True),
        )
        log = directory / "server.log"
        with sheltered_cluster(
            programs,
            data,
            without_network(identity, programs.path("postgres")),
            address,
            parameters={**SCRATCH_PARAMETERS, **(parameters or {})},
            log=log,
            remove_if_orphaned=directory,
        ) as cluster:
            _await_answer(cluster, log)
            yield cluster


@contextlib.contextmanager
def scratch_directory(root: Path) -> Iterator[Path]:
    """A new directory below `root` that an unprivileged server can enter; removed when the block ends."""
    root.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="scratch-", dir=root))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def copy_tree(source: Path, target: Path, hint: str) -> None:
    """Copy a directory whole, by `cp`, which shares blocks where the file system can. One that fails is removed.

    Args:
        hint: what to do where there is no room.

    Raises:
        DiskSpaceError: there is not enough free space.
        ProgramError: it could not be copied.
    """
    argv = ["cp", "--archive", "--reflink=auto", "--", str(source), str(target)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=plain_environment(), cwd="/")
    if done.returncode == 0:
        return
    shutil.rmtree(target, ignore_errors=True)
    if "No space left" in done.stderr:
        raise DiskSpaceError(f"There is not enough free space for a copy of {source}.", hint=hint)
    raise program_failed("cp", done.returncode, done.stderr)


def require_free_space(directory: Path, needed: int, purpose: str) -> None:
    """Refuse work that would fill the disk of `directory`.

    Args:
        needed: bytes that the work may use.

    Raises:
        DiskSpaceError: less than `needed` is free.
    """
    probe = directory
    while not probe.exists():
        probe = probe.parent
    free = shutil.disk_usage(probe).free
    if free < needed:
        raise DiskSpaceError(
            f"{purpose} needs {format_size(needed)} of disk space in {directory}; {format_size(free)} are free.",
            hint="free space there or set TMI_OPS_HOME to a directory on a larger disk",
        )


def _await_answer(cluster: RunningCluster, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if cluster.process.poll() is not None:
            raise _ended(cluster.process.returncode, log)
        try:
            psycopg.connect(**connection_parameters(cluster.address, "postgres")).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    raise ProgramError(f"PostgreSQL did not answer within {START_TIMEOUT_S:.0f} s: {_tail(log)}")


def _ended(returncode: int, log: Path) -> ProgramError:
    """The end of the log says why the server ended; before it are answers to early connections."""
    said = " / ".join([line for line in _tail(log).splitlines() if line.strip()][-4:]) or "no message"
    how = f"was ended by signal {-returncode}" if returncode < 0 else f"ended with exit code {returncode}"
    return ProgramError(f"PostgreSQL {how}: {said}")


def _tail(log: Path, size: int = 2000) -> str:
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - size))
        return file.read().decode(errors="replace")
