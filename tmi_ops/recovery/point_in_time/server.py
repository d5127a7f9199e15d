"""The server that replays: its settings, its start, and what is left of it in the data directory afterwards.

It runs on a configuration of our own. That of its source came with the backup, but names addresses, certificates,
libraries and, worst, an archive_command of another place; it is set aside until the recovery is over.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tmi_ops.errors import ProgramError
from tmi_ops.postgres.cluster import RunningCluster, launch_cluster
from tmi_ops.postgres.configuration import quoted_value
from tmi_ops.postgres.programs import Programs, program_failed, run_program
from tmi_ops.postgres.unprivileged import UNPRIVILEGED_USER, ServerIdentity, can_run, server_identity
from tmi_ops.recovery.point_in_time.destination import Destination
from tmi_ops.recovery.point_in_time.target import TARGET_SETTINGS
from tmi_ops.settings import PostgresSettings

AUTO_CONF = "postgresql.auto.conf"
# Always there, unlike `postgres`, and nobody else is connected who could be in our way.
DATABASE = "template1"
PORT = 5432  # of the socket's name only
_SET_ASIDE = "set-aside.auto.conf"
# What pg_controldata calls the settings that a replaying server must not have lower than its source had, or that it
# writes into the WAL when they differ.
_AS_THE_SOURCE = {
    "wal_level setting": "wal_level",
    "wal_log_hints setting": "wal_log_hints",
    "max_connections setting": "max_connections",
    "max_worker_processes setting": "max_worker_processes",
    "max_wal_senders setting": "max_wal_senders",
    "max_prepared_xacts setting": "max_prepared_transactions",
    "max_locks_per_xact setting": "max_locks_per_transaction",
    "track_commit_timestamp setting": "track_commit_timestamp",
}
_SEGMENT_SIZE = "Bytes per WAL segment"
_STALE = re.compile(rf"\s*({'|'.join(TARGET_SETTINGS)}|recovery_target_(inclusive|timeline|action))\b")
_OWN: Mapping[str, str] = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "hot_standby": "on",
    # Nothing is durable before the end, when everything is synced at once.
    "fsync": "off",
    "autovacuum": "off",
    "archive_mode": "off",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "1h",
    "lc_messages": "C",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}


@dataclass(frozen=True)
class Recovering:
    """A server that replays. Its log is at `log`."""

    cluster: RunningCluster
    log: Path


def owner_of(directory: Path, programs: Programs) -> ServerIdentity:
    """As whom the cluster runs and to whom its files belong.

    As root: the owner of the directory (which may be absent) or else of the one around it that is there, when that is
    not root; else an unprivileged user who reaches it.

    Raises:
        ProgramError: we are root, and nobody else can run the server there.
    """
    around = directory.parent
    while not around.exists():
        around = around.parent
    if os.geteuid() == 0:
        for place in (directory, around):
            owner = place.stat().st_uid if place.exists() else 0
            if owner != 0:
                with contextlib.suppress(KeyError):
                    return _as_owner(pwd.getpwuid(owner).pw_name, place, programs)
    return server_identity(programs.path("postgres"), around)


def _as_owner(user: str, directory: Path, programs: Programs) -> ServerIdentity:
    program = programs.path("postgres")
    identities = [ServerIdentity(user=user)]
    if user == UNPRIVILEGED_USER:  # whom we chose ourselves, because the programs lie where only root may go
        identities.append(ServerIdentity(user=user, passes_closed_directories=True))
    for identity in identities:
        if can_run(identity, program, directory):
            return identity
    raise ProgramError(
        f"{directory} belongs to {user}, who cannot run {program} there.",
        next_step="set TMI_OPS_PG_BINDIR to programs he can run, or restore below a directory of root",
    )


def prepare_recovery(destination: Destination) -> None:
    """Make the extracted files a cluster that will recover, with its source's settings set aside."""
    directory = destination.directory
    for name in ("standby.signal", "recovery.signal", "postmaster.pid"):
        (directory / name).unlink(missing_ok=True)
    (directory / "recovery.signal").touch(mode=0o600)
    with contextlib.suppress(FileNotFoundError):
        (directory / AUTO_CONF).rename(destination.work / _SET_ASIDE)


