"""The timelines' histories in a cluster that a restore leaves behind.

- A cluster that waits at its target is promoted later, without an archive to ask which timelines there are: all
  histories that the archive has are left in pg_wal, where PostgreSQL looks, so that it begins a timeline of a new id.
- One that was promoted has a history of its own, which nobody else has. Archiving was off then, so it is marked as
  ready to be archived: it is handed over as soon as archiving is switched on.
"""

from __future__ import annotations

from pathlib import Path

from tmi_ops.postgres.unprivileged import ServerIdentity
from tmi_ops.postgres.wal_files import history_name
from tmi_ops.recovery.point_in_time.planning import RecoveryPlan
from tmi_ops.recovery.point_in_time.spool import STAND_IN
from tmi_ops.store.objects import ObjectStore
from tmi_ops.wal.fetching import read_wal_file

_WAL, _STATUS = "pg_wal", "archive_status"


def leave_all(store: ObjectStore, plan: RecoveryPlan, directory: Path, identity: ServerIdentity) -> None:
    """Put every history into a cluster that is to be promoted later; a stand-in where the archive has none.

    Raises:
        OpsError: one that was there when recovery was planned cannot be fetched.
    """
    for timeline in range(2, plan.newest_timeline + 1):
        path = directory / _WAL / history_name(timeline)
        if path.exists():
            continue
        known = timeline in plan.histories
        content = read_wal_file(store, plan.base.system_identifier, path.name) if known else None
        identity.write(path, STAND_IN if content is None else content)


def hand_over_own(directory: Path, timeline: int, identity: ServerIdentity) -> None:
    """Mark a promoted cluster's history as ready to be archived, and take away what stood in for others."""
    for path in (directory / _WAL).glob("*.history"):
        if path.stat().st_size == len(STAND_IN) and path.read_bytes() == STAND_IN:
            path.unlink()
            (directory / _WAL / _STATUS / f"{path.name}.done").unlink(missing_ok=True)
    if (directory / _WAL / history_name(timeline)).exists():
        ready = directory / _WAL / _STATUS / f"{history_name(timeline)}.ready"
        ready.parent.mkdir(mode=0o700, exist_ok=True)
        ready.touch(mode=0o600)
        identity.take_over(ready.parent)
