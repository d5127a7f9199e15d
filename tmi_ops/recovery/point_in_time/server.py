"""The server that replays: its settings, its start, and what is left of it in the data directory afterwards.

It runs on settings of our own (see postgres/shelter.py). Those of its source came with the backup, but name addresses,
certificates, libraries and, worst, an archive_command of another place; they are not read until the recovery is over.
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
# Always there, unlike `postgres`, and nobody else is connected who could be in our way.
DATABASE = "template1"
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
# Nothing is durable before the end, when everything is synced at once.
_OWN: Mapping[str, str] = {"fsync": "off"}


@dataclass(frozen=True)
class Recovering:
    """A server that replays. Its log is at `log`."""

    cluster: RunningCluster
    log: Path


def owner_of(directory: Path, programs: Programs, *, together: bool = False) -> ServerIdentity:
    """As whom the cluster runs and to whom its files belong.

    As root: the owner of the directory (which may be absent) or else of the one around it that is there, when that is
    not root; else an unprivileged user who reaches it.

    Args:
        together: all of the cluster lies in the directory and beside it: where it lies below a closed directory, the
            server is to see no more of that than these.

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
                    user = pwd.getpwuid(owner).pw_name
                    return _as_owner(user, place, programs, directory.parent if together else None)
    program = programs.path("postgres")
    identity = server_identity(program, around, confined=together)
    if (directory / "PG_VERSION").exists() and not can_run(identity, program, directory):
        return server_identity(program, directory)  # a cluster whose files are root's, as it was begun
    return identity


def _as_owner(user: str, directory: Path, programs: Programs, around: Path | None) -> ServerIdentity:
    """`around`: all of the cluster lies below it; None: something may lie elsewhere."""
    program = programs.path("postgres")
    identities = [ServerIdentity(user=user)]
    if user in (SERVER_USER, NOBODY):  # whom we chose ourselves, because the programs lie where only root may go
        if around is not None:
            identities.append(ServerIdentity(user=user, opened=(installation_of(program), around)))
        identities.append(ServerIdentity(user=user, passes_closed_directories=True))
    for identity in identities:
        if can_run(identity, program, directory):
            return identity
    raise ProgramError(
        f"{directory} belongs to {user}, who cannot run {program} there.",
        hint="set TMI_OPS_PG_BINDIR to programs he can run, or restore below a directory of root",
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
    *,
    superuser: bool,
) -> Iterator[Recovering]:
    """Start the replay; the server is stopped when the block ends.

    Args:
        role: as whom we look at it; `superuser`: whether that role is one.
        parameters: of this recovery: its restore_command, its target.

    Raises:
        ProgramError: pg_controldata could not read the cluster.
    """
    hba, ident = destination.work / "pg_hba.conf", destination.work / "pg_ident.conf"
    write_access(hba, ident, identity, role)
    configuration = destination.work / "empty.conf"
    identity.write(configuration, b"")
    log = destination.work / "server.log"
    log.unlink(missing_ok=True)
    # The server's own, though we open it: it reads whatever lies in its directory when its pages are asked for.
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
    """A value in it that this machine does not know would keep the server from starting, though ours overrules it.

    Where it is set aside for the whole recovery already, nothing.
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


def bring_back_settings(destination: Destination) -> None:
    """Put back what a look at the cluster that was cut off had set aside."""
    kept = destination.work / _SET_ASIDE
    if kept.exists():
        kept.replace(destination.directory / AUTO_CONF)


def auto_conf_of_source(destination: Destination) -> str:
    """The text of the source's postgresql.auto.conf, which a recovery sets aside; empty where it had none."""
    kept = destination.work / _SET_ASIDE
    return kept.read_text(errors="replace") if kept.exists() else ""


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


def run_as(identity: ServerIdentity, argv: Sequence[str | Path], *, limit: float = PROGRAM_LIMIT_S) -> None:
    """Run a program of the server's as whom the server runs.

    Args:
        limit: seconds after which it is ended.

    Raises:
        ProgramError: it failed, or did not end in time.
    """
    done = ended_as(identity, argv, limit=limit)
    if done.returncode != 0:
        raise program_failed(str(argv[0]), done.returncode, done.stderr)


def ended_as(
    identity: ServerIdentity, argv: Sequence[str | Path], *, limit: float = PROGRAM_LIMIT_S
) -> subprocess.CompletedProcess[str]:
    """As `run_as`, but a failure is the caller's to read.

    Raises:
        ProgramError: it did not end in time.
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
