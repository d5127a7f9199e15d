"""Runs a shadow: restores the newest verified base backup, starts a server on it, and follows the archive.

Everything it needs is in the store, so it can be killed, moved or restored again at any time. It never connects to the
source. A gap, a splice or a damaged object does not end it: it waits just before that place, still readable, reports
it, and checks again. When the archive is repaired it continues; when a base backup has been taken after that place, it
is restored from that one.
"""

from __future__ import annotations

import platform
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tmi_ops.errors import OpsError, RecoveryError
from tmi_ops.postgres.programs import server_programs
from tmi_ops.postgres.wal_files import format_lsn
from tmi_ops.progress import Report
from tmi_ops.recovery.point_in_time.base_files import UnusableBaseError
from tmi_ops.recovery.point_in_time.histories import mark_own_history
from tmi_ops.recovery.point_in_time.restored_settings import leave_cluster
from tmi_ops.recovery.point_in_time.server import owner_of
from tmi_ops.settings import Settings
from tmi_ops.shadow.base_choice import Basis, clear, read_basis, restore_base
from tmi_ops.shadow.files import copy_files, move_files
from tmi_ops.shadow.next_wal import can_follow
from tmi_ops.shadow.place import (
    HandedOver,
    Reply,
    Request,
    Seed,
    answer,
    destination_of,
    forget_requests,
    only_one,
    read_seed,
    write_seed,
)
from tmi_ops.shadow.promotion import Promoted
from tmi_ops.shadow.report import TAKE_A_BASE, Trouble, TroubleKind, name_from, require_right_to_report
from tmi_ops.shadow.reporting import Reporter
from tmi_ops.shadow.run import Ended, Run
from tmi_ops.shadow.server import Listening, begins_at
from tmi_ops.store.objects import ObjectStore
from tmi_ops.wal.lineage import Lineage
from tmi_ops.wal.lines import describe_lines

REPORT_EVERY_S = 15.0
PAUSE_S = 5.0
# Troubles that end as soon as a server runs.
_OVER_WHEN_IT_RUNS: tuple[TroubleKind, ...] = ("store away", "no base backup", "left line", "server")


@dataclass(frozen=True)
class ShadowOptions:
    """How a shadow runs.

    Args:
        name: the name it reports under; None: the host's.
        delay: how long after its commit a transaction is replayed.
        listening: where others can connect; None: only our own account can.
        report_every: seconds between reports to the store.
        cluster: system identifier; None: that of the newest base backup.
        checks: whether to run the periodic checks.
    """

    name: str | None = None
    delay: timedelta = timedelta(0)
    listening: Listening | None = None
    report_every: float = REPORT_EVERY_S
    cluster: str | None = None
    checks: bool = True


def run_shadow(
    settings: Settings, store: ObjectStore, options: ShadowOptions, report: Report, stop: threading.Event
) -> HandedOver | None:
    """Run until `stop` is set, or the shadow is handed over.

    Returns:
        What was handed over; None: it was stopped, and continues from here when it is run again.

    Raises:
        RecoveryError: another process runs this machine's shadow.
        SettingsError: its reports would not be trusted.
        DiskSpaceError: there is too little disk space.
        ProgramError: programs of the source's version are missing.
        OpsError: another shadow has its name.
    """
    require_right_to_report(store)
    name = options.name or name_from(platform.node())
    with only_one(settings):
        forget_requests(settings)
        delay_s = options.delay.total_seconds()
        with Reporter(settings, store, name, options.report_every, delay_s, report) as reporter:
            return Life(settings, store, options, report, stop, reporter).live()


