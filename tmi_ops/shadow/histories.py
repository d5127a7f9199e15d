"""Puts timeline histories into pg_wal, because the shadow's restore_command does not deliver them."""

from __future__ import annotations

from pathlib import Path

from tmi_ops.postgres.unprivileged import ServerIdentity
from tmi_ops.postgres.wal_files import history_name
from tmi_ops.recovery.point_in_time.spool import STAND_IN
from tmi_ops.store.objects import ObjectStore
from tmi_ops.wal.fetching import read_wal_file
from tmi_ops.wal.lineage import Lineage


def fetch_histories(
    store: ObjectStore, system_identifier: str, line: Lineage, data: Path, identity: ServerIdentity
) -> None:
    """Fetch the histories of the line, which the server needs to follow it."""
    for timeline in line.timelines[1:]:
        _put(store, system_identifier, timeline, data, identity, stand_in=False)


def take_all_timelines(
    store: ObjectStore, system_identifier: str, newest: int, data: Path, identity: ServerIdentity
) -> None:
    """Put the history, or a placeholder, of every timeline up to the newest into pg_wal, so that a promoted server
    chooses an unused timeline."""
    for timeline in range(2, newest + 1):
        _put(store, system_identifier, timeline, data, identity, stand_in=True)


def _put(
    store: ObjectStore,
    system_identifier: str,
    timeline: int,
    data: Path,
    identity: ServerIdentity,
    *,
    stand_in: bool,
) -> None:
    path = data / "pg_wal" / history_name(timeline)
    if path.exists():
        return
    content = read_wal_file(store, system_identifier, path.name)
    if content is not None or stand_in:
        identity.write(path, STAND_IN if content is None else content)
