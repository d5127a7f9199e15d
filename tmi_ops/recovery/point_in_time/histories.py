"""Timeline histories in the pg_wal of a restored cluster or a shadow.

- A shadow's server needs the histories of its line, because its restore_command does not deliver them.
- A cluster that waits at its target is promoted later, without access to the archive. All histories of the archive are
  left in pg_wal, so that PostgreSQL chooses an unused timeline id.
- A promoted cluster has a history of its own. It is marked as ready to be archived, because archiving was off when it
  was written: it is archived as soon as archiving is enabled.
"""

from __future__ import annotations

from pathlib import Path

from tmi_ops.postgres.unprivileged import ServerIdentity
from tmi_ops.postgres.wal_files import history_name
from tmi_ops.recovery.point_in_time.planning import RecoveryPlan
from tmi_ops.recovery.point_in_time.spool import STAND_IN
from tmi_ops.store.objects import ObjectStore
from tmi_ops.wal.fetching import read_wal_file
from tmi_ops.wal.lineage import Lineage

_WAL, _STATUS = "pg_wal", "archive_status"


def put_histories(store: ObjectStore, plan: RecoveryPlan, directory: Path, identity: ServerIdentity) -> None:
    """Put every history into a cluster that will be promoted later; a placeholder where the archive has none.

    Raises:
        OpsError: a history in the archive is damaged, or the store failed.
    """
    for timeline in range(2, plan.newest_timeline + 1):
        path = directory / _WAL / history_name(timeline)
        if path.exists():
            continue
        known = timeline in plan.histories
        content = read_wal_file(store, plan.base.system_identifier, path.name) if known else None
        identity.write(path, STAND_IN if content is None else content)


def fetch_histories(
    store: ObjectStore, system_identifier: str, line: Lineage, data: Path, identity: ServerIdentity
) -> None:
    """Fetch the histories of the line, which the server needs to follow it."""
    for timeline in line.timelines[1:]:
        _put(store, system_identifier, timeline, data, identity, stand_in=False)


def reserve_timelines(
    store: ObjectStore, system_identifier: str, newest: int, data: Path, identity: ServerIdentity
) -> None:
    """Put the history, or a placeholder, of every timeline up to the newest into pg_wal.

    This makes a promoted server choose an unused timeline.
    """
    for timeline in range(2, newest + 1):
        _put(store, system_identifier, timeline, data, identity, stand_in=True)


def mark_own_history(directory: Path, timeline: int, identity: ServerIdentity) -> None:
    """Mark a promoted cluster's history as ready to be archived, and remove the placeholders for others."""
    for path in (directory / _WAL).glob("*.history"):
        if path.stat().st_size == len(STAND_IN) and path.read_bytes() == STAND_IN:
            path.unlink()
            (directory / _WAL / _STATUS / f"{path.name}.done").unlink(missing_ok=True)
    if (directory / _WAL / history_name(timeline)).exists():
        ready = directory / _WAL / _STATUS / f"{history_name(timeline)}.ready"
        ready.parent.mkdir(mode=0o700, exist_ok=True)
        ready.touch(mode=0o600)
        identity.take_over(ready.parent)


def _put(
    store: ObjectStore,
    system_identifier: str,
    timeline: int,
    data: Path,
    identity: ServerIdentity,
    *,
    stand_in: bool,
) -> None:
    path = data / _WAL / history_name(timeline)
    if path.exists():
        return
    content = read_wal_file(store, system_identifier, path.name)
    if content is not None or stand_in:
        identity.write(path, STAND_IN if content is None else content)
