"""Runs the server that replays WAL.

It runs with our own settings (see postgres/shelter.py). The source's settings came with the backup, but refer to
addresses, certificates, libraries and an archive_command of another machine; they are not read during the recovery.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tmi_ops.errors import ProgramError
from tmi_ops.postgres.cluster import RunningCluster, sheltered_cluster
from tmi_ops.postgres.programs import (
    PROGRAM_LIMIT_S,
    Programs,
    plain_environment,
    program_failed,
    program_too_slow,
    run_program,
)
from tmi_ops.postgres.shelter import session_options, write_access
from tmi_ops.postgres.unprivileged import (
    NOBODY,
    SERVER_USER,
    ServerIdentity,
    can_run,
    installation_of,
    server_identity,
)
from tmi_ops.recovery.point_in_time.destination import Destination
from tmi_ops.settings import PostgresSettings

AUTO_CONF = "postgresql.auto.conf"
# Always exists, unlike `postgres`, and no other session is connected to it.
DATABASE = "template1"
_SET_ASIDE = "set-aside.auto.conf"
# pg_controldata's names for the settings that must not be lower during replay than on the source, or that the server
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
# Everything is synced at once at the end.
_OWN: Mapping[str, str] = {"fsync": "off"}


@dataclass(frozen=True)
class Recovering:
    """A server that replays WAL. `log`: path of its log."""

    cluster: RunningCluster
    log: Path


def owner_of(directory: Path, programs: Programs, *, together: bool = False) -> ServerIdentity:
    """The account that the cluster runs as and that owns its files.

    As root: the owner of the directory or, if it is absent or root's, of its nearest existing parent, unless that is
    root; else an unprivileged user who can reach it.

    Args:
        together: the cluster lies entirely in the directory and beside it. If that is below a closed directory, the
            server sees nothing else of it.

    Raises:
        ProgramError: we are root, and no other user can run the server there.
    """
    around = directory.parent
    while not around.exists():
        around = around.parent
    if os.geteuid() == 0:
        for place in (directory, around):
            owner = place.stat().st_uid if place.exists() else 0
            if owner != 0:
                with contextlib.suppress(KeyError):
                    user = pwd.getpwuid(owner).pw_name
                    return _as_owner(user, place, programs, directory.parent if together else None)
    program = programs.path("postgres")
    identity = server_identity(program, around, confined=together)
    if (directory / "PG_VERSION").exists() and not can_run(identity, program, directory):
        return server_identity(program, directory)  # a cluster whose files still belong to root
    return identity


def _as_owner(user: str, directory: Path, programs: Programs, around: Path | None) -> ServerIdentity:
    """`around`: contains the entire cluster; None: parts of it may lie elsewhere."""
    program = programs.path("postgres")
    identities = [ServerIdentity(user=user)]
    if user in (SERVER_USER, NOBODY):  # chosen by us, because only root can reach the programs
        if around is not None:
            identities.append(ServerIdentity(user=user, opened=(installation_of(program), around)))
        identities.append(ServerIdentity(user=user, passes_closed_directories=True))
    for identity in identities:
        if can_run(identity, program, directory):
            return identity
    raise ProgramError(
        f"{directory} belongs to {user}, who cannot run {program} there.",
        hint="set TMI_OPS_PG_BINDIR to programs that this user can run, or restore below a directory owned by root",
    )


def prepare_recovery(destination: Destination) -> None:
    """Prepare the extracted files for recovery, with the source's settings set aside."""
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
    *,
    superuser: bool,
) -> Iterator[Recovering]:
    """Run the replaying server for the length of a `with` block.

    Args:
        role: the role that observes it; `superuser`: whether that role is a superuser.
        parameters: settings of this recovery, such as restore_command and target.

    Raises:
        ProgramError: pg_controldata could not read the cluster.
    """
    hba, ident = destination.work / "pg_hba.conf", destination.work / "pg_ident.conf"
    write_access(hba, ident, identity, role)
    configuration = destination.work / "empty.conf"
    identity.write(configuration, b"")
    log = destination.work / "server.log"
    log.unlink(missing_ok=True)
    # The server must own every file in its data directory, because a base backup of it reads them all.
    identity.write(log, b"")
    address = PostgresSettings(
        user=role, database=DATABASE, options=session_options(programs.major, superuser=superuser)
    )
    with (
        _auto_conf_aside(destination),
        sheltered_cluster(
            programs,
            destination.directory,
            identity,
            address,
            parameters={
                **_OWN,
                **settings_of_source(programs, destination.directory),
                "config_file": str(configuration),
                "data_directory": str(destination.directory),
                "hba_file": str(hba),
                "ident_file": str(ident),
                **parameters,
            },
            log=log,
        ) as cluster,
    ):
        yield Recovering(cluster, log)


@contextlib.contextmanager
def _auto_conf_aside(destination: Destination) -> Iterator[None]:
    """Move postgresql.auto.conf away: an invalid value in it keeps the server from starting even if we override it.

    Does nothing if it is set aside for the entire recovery already.
    """
    auto_conf, kept = destination.directory / AUTO_CONF, destination.work / _SET_ASIDE
    if not auto_conf.exists() or kept.exists():
        yield
        return
    auto_conf.rename(kept)
    try:
        yield
    finally:
        kept.replace(auto_conf)


def restore_settings_file(destination: Destination) -> None:
    """Put back the settings that an interrupted run of the server left set aside."""
    kept = destination.work / _SET_ASIDE
    if kept.exists():
        kept.replace(destination.directory / AUTO_CONF)


def auto_conf_of_source(destination: Destination) -> str:
    """The source's postgresql.auto.conf, which a recovery sets aside; empty if there was none."""
    kept = destination.work / _SET_ASIDE
    return kept.read_text(errors="replace") if kept.exists() else ""


def settings_of_source(programs: Programs, directory: Path) -> dict[str, str]:
    """The source's values of the settings that must not be lower during replay.

    Raises:
        ProgramError: pg_controldata could not read the cluster.
    """
    said = run_program([programs.path("pg_controldata"), directory])
    found = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    missing = [name for name in (*_AS_THE_SOURCE, _SEGMENT_SIZE) if name not in found]
    if missing:
        raise ProgramError(f"pg_controldata does not report {', '.join(missing)} for {directory}.")
    settings = {setting: found[name].strip() for name, setting in _AS_THE_SOURCE.items()}
    # A server does not start with less than two segments, which may have up to 1 GB each.
    return {**settings, "min_wal_size": f"{2 * int(found[_SEGMENT_SIZE]) >> 20}MB"}


def run_as(identity: ServerIdentity, argv: Sequence[str | Path], *, limit: float = PROGRAM_LIMIT_S) -> None:
    """Run a PostgreSQL program as the server's user.

    Args:
        limit: timeout in seconds.

    Raises:
        ProgramError: it failed, or timed out.
    """
    done = ended_as(identity, argv, limit=limit)
    if done.returncode != 0:
        raise program_failed(str(argv[0]), done.returncode, done.stderr)


def ended_as(
    identity: ServerIdentity, argv: Sequence[str | Path], *, limit: float = PROGRAM_LIMIT_S
) -> subprocess.CompletedProcess[str]:
    """Like `run_as`, but returns the result even if the program failed.

    Raises:
        ProgramError: it timed out.
    """
    try:
        return subprocess.run(
            identity.command(argv),
            cwd="/",
            env=plain_environment(),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=limit,
            **identity.process_options(),
        )
    except subprocess.TimeoutExpired:
        raise program_too_slow(str(argv[0]), limit) from None
