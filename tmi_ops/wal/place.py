"""Where this receiver begins: the server's slot and timelines beside what the archive holds."""

from __future__ import annotations

from dataclasses import dataclass

from tmi_ops.errors import BackupError
from tmi_ops.postgres.replication import ReplicationConnection, ReplicationError
from tmi_ops.postgres.wal_files import (
    Segment,
    format_lsn,
    history_name,
    parse_history,
    parse_lsn,
    segment_at,
)
from tmi_ops.postgres.wal_stream import SystemIdentity, create_slot, drop_slot, timeline_history
from tmi_ops.progress import Report
from tmi_ops.settings import PostgresSettings
from tmi_ops.store.catalogue import list_backups
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.store.objects import ObjectStore
from tmi_ops.wal.archive import ArchivedPartial, WalArchive, list_wal
from tmi_ops.wal.coverage import coverage
from tmi_ops.wal.lineage import Lineage, lineage
from tmi_ops.wal.slot import ServerFacts, read_server, slot_lost
from tmi_ops.wal.stored_file import store_once

FIRST_TIMELINE = 1
LOST = "lost"


@dataclass(frozen=True)
class Beginning:
    """The segment to begin with, on which line of timelines, and what the archive held.

    `fallback` is where the slot begins, where that is later: for WAL that is not in the archive and that the server may
    have removed already, before there ever was a slot.
    """

    segment: Segment
    line: Lineage
    archive: WalArchive
    server: ServerFacts
    fallback: Segment | None = None

    @property
    def open_before(self) -> ArchivedPartial | None:
        """The `.partial` that the store holds of the segment to begin with."""
        partials = self.archive.partials.get(self.segment.timeline, ())
        return next((item for item in partials if item.segment == self.segment), None)


def find_beginning(
    connection: ReplicationConnection,
    postgres: PostgresSettings,
    store: ObjectStore,
    identity: SystemIdentity,
    slot: str,
    report: Report,
    *,
    accept_gap: bool = False,
) -> Beginning:
    """Decide where receiving goes on; the slot is made where there is none, histories are archived on the way.

    Args:
        accept_gap: begin where the slot begins, although the archive does not reach so far. A lost slot is made anew.

    Raises:
        SlotLostError: the server has given up the slot and `accept_gap` is not set.
        BackupError: the server stands behind what the archive holds of its timeline.
        WalConflictError: the archive has another history of the timeline.
        DatabaseError, StoreError: the server or the store failed.
    """
    archive = list_wal(store, identity.system_identifier)
    line = read_line(connection, store, identity)
    end = coverage(archive, line).end
    server = read_server(postgres, slot)
    if server.slot is not None and server.slot.status == LOST:
        if not accept_gap:
            raise slot_lost(slot, end)
        drop_slot(connection, slot)
        report.note(f"The slot {slot} was lost; it is made anew.")
        server = read_server(postgres, slot)
    if server.slot is None or server.slot.restart_lsn is None:
        _make_slot(connection, slot, anew=server.slot is not None)
        server = read_server(postgres, slot)
    kept_from = server.slot.restart_lsn if server.slot is not None else None
    if kept_from is None:
        raise BackupError(
            f"The slot {slot} keeps no WAL.", next_step=f"drop it: SELECT pg_drop_replication_slot('{slot}')"
        )
    slot_begins = coverage(archive, line).first_missing(kept_from)
    begins = slot_begins if accept_gap else coverage(archive, line).place_to_resume(kept_from)
    _refuse_to_go_back(archive, identity)
    _warn_of_younger_timelines(archive, line, report)
    wanted = _wanted_by_bases(store, identity, line, archive) if end is None else None
    if wanted is not None and wanted.start < begins.start:
        return Beginning(wanted, line, archive, server, fallback=begins)
    return Beginning(begins, line, archive, server)


def read_line(connection: ReplicationConnection, store: ObjectStore, identity: SystemIdentity) -> Lineage:
    """The server's timelines; the history of the newest one is archived, and of its ancestors where the server has it.

    Raises:
        ReplicationError: the server does not have the history of its own timeline, or the connection broke.
        WalConflictError: the archive holds another history of it.
    """
    if identity.timeline == FIRST_TIMELINE:
        return lineage(FIRST_TIMELINE, ())
    content = timeline_history(connection, identity.timeline)
    history = parse_history(content.decode(errors="replace"), identity.timeline)
    line = lineage(identity.timeline, history)
    for timeline in line.timelines:
        if timeline == FIRST_TIMELINE:
            continue
        try:
            found = timeline_history(connection, timeline)
        except ReplicationError as error:
            if error.transient or timeline == identity.timeline:
                raise
            continue  # a restored server has not every ancestor's; its own history names them all
        store_once(store, identity.system_identifier, history_name(timeline), found, None)
    return line


def _make_slot(connection: ReplicationConnection, slot: str, *, anew: bool) -> None:
    if anew:  # made by hand without reserving WAL
        drop_slot(connection, slot)
    create_slot(connection, slot)


def _refuse_to_go_back(archive: WalArchive, identity: SystemIdentity) -> None:
    newest = archive.newest_lsn(identity.timeline)
    if newest is None or newest <= identity.flushed:
        return
    raise BackupError(
        f"The server stands at {format_lsn(identity.flushed)} on timeline {identity.timeline}; the archive has WAL of "
        f"that timeline up to {format_lsn(newest)}. A standby that lags shows so, and a server whose files were put "
        "back to an earlier state.",
        kept="The archive was left as it is, and nothing was received.",
        next_step="a standby: wait until it has caught up. A server put back: restore it with `tmi-ops restore`, which "
        "gives it a timeline of its own, or archive it under a prefix of its own (TMI_OPS_S3_PREFIX)",
        transient=True,
    )


def _warn_of_younger_timelines(archive: WalArchive, line: Lineage, report: Report) -> None:
    others = [timeline for timeline in archive.timelines if timeline > line.timelines[-1]]
    if others:
        report.note(
            f"The archive has WAL of timeline {max(others)}, and this server is on timeline {line.timelines[-1]}: is "
            "it an old primary, or was another one restored from it? Both are kept apart"
        )


def _wanted_by_bases(
    store: ObjectStore, identity: SystemIdentity, line: Lineage, archive: WalArchive
) -> Segment | None:
    """Where the WAL behind the newest base backup of this cluster begins; None where there is no base backup."""
    stops = [
        (parse_lsn(entry.manifest.stop_lsn), entry.manifest.timeline)
        for entry in list_backups(store)
        if isinstance(entry.manifest, BaseManifest)
        and entry.manifest.system_identifier == identity.system_identifier
        and entry.manifest.timeline in line.timelines
    ]
    if not stops:
        return None
    lsn, timeline = max(stops)
    if lsn > identity.flushed:
        return None
    return segment_at(timeline, lsn - 1, archive.segment_size)