@dataclass
class Life:
    """A shadow in one process.

    `pending`: the open request. `higher`: settings that the source has raised since the base backup. `edits`: bytes of
    WAL to replace, by LSN (see redirect.py). `unusable`: base backups that turned out to be damaged.
    """

    settings: Settings
    store: ObjectStore
    options: ShadowOptions
    report: Report
    stop: threading.Event
    reporter: Reporter
    pending: Request | None = None
    higher: dict[str, str] = field(default_factory=dict)
    edits: dict[int, int] = field(default_factory=dict)
    unusable: set[str] = field(default_factory=set)

    def live(self) -> HandedOver | None:
        while not self.stop.is_set():
            self.reporter.require_accepted()
            try:
                handed_over = self._once()
            except OpsError as error:
                self._refuse(error)
                if not error.transient:
                    raise
                kind: TroubleKind = "no base backup" if isinstance(error, RecoveryError) else "store away"
                self.trouble(kind, error.message, error.hint)
                self.stop.wait(PAUSE_S)
                continue
            if handed_over is not None:
                return handed_over
        return None

    def trouble(self, kind: TroubleKind, what: str, hint: str, *, stops: bool = True) -> None:
        """Report a trouble that has no place in the WAL."""
        found = Trouble(kind=kind, what=what, hint=hint, since=datetime.now(UTC), stops=stops)
        self.reporter.change_troubles(lambda before: (*(one for one in before if one.kind != kind), found))

    def over(self, *kinds: TroubleKind) -> None:
        """Report that these troubles are over."""
        self.reporter.change_troubles(lambda before: tuple(one for one in before if one.kind not in kinds))

    def report_lines(self, basis: Basis, own: Lineage) -> None:
        """Report that several lines of the cluster live, so that the user can choose one."""
        living = basis.facts.living
        if len(living) < 2:
            self.over("foreign timeline")
            return
        other = next((tip for tip in reversed(living) if tip.timeline != own.timelines[-1]), living[-1])
        self.trouble(
            "foreign timeline",
            f"{len(living)} lines of this cluster live: {describe_lines(living)}. The shadow follows timeline "
            f"{own.timelines[-1]}; timeline {other.timeline} branched off at "
            f"{format_lsn(other.line.stretches[-1].start)}.",
            "choose the line of this environment: `tmi-ops wal line TIMELINE`",
            stops=False,
        )

    def _once(self) -> HandedOver | None:
        """Run the server once, then do what was requested with its files."""
        before = read_seed(self.settings)
        basis = read_basis(self.store, self.options.cluster, before.timeline if before else None)
        seed = self._usable_seed(basis) or self._restored(basis)
        timeline = basis.line.timelines[-1]
        if seed.timeline != timeline:
            seed = seed.model_copy(update={"timeline": timeline})
            write_seed(self.settings, seed)
        self.reporter.update(
            system_identifier=seed.system_identifier,
            backup_id=seed.backup_id,
            timeline=timeline,
            restore_s=seed.restore_s or None,
            state="catching up",
        )
        self.over(*_OVER_WHEN_IT_RUNS)
        self.report_lines(basis, basis.line)
        run = Run(self, basis, seed)
        ended = run.follow()
        if run.promoted is not None:
            return self._leave(seed, run.promoted)
        if ended is Ended.ANEW:
            clear(self.settings)
        elif ended is Ended.COPY and self.pending is not None:
            self._copied(seed, self.pending)
        return None

    def _usable_seed(self, basis: Basis) -> Seed | None:
        """The existing files, if they can be continued along the environment's line."""
        seed = read_seed(self.settings)
        if seed is None or seed.system_identifier != basis.facts.system_identifier:
            return None
        programs = server_programs(seed.major, self.settings.pg_bindir, self.settings.copy_libraries)
        _, replayed = begins_at(programs, destination_of(self.settings).directory)
        ours = basis.line_to(seed.timeline)
        if ours is None or can_follow(ours, replayed, basis.line):
            return seed
        self.report.note(
            f"The shadow had replayed to {format_lsn(replayed)} on timeline {seed.timeline}, which is not part of "
            f"timeline {basis.line.timelines[-1]}. Restoring a base backup."
        )
        return None

    def _restored(self, basis: Basis) -> Seed:
        self.higher, self.edits = {}, {}
        nothing = {"verified_to": None, "commit_at": None, "replayed_lsn": None, "has_been_level": False}
        self.reporter.update(state="restoring", checks=(), **nothing)
        try:
            return restore_base(self.settings, self.store, basis, self.report, without=self.unusable)
        except UnusableBaseError as error:
            self.unusable.add(error.backup_id)
            self.trouble("damaged object", error.message, TAKE_A_BASE)
            raise RecoveryError(error.message, hint=TAKE_A_BASE, code=error.code, transient=True) from error

    def _copied(self, seed: Seed, request: Request) -> None:
        self.pending = None
        try:
            copy_files(self.settings, request.into)
        except OpsError as error:
            answer(self.settings, Reply(number=request.number, error=error.message, hint=error.hint))
            return
        answer(self.settings, Reply(number=request.number, seed=seed))

    def _leave(self, seed: Seed, promoted: Promoted) -> HandedOver:
        """Finish the stopped, promoted cluster and move it to the requested directory."""
        destination = destination_of(self.settings)
        programs = server_programs(seed.major, self.settings.pg_bindir, self.settings.copy_libraries)
        identity = owner_of(destination.directory, programs, together=True)
        mark_own_history(destination.directory, promoted.timeline, identity)
        leave_cluster(programs, destination, identity, waiting=None, subscriptions=0, keep_settings=False)
        handed_over = HandedOver(
            seed=seed,
            report=self.reporter.report,
            lsn=format_lsn(promoted.lsn),
            timeline=promoted.timeline,
            whole=not promoted.why,
            why=promoted.why,
            waited_s=promoted.waited_s,
            promoted_s=promoted.promoted_s,
        )
        write_seed(self.settings, None)
        if self.pending is None:
            raise AssertionError
        move_files(self.settings, self.pending.into)
        answer(self.settings, Reply(number=self.pending.number, handed_over=handed_over))
        return handed_over

    def _refuse(self, error: OpsError) -> None:
        if self.pending is not None:
            answer(self.settings, Reply(number=self.pending.number, error=error.message, hint=error.hint))
            self.pending = None
