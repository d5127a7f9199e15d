"""Decides where a receiver begins, from the server's slot and timelines and from the archive.

1. What the archive has of the server's line decides which segment is needed next; see `coverage.place_to_resume`.
2. The server is asked whether it still has that segment. If not, receiving continues after the gap only if the user
   accepted the gap, or if a base backup was taken after it, so that no later recovery needs it.
3. The segment archived last is received again, if the server still has it, and compared byte by byte. This detects a
   server whose files were returned to an earlier state, whatever its LSNs are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tmi_ops.error_codes import Code
from tmi_ops.errors import BackupError
from tmi_ops.postgres.replication import ReplicationConnection, ReplicationError
from tmi_ops.postgres.wal_files import Segment, format_lsn, history_name, parse_history, parse_lsn, segment_at
from tmi_ops.postgres.wal_stream import SystemIdentity, create_slot, drop_slot, identify, timeline_history
from tmi_ops.progress import Report
from tmi_ops.settings import PostgresSettings
from tmi_ops.store.catalogue import list_backups
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.store.objects import ObjectStore
from tmi_ops.wal.archive import ArchivedPartial, WalArchive, list_wal
from tmi_ops.wal.coverage import Coverage, coverage
from tmi_ops.wal.lineage import FIRST_TIMELINE, Lineage, lineage
from tmi_ops.wal.segments import look_at_segment
from tmi_ops.wal.slot import LOST, ServerFacts, read_server, slot_lost, wal_gone
from tmi_ops.wal.stored_file import OWN_TIMELINE, WalConflictError, store_once
from tmi_ops.wal.uploads import Joint


@dataclass(frozen=True)
class Beginning:
    """The first segment to receive, its line, the archive, and the server.

    `joint` is what the first segment must continue.
    """

    segment: Segment
    line: Lineage
    archive: WalArchive
    server: ServerFacts
    joint: Joint

    @property
    def open_before(self) -> ArchivedPartial | None:
        """The partial of the first segment, if the archive has one."""
        partials = self.archive.partials.get(self.segment.timeline, ())
        return next((item for item in partials if item.segment == self.segment), None)


@dataclass(frozen=True)
class Place:
    """A segment to begin with. `behind_a_gap`: the WAL before it is missing from the archive and the server."""

    segment: Segment
    behind_a_gap: bool = False


def places_to_begin(covered: Coverage, slot_lsn: int, needed: Segment | None, *, accept_gap: bool) -> tuple[Place, ...]:
    """The segments to begin with, best first. The first that the server still has is to be used. Pure.

    Args:
        slot_lsn: the slot's restart_lsn.
        needed: the first segment that the newest base backup on the line needs. None: there is no base backup.
        accept_gap: the user accepted a gap.
    """
    slot_begins = covered.first_missing(slot_lsn)
    if covered.end is None:
        # Nothing is archived yet: begin at the newest base backup, or where the slot begins.
        segments = sorted({slot_begins, needed or slot_begins}, key=lambda segment: segment.start)
    else:
        segments = [covered.place_to_resume(slot_lsn)]
        if needed is not None and needed.start > segments[0].start:
            segments.append(covered.first_missing(needed.start))
        if accept_gap or (needed is not None and slot_begins.start <= needed.start):
            segments.append(slot_begins)
    return tuple(Place(segment, segment.start > segments[0].start) for segment in dict.fromkeys(segments))


def find_beginning(
    connection: ReplicationConnection,
    postgres: PostgresSettings,
    store: ObjectStore,
    identity: SystemIdentity,
    slot: str,
    report: Report,
    server_has: Callable[[Segment], bool],
    *,
    accept_gap: bool = False,
) -> Beginning:
    """Decide where receiving continues. Also creates the slot if there is none, and archives the timeline histories.

    Args:
        server_has: asks the server whether it can stream a segment.
        accept_gap: give up WAL that the server no longer has, and continue after it. A lost slot is created again.

    Raises:
        SlotLostError: the server invalidated the slot, `accept_gap` is false, and no base backup was taken after the
            end of the archive.
        WalGoneError: the server has removed WAL that the archive lacks, with the same two conditions.
        WalConflictError: the primary is behind the archive, or the archive has another history of its timeline.
        BackupError: a standby is behind the archive, or the slot keeps no WAL.
        DatabaseError, StoreError: the server or the store failed.
    """
    archive = list_wal(store, identity.system_identifier)
    line = read_line(connection, store, identity)
    covered = coverage(archive, line)
    server = read_server(postgres, slot)
    _refuse_to_go_back(connection, archive, identity, server)
    _warn_of_younger_timelines(archive, line, report)
    needed = _needed_by_bases(store, identity, line, archive.segment_size)
    server, slot_lsn = _usable_slot(connection, postgres, slot, server, covered, needed, report, accept_gap=accept_gap)
    places = places_to_begin(covered, slot_lsn, needed, accept_gap=accept_gap)
    place = next((place for place in places if server_has(place.segment)), None)
    if place is None:
        if not (accept_gap or covered.end is None or _makes_up(needed, covered)):
            raise wal_gone(places[0].segment)
        _make_slot(connection, slot, anew=True)
        report.note(f"The server has removed the WAL from {places[0].segment.name} on; creating the slot {slot} again.")
        server, slot_lsn = _with_slot(postgres, slot)
        place = Place(covered.first_missing(slot_lsn), behind_a_gap=True)
    _tell_of_gap(place, covered, needed, report)
    segment = _compared_from(place, covered, server_has)
    before = segment_at(line.timeline_at(max(0, segment.start - 1)), max(0, segment.start - 1), archive.segment_size)
    joint = Joint(
        before=look_at_segment(store, identity.system_identifier, before),
        may_break=segment == place.segment and (accept_gap or _makes_up(needed, covered)),
        restarts_before=restarts_before(identity.flushed, slot_lsn, from_standby=server.in_recovery),
    )
    return Beginning(segment, line, archive, server, joint)


def restarts_before(flushed: int, slot_lsn: int, *, from_standby: bool) -> int:
    """The LSN before which the server may have run with wal_level = minimal. Pure.

    A server that has a slot does not start with it, and a slot created later begins at a checkpoint after it. The slots
    of a standby say nothing about its primary.

    Source: RestoreSlotFromDisk and ReplicationSlotReserveWal in src/backend/replication/slot.c.
    """
    return flushed if from_standby else min(flushed, slot_lsn)


def read_line(connection: ReplicationConnection, store: ObjectStore, identity: SystemIdentity) -> Lineage:
    """The server's line. Archives the history of its timeline, and those of its ancestors that the server has.

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
            continue  # a restored server may lack those of ancestors; its own history names them all
        store_once(store, identity.system_identifier, history_name(timeline), found, None)
    return line