@contextlib.contextmanager
def recovering_server(
    programs: Programs,
    destination: Destination,
    identity: ServerIdentity,
    role: str,
    parameters: Mapping[str, str],
) -> Iterator[Recovering]:
    """Start the replay; the server is stopped when the block ends.

    Args:
        role: as whom we look at it.
        parameters: of this recovery: its restore_command, its target.

    Raises:
        ProgramError: pg_controldata could not read the cluster.
    """
    with _socket_directory(identity) as sockets:
        hba, ident = destination.work / "pg_hba.conf", destination.work / "pg_ident.conf"
        _write_access(hba, ident, identity, role)
        wanted = {
            **_OWN,
            **settings_of_source(programs, destination.directory),
            "unix_socket_directories": str(sockets),
            "hba_file": str(hba),
            "ident_file": str(ident),
            **parameters,
        }
        configuration = destination.work / "recovery.conf"
        configuration.write_text("".join(f"{name} = {quoted_value(value)}\n" for name, value in wanted.items()))
        identity.take_over(configuration)
        log = destination.work / "server.log"
        log.unlink(missing_ok=True)
        address = PostgresSettings(host=str(sockets), port=PORT, user=role, database=DATABASE, sslmode="disable")
        cluster = launch_cluster(
            programs, destination.directory, identity, address, parameters={"config_file": str(configuration)}, log=log
        )
        try:
            yield Recovering(cluster, log)
        finally:
            cluster.stop()


def leave_cluster(
    programs: Programs, destination: Destination, identity: ServerIdentity, paused_at: Mapping[str, str] | None
) -> None:
    """Bring back the source's settings, clear away what was ours, and make everything durable.

    Args:
        paused_at: settings with which the server, started again, waits at the target; None: it is recovered.

    Raises:
        ProgramError: the files could not be synced.
    """
    auto_conf = destination.directory / AUTO_CONF
    set_aside = destination.work / _SET_ASIDE
    lines = set_aside.read_text().splitlines() if set_aside.exists() else []
    lines = [line for line in lines if not _STALE.match(line)]
    lines += [f"{name} = {quoted_value(value)}" for name, value in (paused_at or {}).items()]
    auto_conf.write_text("".join(f"{line}\n" for line in lines))
    auto_conf.chmod(0o600)
    identity.take_over(auto_conf)
    shutil.rmtree(destination.work)
    run_as(identity, [programs.path("initdb"), "--sync-only", "--pgdata", destination.directory])


def settings_of_source(programs: Programs, directory: Path) -> dict[str, str]:
    """What the cluster's source had of those settings that a replaying server must not have lower.

    Raises:
        ProgramError: pg_controldata could not read the cluster.
    """
    said = run_program([programs.path("pg_controldata"), directory])
    found = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    missing = [name for name in (*_AS_THE_SOURCE, _SEGMENT_SIZE) if name not in found]
    if missing:
        raise ProgramError(f"pg_controldata does not tell {', '.join(missing)} of {directory}.")
    settings = {setting: found[name].strip() for name, setting in _AS_THE_SOURCE.items()}
    # A server does not start with room for less than two segments, and these may have up to 1 GB.
    return {**settings, "min_wal_size": f"{2 * int(found[_SEGMENT_SIZE]) >> 20}MB"}


def _write_access(hba: Path, ident: Path, identity: ServerIdentity, role: str) -> None:
    """Only our own account may connect, through a socket in a private directory.

    In a user namespace the server cannot tell who we are; there the directory alone protects it.
    """
    try:
        account = None if identity.namespace else pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        account = None
    hba.write_text("local all all trust\n" if account is None else "local all all peer map=ours\n")
    ident.write_text("" if account is None else f'ours "{account}" "{role}"\n')
    for file in (hba, ident):
        file.chmod(0o600)
        identity.take_over(file)


def run_as(identity: ServerIdentity, argv: Sequence[str | Path]) -> None:
    """Run a program of the server's as whom the server runs.

    Raises:
        ProgramError: it failed.
    """
    done = subprocess.run(
        identity.command(argv), cwd="/", capture_output=True, text=True, check=False, **identity.process_options()
    )
    if done.returncode != 0:
        raise program_failed(str(argv[0]), done.returncode, done.stderr)


@contextlib.contextmanager
def _socket_directory(identity: ServerIdentity) -> Iterator[Path]:
    """In the system's temporary directory, because the name of a socket may have 107 bytes only."""
    directory = Path(tempfile.mkdtemp(prefix="tmi-ops-"))
    try:
        identity.take_over(directory)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
