"""Only one backup of a database at a time, from any host: an advisory lock on the server, held during the backup.

It ends with its connection, so a backup that crashes leaves no lock behind. It costs a connection and holds no
snapshot.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psycopg

from tmi_ops.error_codes import Code
from tmi_ops.errors import BackupError
from tmi_ops.postgres.advisory_locks import lock_holder
from tmi_ops.postgres.connections import explain_refusal, open_session
from tmi_ops.settings import PostgresSettings

# The first eight bytes of SHA-256 of "tmi_ops.backup", so that no other program uses the same key by chance.
BACKUP_LOCK = int.from_bytes(bytes.fromhex("579d980231bc83f3"), "big")
# The lock's connection is idle for the whole backup; keepalives stop a firewall from dropping it.
_KEEPALIVE_AFTER_S = 60


T = TypeVar("T")
_POLL_S = 1.0


class BackupRunningError(BackupError):
    """Another backup of this database is running."""

    default_code = Code.BACKUP_RUNNING


@contextmanager
def only_backup(postgres: PostgresSettings, *, may_be_refused: bool = False) -> Iterator[None]:
    """Hold the lock for the length of a `with` block.

    Args:
        may_be_refused: continue without the lock if the connection fails; a role may replicate but not connect.

    Raises:
        BackupRunningError: another backup holds it.
        DatabaseError: the server could not be reached; not with `may_be_refused`.
    """
    try:
        connection = open_session(postgres, keepalives_idle=_KEEPALIVE_AFTER_S, autocommit=True)
    except psycopg.OperationalError as error:
        if not may_be_refused:
            raise explain_refusal(error, postgres) from None
        yield
        return
    with contextlib.closing(connection):
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (BACKUP_LOCK,)).fetchone()
        if row is None or not row[0]:
            raise BackupRunningError(
                f"Another backup of {postgres.describe()} is running ({lock_holder(connection, BACKUP_LOCK)}).",
                detail="That backup was not disturbed.",
                hint="wait until it ends; `tmi-ops backups` then lists it",
                transient=True,
            )
        yield


def when_none_runs(backup: Callable[[], T], patience_s: float) -> T:
    """Take a backup, waiting up to `patience_s` seconds while another is running.

    Raises:
        BackupRunningError: the other backup did not end in time.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return backup()
        except BackupRunningError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)