def _usable_slot(
    connection: ReplicationConnection,
    postgres: PostgresSettings,
    slot: str,
    server: ServerFacts,
    covered: Coverage,
    needed: Segment | None,
    report: Report,
    *,
    accept_gap: bool,
) -> tuple[ServerFacts, int]:
    """The server's facts with a slot that keeps WAL, and the slot's restart_lsn. Creates the slot if necessary."""
    if server.slot is not None and server.slot.status == LOST:
        if not (accept_gap or _makes_up(needed, covered)):
            raise slot_lost(slot, covered.end)
        drop_slot(connection, slot)
        report.note(f"The slot {slot} was lost; creating it again.")
        server = read_server(postgres, slot)
    if server.slot is None or server.slot.restart_lsn is None:
        _make_slot(connection, slot, anew=server.slot is not None)
    return _with_slot(postgres, slot)


def _with_slot(postgres: PostgresSettings, slot: str) -> tuple[ServerFacts, int]:
    server = read_server(postgres, slot)
    if server.slot is None or server.slot.restart_lsn is None:
        raise BackupError(f"The slot {slot} keeps no WAL.", hint=f"drop it: SELECT pg_drop_replication_slot('{slot}')")
    return server, server.slot.restart_lsn


def _makes_up(needed: Segment | None, covered: Coverage) -> bool:
    """Whether the newest base backup was taken after the end of the archive, so that it does not need the lost WAL."""
    return needed is not None and needed.end > (covered.end or 0)


