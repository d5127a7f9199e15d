"""Carries out a recovery plan.

1. Refuse a directory that is not empty, a disk that is too small, and programs of another version.
2. Fetch and extract the base backups while WAL is prefetched; combine a chain; verify every file.
3. Replay up to the target, verify that it was reached, then promote or wait there.
4. Leave a data directory that is ready to start and has none of our files in it.

If anything fails, everything that was written is removed; the directory is empty again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.programs import Programs, server_programs
from tmi_ops.postgres.unprivileged import ServerIdentity
from tmi_ops.progress import Report
from tmi_ops.recovery.point_in_time.base_files import extract_bases, use_new_places
from tmi_ops.recovery.point_in_time.combine import combine, layouts, verify_files
from tmi_ops.recovery.point_in_time.destination import Destination, is_in_place, require_room, require_vacant
from tmi_ops.recovery.point_in_time.histories import mark_own_history, put_histories
from tmi_ops.recovery.point_in_time.left_settings import SetAside
from tmi_ops.recovery.point_in_time.links import fixed_links, make_place
from tmi_ops.recovery.point_in_time.overlap import clock_put_back
from tmi_ops.recovery.point_in_time.planning import RecoveryPlan
from tmi_ops.recovery.point_in_time.replay import (
    Reached,
    ReplayAgainError,
    enabled_subscriptions,
    follow,
    promote,
    replay_settings,
)
from tmi_ops.recovery.point_in_time.restored_settings import leave_cluster
from tmi_ops.recovery.point_in_time.server import (
    Recovering,
    owner_of,
    prepare_recovery,
    recovering_server,
)
from tmi_ops.recovery.point_in_time.spool import WalSpool
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.objects import ObjectStore

Finish = Literal["promote", "pause"]
# Each restart has one reason: a setting that is too low, a tablespace that the WAL creates, or a target at the end of
# the WAL.
STARTS = 25
PLAN, PREPARE = "plan", "prepare"


@dataclass(frozen=True)
class Recovered:
    """A cluster recovered to its target.

    Args:
        lsn: the end of the last replayed record.
        last_commit_at: commit time of the last replayed transaction; None if none was replayed.
        stopped: the server's log message on where it stopped; empty at the end of the WAL.
        timeline: the cluster's timeline now; a promoted cluster is on a new one.
        restored_size: bytes of extracted files; `replayed_size`: bytes of WAL.
        phases: seconds by phase; `PREPARE` is the rest, so that the sum is the duration of the recovery.
        set_aside: settings that differ from the source's; `amiss`: the server's message on what still keeps it from
            starting; empty if nothing is known.
        notes: what the user should know about the target that was reached, one sentence each.
    """

    plan: RecoveryPlan
    directory: Path
    lsn: int
    last_commit_at: datetime | None
    stopped: str
    promoted: bool
    timeline: int
    restored_size: int
    replayed_size: int
    phases: Mapping[str, float]
    set_aside: tuple[SetAside, ...] = ()
    amiss: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RecoveredCluster:
    """A running recovered cluster. `address`: a socket that only our own account can use."""

    recovered: Recovered
    address: PostgresSettings
    programs: Programs


def execute_recovery(
    settings: Settings,
    store: ObjectStore,
    plan: RecoveryPlan,
    destination: Destination,
    report: Report,
    *,
    finish: Finish = "promote",
    keep_settings: bool = False,
) -> Recovered:
    """Recover into the destination and leave the cluster there, stopped and synced to disk.

    Args:
        finish: `promote` leaves it ready for writing; with `pause` it waits at its target, read-only, once started.
        keep_settings: keep the source's settings, including archiving and standbys.

    Raises:
        RecoveryError: the target was not reached, or a backup or WAL cannot be used; the message says how far it went.
        DiskSpaceError: the disk is too small, or became full.
        ProgramError: programs of this version are missing, or one failed.
        StoreError: the store failed, or the private key is missing or the wrong one.
    """
    if finish == "pause" and plan.to_the_end:
        raise RecoveryError(
            "There is no WAL beyond the target, so the cluster cannot wait there.",
            hint="leave out --pause, or choose an earlier target",
        )
    recovery = _Recovery(settings, store, plan, destination, report, finish)
    try:
        with recovery.running() as cluster:
            recovered = cluster.recovered
        with recovery.timed("sync"):
            recovery.place_tablespaces()
            if recovered.promoted:
                mark_own_history(destination.directory, recovered.timeline, recovery.identity)
            else:
                put_histories(store, plan, destination.directory, recovery.identity)
            left = leave_cluster(
                recovery.programs,
                destination,
                recovery.identity,
                waiting=None if recovered.promoted else _waiting(plan),
                subscriptions=recovery.subscriptions,
                keep_settings=keep_settings,
            )
        recovered = replace(recovered, set_aside=left.set_aside, amiss=left.amiss, phases=recovery.phases)
    except BaseException:
        recovery.clear()
        raise
    return recovered


@contextmanager
def recovered_cluster(
    settings: Settings, store: ObjectStore, plan: RecoveryPlan, destination: Destination, report: Report
) -> Iterator[RecoveredCluster]:
    """Recover into the destination and run the promoted cluster for the length of a `with` block.

    It is not durable, and is removed when the block ends.

    Raises:
        OpsError: as `execute_recovery`.
    """
    recovery = _Recovery(settings, store, plan, destination, report, "promote")
    try:
        with recovery.running() as cluster:
            yield cluster
    finally:
        recovery.clear()


def extracted_base(
    settings: Settings, store: ObjectStore, plan: RecoveryPlan, destination: Destination, report: Report
) -> ServerIdentity:
    """Extract the base backup's files into the destination, ready for replay, without starting a server.

    Returns:
        The account that the server must run as.

    Raises:
        OpsError: as `execute_recovery`.
    """
    recovery = _Recovery(settings, store, plan, destination, report, "pause")
    try:
        recovery.extract()
    except BaseException:
        recovery.clear()
        raise
    return recovery.identity


def _waiting(plan: RecoveryPlan) -> dict[str, str]:
    """Settings that make the cluster replay to its target again on start and wait. Its WAL is in pg_wal by now."""
    in_place = any(is_in_place(item.location) for item in plan.base.tablespaces)
    return {
        "restore_command": "false",
        **({"allow_in_place_tablespaces": "on"} if in_place else {}),
        **replay_settings(plan, to_the_end=False),
    }


class _Recovery:
    """A recovery in progress: its environment, its timing, and what it must clean up."""

    def __init__(
        self,
        settings: Settings,
        store: ObjectStore,
        plan: RecoveryPlan,
        destination: Destination,
        report: Report,
        finish: Finish,
    ) -> None:
        self._store, self._plan, self._destination, self._report = store, plan, destination, report
        self._finish = finish
        self._begun = time.monotonic()
        self._phases: dict[str, float] = {}
        self.subscriptions = 0
        self._made_in_place: list[Path] = []
        self.programs = server_programs(plan.server_major, settings.pg_bindir, settings.copy_libraries)
        require_vacant(plan, destination)
        require_room(plan, destination, store)
        self._places = [destination.directory, *destination.places(plan.base).values()]
        self._made = {place: _first_absent(place) for place in self._places if not place.exists()}
        self.identity = owner_of(destination.directory, self.programs, together=destination.lies_together)

    @property
    def phases(self) -> dict[str, float]:
        """The time spent so far, without gaps."""
        rest = time.monotonic() - self._begun - sum(self._phases.values())
        return {PREPARE: max(0.0, rest), **self._phases}

    @contextmanager
    def running(self) -> Iterator[RecoveredCluster]:
        """The recovered cluster, running for the length of a `with` block."""
        plan, destination = self._plan, self._destination
        self._make_places()
        with WalSpool(
            self._store,
            plan.base.system_identifier,
            plan.wal.files,
            plan.histories,
            destination.work / "wal",
            self.identity,
            newest_timeline=plan.newest_timeline,
        ) as spool:
            size = self._restore_files()
            with self._replayed(spool, size) as cluster:
                yield cluster

    def extract(self) -> None:
        """Extract the files only."""
        self._make_places()
        self._restore_files()

    def clear(self) -> None:
        """Remove what was written. A directory that existed before is kept, empty."""
        for place in self._places:
            if place in self._made:
                shutil.rmtree(self._made[place], ignore_errors=True)
            elif place.is_dir():
                _empty(place)

    def place_tablespaces(self) -> None:
        """Move tablespaces that the WAL created beside the others. Remove those that it dropped again."""
        for made in self._made_in_place:
            own = self._destination.place_of(made.name, "")
            if not any(made.iterdir()):
                made.rmdir()
            elif not own.exists():
                own.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                made.rename(own)
                made.symlink_to(own)
                self.identity.take_over(own.parent)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time of a `with` block to a phase."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._phases[phase] = self._phases.get(phase, 0.0) + time.monotonic() - begun

    def _make_places(self) -> None:
        for place in self._places:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.chmod(0o700)
            self.identity.take_over(place)
        self._destination.work.mkdir(mode=0o700)
        self.identity.take_over(self._destination.work)

    def _restore_files(self) -> int:
        plan, destination = self._plan, self._destination
        wanted = layouts(plan, destination, self._store)
        extracted = extract_bases(self._store, wanted, self._report)
        self._phases |= {"fetch": extracted.fetch_seconds, "extract": extracted.extract_seconds}
        if len(wanted) > 1:
            with self.timed("combine"), self._report.phase("combine", total=1, unit="steps") as phase:
                combine(self.programs, plan, wanted, destination)
                phase.advance(1)
        with self.timed("check files"), self._report.phase("check files", total=1, unit="steps") as phase:
            verify_files(self.programs, plan, destination)
            phase.advance(1)
        use_new_places(destination.directory)
        prepare_recovery(destination)
        for place in self._places:
            for path in place.iterdir():
                if path != destination.work:
                    self.identity.take_over(path)
        return extracted.size

    @contextmanager
    def _replayed(self, spool: WalSpool, size: int) -> Iterator[RecoveredCluster]:
        """Start the replay, again if needed, and hold the cluster at its target."""
        plan = self._plan
        to_the_end = plan.to_the_end
        higher: dict[str, str] = {}
        made_in_place = self._made_in_place
        fixed = not self._destination.created_later(plan.base)
        for _ in range(STARTS):
            parameters = {
                "restore_command": spool.restore_command,
                **replay_settings(plan, to_the_end=to_the_end),
                **higher,
            }
            role = plan.base.superuser or plan.base.role
            superuser = plan.base.superuser is not None
            spool.to_the_end = to_the_end
            with (
                fixed_links(self._destination.directory) if fixed else nullcontext(),
                recovering_server(
                    self.programs, self._destination, self.identity, role, parameters, superuser=superuser
                ) as recovering,
            ):
                try:
                    with self.timed("replay"):
                        reached = follow(recovering, spool, plan, self._report, to_the_end=to_the_end)
                except ReplayAgainError as again:
                    higher |= again.settings
                    if again.tablespace is not None:
                        made_in_place.append(make_place(self._destination.directory, again.tablespace, self.identity))
                    to_the_end |= not again.settings and again.tablespace is None
                    continue
                notes = self._another_reading(spool, reached)
                timeline = self._finished(recovering, reached)
                self.subscriptions = enabled_subscriptions(recovering)
                recovered = replace(self._recovered(reached, timeline, size), notes=notes)
                yield RecoveredCluster(recovered, recovering.cluster.address, self.programs)
                return
        raise RecoveryError(f"The replay was not complete after {STARTS} starts; the last one asked for {higher}.")

    def _another_reading(self, spool: WalSpool, reached: Reached) -> tuple[str, ...]:
        if not reached.stopped:
            return ()
        with self.timed("replay"):
            return clock_put_back(self._plan, spool, self.programs, reached.lsn, self._destination.work)

    def _finished(self, recovering: Recovering, reached: Reached) -> int:
        if self._finish == "pause" or not reached.in_recovery:
            return reached.timeline
        with self.timed("promote"):
            return promote(recovering, self.programs, self.identity)

    def _recovered(self, reached: Reached, timeline: int, size: int) -> Recovered:
        plan = self._plan
        return Recovered(
            plan=plan,
            directory=self._destination.directory,
            lsn=reached.lsn,
            last_commit_at=reached.last_commit_at,
            stopped=reached.stopped,
            promoted=timeline != plan.timeline,
            timeline=timeline,
            restored_size=size,
            replayed_size=max(0, reached.lsn - plan.wal.start),
            phases=self.phases,
        )


def _first_absent(place: Path) -> Path:
    """`place`, or its outermost parent that does not exist yet."""
    while not place.parent.exists():
        place = place.parent
    return place


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            if path.name != "lost+found":
                shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
