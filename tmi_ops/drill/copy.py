"""The recovered copy: checks its pages while it is stopped, then starts it for the other checks.

The copy is sheltered (see postgres/shelter.py): it cannot be mistaken for the database, and it touches nothing outside.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tmi_ops.checks.finding import Answer, not_applicable, unknown
from tmi_ops.drill.findings import failed, passed
from tmi_ops.errors import ProgramError, RecoveryError
from tmi_ops.postgres.connections import connection_parameters
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.shelter import session_options
from tmi_ops.recovery.point_in_time.destination import TABLESPACES, Destination
from tmi_ops.recovery.point_in_time.execution import Recovered
from tmi_ops.recovery.point_in_time.server import (
    Recovering,
    ended_as,
    owner_of,
    recovering_server,
    restore_settings_file,
)
from tmi_ops.settings import PostgresSettings

ANSWERS_WITHIN_S = 120.0
LOOK_EVERY_S = 0.1
LINES_SHOWN = 10
_NO_SUPERUSER = "permission denied to set parameter"
# Far longer than any disk needs to read a cluster.
LEAST_LIMIT_S, SLOWEST_BYTES_PER_S = 1800.0, 5e6


def time_limit(size: int) -> float:
    """Seconds after which a program that reads `size` bytes of a cluster is stopped."""
    return LEAST_LIMIT_S + size / SLOWEST_BYTES_PER_S


def check_pages(recovered: Recovered, programs: Programs) -> Answer:
    """Compare every page's checksum with its content; the server must be stopped.

    Source: https://www.postgresql.org/docs/current/app-pgchecksums.html
    """
    if not recovered.plan.base.data_checksums:
        return not_applicable("The cluster has no data checksums (initdb --data-checksums, or pg_checksums --enable).")
    identity = owner_of(recovered.directory, programs, together=_lies_together(recovered.directory))
    argv: list[str | Path] = [programs.path("pg_checksums"), "--check", "--pgdata", recovered.directory]
    try:
        done = ended_as(identity, argv, limit=time_limit(recovered.restored_size))
    except ProgramError as too_slow:
        return unknown(too_slow.message)
    said = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    if done.returncode == 0:
        return passed(f"{int(said['Blocks scanned']):,} pages, all with correct checksums.")
    wrong = said.get("Bad checksums", "").strip()
    what = f"{wrong} pages have wrong checksums." if wrong else "pg_checksums could not check the pages."
    return failed(what, tuple(done.stderr.strip().splitlines()[:LINES_SHOWN]))


def _lies_together(directory: Path) -> bool:
    """Whether all tablespaces lie beside the data directory."""
    links = [link for link in (directory / TABLESPACES).iterdir() if link.is_symlink()]
    return all(link.readlink().is_relative_to(directory.parent.absolute()) for link in links)


@contextmanager
def running_copy(recovered: Recovered, destination: Destination, programs: Programs) -> Iterator[PostgresSettings]:
    """Run the copy's server for the length of a `with` block; yields its superuser's login.

    Raises:
        RecoveryError: it does not start.
    """
    base = recovered.plan.base
    with running_cluster(destination, base.superuser or base.role, programs) as address:
        yield address


@contextmanager
def running_cluster(
    destination: Destination, role: str, programs: Programs, parameters: Mapping[str, str] | None = None
) -> Iterator[PostgresSettings]:
    """Run a recovered cluster's server for the length of a `with` block; yields the login of `role`.

    Args:
        parameters: settings in addition to our own, which switch durability off.

    Raises:
        RecoveryError: it does not start.
    """
    identity = owner_of(destination.directory, programs, together=destination.lies_together)
    destination.work.mkdir(mode=0o700)
    identity.take_over(destination.work)
    try:
        with recovering_server(programs, destination, identity, role, parameters or {}, superuser=True) as server:
            yield _await_answer(server, session_options(programs.major, superuser=False))
    finally:
        restore_settings_file(destination)
        shutil.rmtree(destination.work, ignore_errors=True)


def _await_answer(server: Recovering, lesser_options: str) -> PostgresSettings:
    """Wait for a login to succeed. Old manifests do not say whether the role is a superuser; try it as one first."""
    address = server.cluster.address
    deadline = time.monotonic() + ANSWERS_WITHIN_S
    while time.monotonic() < deadline and server.cluster.process.poll() is None:
        try:
            psycopg.connect(**connection_parameters(address)).close()
        except psycopg.OperationalError as error:
            if _NO_SUPERUSER in str(error):
                address = address.model_copy(update={"options": lesser_options})
            time.sleep(LOOK_EVERY_S)
        else:
            return address
    lines = [line for line in server.log.read_text(errors="replace").splitlines() if line.strip()]
    raise RecoveryError(f"The recovered cluster did not start: {' / '.join(lines[-3:]) or 'its log is empty'}.")