def _make_slot(connection: ReplicationConnection, slot: str, *, anew: bool) -> None:
    if anew:
        drop_slot(connection, slot)
    create_slot(connection, slot)


def _compared_from(place: Place, covered: Coverage, server_has: Callable[[Segment], bool]) -> Segment:
    """The segment to receive first: the last archived one, to compare it, if the server still has it; otherwise that of
    `place`."""
    last = Segment(place.segment.timeline, place.segment.start - place.segment.size, place.segment.size)
    if place.behind_a_gap or covered.end != place.segment.start or covered.reach(last.start) < last.end:
        return place.segment  # a partial is compared when its segment is received
    if covered.line.timeline_at(last.start) != last.timeline or last.start < 0:
        return place.segment
    return last if server_has(last) else place.segment


def _tell_of_gap(place: Place, covered: Coverage, needed: Segment | None, report: Report) -> None:
    if not place.behind_a_gap:
        return
    if needed is None or place.segment.start > needed.start:
        report.note(
            "The server has removed WAL that the archive lacks. The existing base backups can be recovered only up "
            f"to {format_lsn(covered.end) if covered.end else 'their own end'}. Take a new one: `tmi-ops backup base`"
        )
    else:
        report.note(
            f"WAL before {place.segment.name} is missing from the archive and gone from the server; the newest base "
            "backup was taken after that WAL"
        )


def _refuse_to_go_back(
    connection: ReplicationConnection, archive: WalArchive, identity: SystemIdentity, server: ServerFacts
) -> None:
    newest = archive.newest_lsn(identity.timeline)
    # Other processes may have archived what the server wrote since `identity` was read.
    if newest is None or newest <= identity.flushed or newest <= identify(connection).flushed:
        return
    stands = (
        f"The server is at {format_lsn(identity.flushed)} on timeline {identity.timeline}; the archive has WAL of "
        f"that timeline up to {format_lsn(newest)}."
    )
    if server.in_recovery:
        raise BackupError(
            f"{stands} The standby lags behind the archive.",
            detail="The archive was not changed, and nothing was received.",
            hint="wait until the standby has caught up with its primary",
            transient=True,
        )
    raise put_back(stands)


def put_back(stands: str) -> WalConflictError:
    """The error for a primary that is in an earlier state than the archive."""
    return WalConflictError(
        f"{stands} The server's files were returned to an earlier state (such as a snapshot or a copy of its volume), "
        "so it now writes different WAL under the same names.",
        detail="The archive was not changed, and nothing was received.",
        hint=f"{OWN_TIMELINE}. If you want the state in the archive instead, restore it: `tmi-ops restore --latest "
        "--into DIR`",
        code=Code.WAL_DISCONTINUOUS,
    )


def _warn_of_younger_timelines(archive: WalArchive, line: Lineage, report: Report) -> None:
    others = [timeline for timeline in archive.timelines if timeline > line.timelines[-1]]
    if others:
        report.note(
            f"The archive has WAL of timeline {max(others)}, and this server is on timeline {line.timelines[-1]}. It "
            "may be an old primary, or another server was restored from it. The archive keeps both apart: `tmi-ops wal "
            "line`"
        )


def _needed_by_bases(store: ObjectStore, identity: SystemIdentity, line: Lineage, segment_size: int) -> Segment | None:
    """The first segment needed to continue from this cluster's newest base backup on the line. None if there is no such
    backup, or if it ends after the server's LSN."""
    readable = list_backups(store, lambda _: None)  # an unreadable backup must not stop receiving
    stops = [
        (parse_lsn(entry.manifest.stop_lsn), entry.manifest.timeline)
        for entry in readable
        if isinstance(entry.manifest, BaseManifest)
        and entry.manifest.system_identifier == identity.system_identifier
        and entry.manifest.timeline in line.timelines
    ]
    if not stops:
        return None
    lsn, timeline = max(stops)
    return None if lsn > identity.flushed else segment_at(timeline, lsn - 1, segment_size)
