"""Runs the shadow's server along one line, and reports on it, until there is a reason to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from tmi_ops.errors import DiskSpaceError, OpsError, StoreError
from tmi_ops.postgres.programs import server_programs
from tmi_ops.postgres.wal_files import format_lsn, history_name, parse_lsn, segment_at
from tmi_ops.recovery.point_in_time.histories import fetch_histories, reserve_timelines
from tmi_ops.recovery.point_in_time.links import make_place
from tmi_ops.recovery.point_in_time.redirect import emptied_place
from tmi_ops.recovery.point_in_time.server import owner_of
from tmi_ops.recovery.point_in_time.server_log import NewTablespace
from tmi_ops.shadow.base_choice import Basis, base_behind, read_basis
from tmi_ops.shadow.feeder import Feeder
from tmi_ops.shadow.next_wal import can_follow
from tmi_ops.shadow.periodic_checks import PeriodicChecks
from tmi_ops.shadow.place import Reachable, Seed, asked, destination_of, place, read_practice, stable_socket
from tmi_ops.shadow.promotion import Promoted, Promotion
from tmi_ops.shadow.replay_state import Level, Observed, has_all, stalled, state_of, verified_to
from tmi_ops.shadow.report import OF_THE_WAL, TAKE_A_BASE, Trouble, TroubleKind, trouble_at
from tmi_ops.shadow.server import (
    Look,
    ShadowServer,
    begins_at,
    delay_settings,
    died_of_minimal_wal,
    redo_place,
    shadow_server,
)
from tmi_ops.store.small_objects import look
from tmi_ops.wal.archive import list_wal
from tmi_ops.wal.coverage import coverage
from tmi_ops.wal.layout import file_key
from tmi_ops.wal.lease import read_lease

if TYPE_CHECKING:
    from tmi_ops.shadow.life import Life

LOOK_EVERY_S = 0.25
# How often to read the receiver's lease and look for a new timeline.
ASK_EVERY_S = 5.0
# How often to read the store for a way to continue while the shadow is stopped.
LOOK_FOR_A_WAY_S = 10.0
# How often to check the lines while several live, or the receiver follows another one.
LINES_AGAIN_S = 60.0
# How long to wait before restarting a server that exited for a reason unrelated to the archive.
REST_S = 5.0


class Ended(Enum):
    """Why a run ended."""

    AGAIN = "start again with the same files"
    ANEW = "restore a base backup"
    COPY = "the files are to be copied"
    STOPPED = "it was stopped"
    PROMOTED = "it was promoted"


class Run:
    """One run of the shadow's server; see `follow`."""

    def __init__(self, life: Life, basis: Basis, seed: Seed) -> None:
        self._life, self._basis, self._seed, self._line = life, basis, seed, basis.line
        self._store, self._reporter, self._settings = life.store, life.reporter, life.settings
        self._destination = destination_of(life.settings)
        self._programs = server_programs(seed.major, life.settings.pg_bindir, life.settings.copy_libraries)
        self._identity = owner_of(self._destination.directory, self._programs, together=True)
        self._newest_timeline = basis.newest_timeline
        self._level: Level | None = None
        self._asked_at = self._way_looked_for = time.monotonic()
        self._moved_at, self._replayed = time.monotonic(), 0
        self._verified: datetime | None = None
        self._seen: Observed | None = None
        self._practised_s: float | None = None
        self._lines_looked_at: tuple[int | None, float] = (None, 0.0)
        self._promotion: Promotion | None = None
        self.promoted: Promoted | None = None

    def follow(self) -> Ended:
        """Run the server until there is a reason to end it.

        Raises:
            OpsError: the store or this machine fails.
        """
        data = self._destination.directory
        fetch_histories(self._store, self._seed.system_identifier, self._line, data, self._identity)
        start, _ = begins_at(self._programs, data)
        work = self._destination.work
        work.mkdir(mode=0o700, exist_ok=True)
        self._identity.take_over(work)
        identifier, size = self._seed.system_identifier, self._seed.wal_segment_size
        with Feeder(
            self._store, identifier, size, self._line, start, work / "feed", self._identity, self._life.edits
        ) as feeder:
            delay = {} if self._life.pending else delay_settings(self._life.options.delay)
            parameters = {
                "restore_command": feeder.restore_command,
                "recovery_target_timeline": str(self._line.timelines[-1]),
                **delay,
                **self._life.higher,
            }
            with (
                shadow_server(
                    self._programs,
                    self._destination,
                    self._identity,
                    self._seed,
                    parameters,
                    listening=self._life.options.listening,
                ) as server,
                self._published(server),
            ):
                return self._watch(server, feeder)

    def _watch(self, server: ShadowServer, feeder: Feeder) -> Ended:
        checks: PeriodicChecks | None = None
        try:
            while not self._life.stop.wait(LOOK_EVERY_S):
                self._reporter.require_accepted()
                feeder.require_alive()
                log = server.read_log()
                if server.ended is not None:
                    return self._after_its_end(server, feeder)
                seen = server.look()
                if log.too_low and (seen is None or seen.paused):
                    self._life.higher |= {name: str(value) for name, value in log.too_low.items()}
                    return Ended.AGAIN
                if seen is not None:
                    checks = checks or self._started_checks(server)
                    self._judge(server, feeder, seen)
                ended = self._ask() or self._look_for_a_way() or self._wanted(server)
                if ended is not None:
                    return ended
            return Ended.STOPPED
        finally:
            if checks is not None:
                checks.end()

    def _judge(self, server: ShadowServer, feeder: Feeder, seen: Look) -> None:
        """Update the next report from the last observation."""
        feeder.reached(seen.replayed)
        more = feeder.has_more_than(seen.replayed)
        if seen.replayed != self._replayed or more is False:
            self._replayed, self._moved_at = seen.replayed, time.monotonic()
        ours = self._level is not None and self._level.timeline == self._line.timelines[-1]
        archived_to = max(feeder.handed_to, self._level.lsn if self._level is not None and ours else 0)
        observed = Observed(
            replayed=seen.replayed,
            commit_at=seen.commit_at,
            waits=seen.waits,
            still_s=time.monotonic() - self._moved_at,
            handed_to=feeder.handed_to,
            more=more,
            archived_to=archived_to,
            broke=server.log.broke,
            level=self._level,
            delayed=bool(self._life.options.delay),
        )
        self._seen = observed
        self._verified = verified_to(observed, self._line, self._verified)
        self._report_troubles(observed, feeder)
        state = state_of(observed, stopped=self._reporter.report.stopped_by is not None)
        if state == "level":
            self._reporter.update(has_been_level=True)
        self._reporter.update(
            state=state,
            replayed_lsn=format_lsn(seen.replayed),
            commit_at=seen.commit_at,
            verified_to=self._verified,
            archived_lsn=format_lsn(archived_to),
            promote_s=self._practised_s,
            behind=0 if has_all(observed) else max(0, archived_to - seen.replayed),
        )

    def _report_troubles(self, observed: Observed, feeder: Feeder) -> None:
        met, stuck = feeder.met, stalled(observed, self._line, self._seed.wal_segment_size)
        found: list[Trouble] = []
        if met is not None:
            found.append(trouble_at(met.kind, met.what, met.hint, met.lsn, met.segment))
        if stuck is not None:
            found.append(trouble_at(stuck.kind, stuck.what, TAKE_A_BASE, stuck.lsn, stuck.segment))
        self._reporter.change_troubles(
            lambda before: (*(one for one in before if one.kind not in (*OF_THE_WAL, "store away")), *found)
        )

    def _ask(self) -> Ended | None:
        """Read the receiver's lease, and look for a new timeline."""
        if time.monotonic() - self._asked_at < ASK_EVERY_S and self._level is not None:
            return None
        if time.monotonic() - self._asked_at < ASK_EVERY_S / 5:
            return None
        self._asked_at = time.monotonic()
        practice = read_practice(self._settings)
        self._practised_s = None if practice is None else practice.answered_s
        identifier = self._seed.system_identifier
        try:
            found = read_lease(self._store, identifier)
            following = history_name(self._newest_timeline + 1)
            is_new = look(self._store, file_key(identifier, following)) is not None
        except StoreError as error:
            self._life.trouble("store away", error.message, error.hint)
            return None
        lease = None if found is None else found[0]
        if lease is not None and lease.level_at is not None and lease.lsn is not None:
            self._level = Level(lease.timeline or 0, parse_lsn(lease.lsn), lease.level_at)
        elsewhere = lease.timeline if lease and lease.timeline and lease.timeline not in self._line.timelines else None
        foreign = any(one.kind == "foreign timeline" for one in self._reporter.report.troubles)
        if is_new or ((elsewhere or foreign) and self._is_worth_a_look(elsewhere)):
            return self._look_at_lines()
        return None

    def _is_worth_a_look(self, elsewhere: int | None) -> bool:
        """Whether the last check of the lines was long ago, or before the receiver moved to this timeline."""
        seen, at = self._lines_looked_at
        if elsewhere == seen and time.monotonic() - at < LINES_AGAIN_S:
            return False
        self._lines_looked_at = elsewhere, time.monotonic()
        return True

    def _look_at_lines(self) -> Ended | None:
        """Check whether the line is still the environment's, after a new timeline or a move of the receiver."""
        try:
            basis = read_basis(self._store, self._seed.system_identifier, self._line.timelines[-1])
        except OpsError as error:
            self._life.trouble("foreign timeline", error.message, error.hint, stops=False)
            return None
        self._newest_timeline = basis.newest_timeline
        self._life.report_lines(basis, self._line)
        if basis.line == self._line:
            return None
        if can_follow(self._line, self._replayed, basis.line):
            self._life.report.note(f"Continuing along timeline {basis.line.timelines[-1]}.")
            return Ended.AGAIN
        self._life.trouble(
            "left line",
            f"The environment is now on timeline {basis.line.timelines[-1]}, and the shadow had replayed timeline "
            f"{self._line.timelines[-1]} to {format_lsn(self._replayed)}, past the point where it was left.",
            "no action is needed: the shadow is restored from a base backup",
        )
        return Ended.ANEW

    def _look_for_a_way(self) -> Ended | None:
        """If the replay is stopped: whether a base backup was taken after that place."""
        stopped = self._reporter.report.stopped_by
        if stopped is None or stopped.kind not in (*OF_THE_WAL, "damaged copy"):
            return None
        if time.monotonic() - self._way_looked_for < LOOK_FOR_A_WAY_S:
            return None
        self._way_looked_for = time.monotonic()
        try:
            basis = read_basis(self._store, self._seed.system_identifier, self._line.timelines[-1])
        except StoreError:
            return None
        place = parse_lsn(stopped.lsn) if stopped.lsn else self._replayed
        base = base_behind(basis.candidates, place)
        if base is None:
            return None
        self._life.report.note(f"Restoring {base.backup_id}, which was taken after {format_lsn(place)}.")
        return Ended.ANEW

    def _wanted(self, server: ShadowServer) -> Ended | None:
        """Handle requests, as far as that is possible while the server runs."""
        if self._life.pending is None:
            self._life.pending = asked(self._settings)
            if self._life.pending is not None and self._life.pending.action == "hand over" and self._life.options.delay:
                return Ended.AGAIN  # without the delay
        if self._life.pending is None:
            return None
        if self._life.pending.action == "copy":
            return Ended.COPY
        return self._promote_when_all_is_here(server)

    def _promote_when_all_is_here(self, server: ShadowServer) -> Ended | None:
        if self._promotion is None:
            self._promotion = Promotion(self._archive_end)
        seen = self._seen
        why = None if seen is None else self._promotion.why_now(seen, self._reporter.report.stopped_by)
        if seen is None or why is None:
            return None
        data, identifier = self._destination.directory, self._seed.system_identifier
        reserve_timelines(self._store, identifier, self._newest_timeline, data, self._identity)
        self.promoted = self._promotion.promote(server, seen.replayed, why)
        return Ended.PROMOTED

    def _archive_end(self) -> int:
        return coverage(list_wal(self._store, self._seed.system_identifier), self._line).end or 0

    def _after_its_end(self, server: ShadowServer, feeder: Feeder) -> Ended:
        """Decide what to do after the server exited."""
        log = server.log
        words = [*log.fatal, log.last_messages]
        if log.disk_full:
            raise DiskSpaceError(
                f"The shadow's disk became full: {log.last_messages}.",
                detail="What was replayed so far is intact.",
                hint="free some space there, or set TMI_OPS_HOME to a directory on a larger disk",
            )
        if log.too_low:
            self._life.higher |= {name: str(value) for name, value in log.too_low.items()}
            return Ended.AGAIN
        if log.tablespace is not None and self._make_in_place(log.tablespace, feeder):
            return Ended.AGAIN
        found = redo_place(log.path)
        minimal = died_of_minimal_wal(words)
        if found is not None or minimal:
            lsn = found[0] if found else self._replayed
            record = f" ({found[1]})" if found else ""
            kind: TroubleKind = "minimal WAL" if minimal else "record that cannot be replayed"
            segment = segment_at(self._line.timeline_at(lsn), lsn, self._seed.wal_segment_size)
            what = f"The server exited at the record at {format_lsn(lsn)}{record}: {log.last_messages}."
            trouble = trouble_at(kind, what, TAKE_A_BASE, lsn, segment.name)
            self._reporter.change_troubles(lambda before: (*(one for one in before if one.kind != kind), trouble))
            self._reporter.update(state="stopped")
            return self._rest()
        self._life.trouble(
            "server", f"The shadow's server exited: {log.last_messages}.", "watch its restart: `tmi-ops shadow status`"
        )
        self._life.stop.wait(REST_S)
        return Ended.AGAIN

    def _rest(self) -> Ended:
        """Start no server until there is a way to continue."""
        while not self._life.stop.wait(LOOK_FOR_A_WAY_S):
            ended = self._look_for_a_way()
            if ended is not None:
                return ended
        return Ended.STOPPED

    def _make_in_place(self, tablespace: NewTablespace, feeder: Feeder) -> bool:
        """Change the record that creates a tablespace to create it in the data directory; False if that is
        impossible."""
        wal = feeder.content_from(tablespace.lsn)
        edits = None if wal is None else emptied_place(wal, tablespace.lsn, tablespace.oid)
        if not edits or any(lsn in self._life.edits for lsn in edits):
            return False
        self._life.edits |= edits
        make_place(self._destination.directory, tablespace.oid, self._identity)
        return True

    def _started_checks(self, server: ShadowServer) -> PeriodicChecks | None:
        if not self._life.options.checks:
            return None
        checks = PeriodicChecks(
            server.address,
            self._settings.postgres.database,
            self._seed.data_checksums,
            self._reporter.checked,
            threading.Event(),
            self._settings.profile.has_models,
        )
        checks.begin()
        return checks

    @contextmanager
    def _published(self, server: ShadowServer) -> Iterator[None]:
        """Publish how to connect to the server while it runs."""
        link = stable_socket(place(self._settings), Path(server.address.host))
        self._reporter.reachable(
            Reachable(
                host=link,
                port=server.address.port,
                user=server.address.user,
                database=self._settings.postgres.database,
                options=server.address.options or "",
            )
        )
        try:
            yield
        finally:
            self._reporter.reachable(None)
