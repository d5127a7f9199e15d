"""Runs the shadow's server: an isolated standby without a primary, readable only for the clients that it allows.

Source: https://www.postgresql.org/docs/current/warm-standby.html#STANDBY-SERVER-OPERATION
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError, first_line
from tmi_ops.postgres.connections import connection_parameters
from tmi_ops.postgres.programs import Programs, run_program
from tmi_ops.postgres.shelter import PORT, write_access
from tmi_ops.postgres.unprivileged import ServerIdentity
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.private import no_link
from tmi_ops.recovery.point_in_time.destination import Destination
from tmi_ops.recovery.point_in_time.links import fixed_links
from tmi_ops.recovery.point_in_time.server import recovering_server
from tmi_ops.recovery.point_in_time.server_log import ServerLog
from tmi_ops.settings import PostgresSettings
from tmi_ops.shadow.place import Seed
from tmi_ops.shadow.replay_state import WAITS_FOR_WAL

LOOK_EVERY_S = 0.05
PROMOTED_WITHIN_S = 300.0
# A longer log is truncated after it was read.
LOG_LIMIT_BYTES = 4 << 20
_REDO, _MINIMUM = "Latest checkpoint's REDO location", "Minimum recovery ending location"
_MINIMAL = re.compile(r'WAL was generated with "?wal_level=minimal')
_REDO_AT = re.compile(r"CONTEXT:  WAL redo at ([0-9A-F]+/[0-9A-F]+) for (.*)")
# Unlike a temporary copy, it must survive a power cut; and it must use little memory.
_OWN: Mapping[str, str] = {
    "fsync": "on",
    "shared_buffers": "96MB",
    "wal_retrieve_retry_interval": "200ms",
    "checkpoint_timeout": "5min",
    "max_wal_size": "1GB",
    "max_standby_archive_delay": "30s",
}
_STATE = """
SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text, pg_last_xact_replay_timestamp(),
       pg_is_in_recovery() AND pg_is_wal_replay_paused(),
       (SELECT coalesce(wait_event, '') FROM pg_stat_activity WHERE backend_type = 'startup')
"""


@dataclass(frozen=True)
class Listening:
    """Where other accounts can connect: `addresses` and `port`, from `allowed` (CIDR), by password."""

    addresses: str
    port: int
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """The server's state. `waits`: whether it waits for WAL; None: our role may not see that."""

    in_recovery: bool
    replayed: int
    commit_at: datetime | None
    paused: bool
    waits: bool | None


@dataclass
class ShadowServer:
    """A server that runs or has exited."""

    address: PostgresSettings
    directory: Path
    log: ServerLog
    _process: Any
    _connection: psycopg.Connection[Any] | None = None

    @property
    def ended(self) -> int | None:
        """The exit code; negative: the signal; None: it is running."""
        code: int | None = self._process.poll()
        return code

    def look(self) -> Look | None:
        """Read its state; None while it refuses connections."""
        try:
            if self._connection is None:
                parameters = connection_parameters(self.address)
                self._connection = psycopg.connect(**parameters, autocommit=True)
            row = self._connection.execute(_STATE).fetchone()
        except psycopg.OperationalError:
            self.close()
            return None
        if row is None:
            raise AssertionError
        in_recovery, lsn, commit_at, paused, waits_for = row
        waits = None if waits_for is None else waits_for in WAITS_FOR_WAL
        return Look(in_recovery, parse_lsn(lsn or "0/0"), commit_at, paused, waits)

    def read_log(self) -> ServerLog:
        """Read the new log lines; truncates a long log."""
        self.log.read()
        if self.log.path.stat().st_size > LOG_LIMIT_BYTES:
            with open(self.log.path, "r+b", opener=no_link) as file:
                file.truncate(0)
            self.log.restart()
        return self.log

    def promote(self) -> tuple[int, float]:
        """Promote the server.

        Returns:
            Its new timeline, and the duration in seconds.

        Raises:
            RecoveryError: the promotion failed.
        """
        begun = time.monotonic()
        try:
            with psycopg.connect(**connection_parameters(self.address), autocommit=True) as connection:
                connection.execute("SELECT pg_promote(false)")
        except psycopg.Error as error:
            raise RecoveryError(
                f"The shadow in {self.directory} could not be promoted: {first_line(error)}.", code=Code.SHADOW_FAILED
            ) from error
        while time.monotonic() - begun < PROMOTED_WITHIN_S and self.ended is None:
            self.log.read()
            seen = self.look()
            if seen is not None and not seen.in_recovery and self.log.new_timeline is not None:
                return self.log.new_timeline, time.monotonic() - begun
            time.sleep(LOOK_EVERY_S)
        self.log.read()
        raise RecoveryError(
            f"The shadow in {self.directory} could not be promoted: {self.log.last_messages}.", code=Code.SHADOW_FAILED
        )

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextmanager
def shadow_server(
    programs: Programs,
    destination: Destination,
    identity: ServerIdentity,
    seed: Seed,
    parameters: Mapping[str, str],
    *,
    listening: Listening | None = None,
) -> Iterator[ShadowServer]:
    """Run the server for the length of a `with` block, without waiting until it answers.

    Args:
        parameters: settings of this shadow, such as restore_command and timeline.
    """
    destination.work.mkdir(mode=0o700, exist_ok=True)
    identity.take_over(destination.work)
    hba, ident = destination.work / "shadow_hba.conf", destination.work / "shadow_ident.conf"
    # Our own account connects through the socket, also for replication, to read pages. Others need a password.
    networks = () if listening is None else ("127.0.0.1/32", "::1/128", *listening.allowed)
    write_access(hba, ident, identity, seed.role, replication=True, networks=networks)
    others = {"hba_file": str(hba), "ident_file": str(ident)}
    if listening is not None:
        others |= {"listen_addresses": listening.addresses, "port": str(listening.port)}
    with (
        fixed_links(destination.directory),
        recovering_server(
            programs,
            destination,
            identity,
            seed.role,
            {**_OWN, **others, **parameters},
            superuser=seed.superuser,
        ) as recovering,
    ):
        address = recovering.cluster.address.model_copy(update={"port": listening.port if listening else PORT})
        server = ShadowServer(address, destination.directory, ServerLog(recovering.log), recovering.cluster.process)
        try:
            yield server
        finally:
            server.close()


def delay_settings(delay: timedelta) -> dict[str, str]:
    """The settings for a replay delay, if any."""
    return {"recovery_min_apply_delay": f"{int(delay.total_seconds() * 1000)}ms"} if delay else {}


def begins_at(programs: Programs, directory: Path) -> tuple[int, int]:
    """The LSN from which a stopped cluster will replay, and the LSN to which it had replayed at least."""
    said = run_program([programs.path("pg_controldata"), directory])
    found = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    redo = parse_lsn(found[_REDO].strip()) if _REDO in found else 0
    minimum = parse_lsn(found[_MINIMUM].strip()) if _MINIMUM in found else 0
    return redo, max(redo, minimum)


def died_of_minimal_wal(words: Sequence[str]) -> bool:
    """Whether the server exited because the source had run with wal_level = minimal."""
    return any(_MINIMAL.search(line) for line in words)


def redo_place(log: Path) -> tuple[int, str] | None:
    """The LSN and kind of the record at which the server exited; None if the log does not say."""
    found = _REDO_AT.findall(log.read_text(errors="replace")[-20_000:])
    return (parse_lsn(found[-1][0]), found[-1][1].strip()) if found else None
