"""The receiver: streams WAL into the store, continuously as a service or once up to the server's current LSN.

It reconnects on its own; all state it needs is in the store and in the server's slot. It holds the archive's lease from
its first connection until it ends.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

from tmi_ops.error_codes import Code
from tmi_ops.errors import BackupError, OpsError, StoreError
from tmi_ops.postgres.replication import ReplicationConnection, ReplicationError, connect_replication
from tmi_ops.postgres.wal_files import Segment, format_lsn
from tmi_ops.postgres.wal_stream import SLOT_IN_USE, SystemIdentity, can_stream, identify, segment_size
from tmi_ops.progress import Phase, Report
from tmi_ops.settings import Settings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.wal.breaks import Break
from tmi_ops.wal.description import describe_archive
from tmi_ops.wal.index import reopen
from tmi_ops.wal.lease import KeptLease, hold_lease
from tmi_ops.wal.progress import StreamProgress
from tmi_ops.wal.records import update_records
from tmi_ops.wal.resume import find_beginning
from tmi_ops.wal.session import PARTIAL_EVERY_S, Assignment, ReceiverOptions, Session
from tmi_ops.wal.slot import ServerFacts, adopt_slot, read_server, slot_name, slot_warnings
from tmi_ops.wal.uploads import uploading

# How long one put is retried. Then the session ends, and the next one continues from what the store has.
STORE_PATIENCE_S = 20.0
CATCH_UP_PATIENCE_S = 120.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0


@dataclass(frozen=True)
class StreamOptions:
    """Options of a receiver.

    `slot`: None for this environment's own. `partial_every`: seconds between puts of the open segment. `accept_gap`:
    continue after WAL that neither server nor archive has. `wait`: stand by while another receiver is running.
    """

    slot: str | None = None
    partial_every: float = PARTIAL_EVERY_S
    accept_gap: bool = False
    wait: bool = False


@dataclass(frozen=True)
class ReceivedWal:
    """The result of a receiver. `received` and `lag` are in bytes; `lsn` is where the archive ends.

    `level_at`: all WAL that the server had flushed at that time by its clock is in the store. None: not known. With
    `from_standby` it is the newest commit in the store; what the primary did since is not known. `segments`: whole
    segments that were new to the archive.
    """

    system_identifier: str
    timeline: int
    lsn: str
    received: int
    segments: int
    lag: int
    level_at: datetime | None
    duration_seconds: float
    from_standby: bool = False


def await_store(settings: Settings, report: Report, stop: threading.Event) -> ObjectStore | None:
    """Open the store, retrying while it is unavailable. None if `stop` was set before it could be opened.

    Raises:
        StoreError: the store failed, and waiting would not help.
    """
    pauses = _pauses()
    while not stop.is_set():
        try:
            return open_store(settings.store, settings.environment)
        except StoreError as error:
            if not error.transient:
                raise
            pause = next(pauses)
            report.note(f"{error.message} Retrying in {pause:.1f} s")
            stop.wait(pause)
    return None


def stream_wal(
    settings: Settings, store: ObjectStore, report: Report, options: StreamOptions, stop: threading.Event
) -> ReceivedWal | None:
    """Receive until `stop` is set. Server restarts, store outages and network failures are retried.

    Returns:
        The state at the end. None if it was stopped before it had the lease.

    Raises:
        LeaseHeldError: another receiver is running, or took over.
        SlotLostError, WalGoneError: WAL that the archive lacks is gone from the server.
        WalConflictError: the archive has another history of the same timeline.
        DatabaseError, StoreError: the server or the store failed, and waiting would not help.
    """
    return _Receiver(settings, store, report, options, stop).run(catch_up=False)


def catch_up_wal(
    settings: Settings,
    store: ObjectStore,
    report: Report,
    options: StreamOptions,
    stop: threading.Event | None = None,
) -> ReceivedWal | None:
    """Receive up to the server's LSN at the first connection.

    Raises:
        As `stream_wal`. Transient errors are also raised once they have lasted for two minutes.
    """
    return _Receiver(settings, store, report, options, stop or threading.Event()).run(catch_up=True)


class _Receiver:
    def __init__(
        self, settings: Settings, store: ObjectStore, report: Report, options: StreamOptions, stop: threading.Event
    ) -> None:
        self._postgres = settings.postgres
        self._store = store.patient(settings.store, STORE_PATIENCE_S)
        self._report = report
        self._options = options
        self._slot = options.slot or slot_name(settings)
        self._stop = stop
        self._progress = StreamProgress()
        self._lease: KeptLease | None = None
        self._until: int | None = None
        self._from_standby = False
        self._accept_gap = options.accept_gap
        self._warned: set[str] = set()

    def run(self, *, catch_up: bool) -> ReceivedWal | None:
        began = time.monotonic()
        with ExitStack() as lease_ends, self._report.phase("Receiving WAL") as phase:
            self._sessions(lease_ends, phase, catch_up=catch_up)
        if self._lease is None:
            return None
        return ReceivedWal(
            system_identifier=self._lease.system_identifier,
            timeline=self._progress.timeline,
            lsn=format_lsn(self._progress.durable),
            received=self._progress.received,
            segments=self._progress.segments,
            lag=self._progress.lag,
            level_at=self._progress.level_at,
            duration_seconds=time.monotonic() - began,
            from_standby=self._from_standby,
        )

    def _sessions(self, lease_ends: ExitStack, phase: Phase, *, catch_up: bool) -> None:
        pauses, troubled_since, durable = _pauses(), None, 0
        while not self._stop.is_set():
            try:
                self._session(lease_ends, phase, catch_up=catch_up)
            except OpsError as error:
                if self._progress.durable > durable:
                    pauses, troubled_since, durable = _pauses(), None, self._progress.durable
                troubled_since = troubled_since or time.monotonic()
                if not _may_pass(error) or (catch_up and time.monotonic() - troubled_since >= CATCH_UP_PATIENCE_S):
                    raise
                pause = next(pauses)
                self._report.note(f"{error.message} Retrying in {pause:.1f} s")
                self._stop.wait(pause)
            else:
                return

    def _session(self, lease_ends: ExitStack, phase: Phase, *, catch_up: bool) -> None:
        with connect_replication(self._postgres) as connection:
            identity = identify(connection)
            if not self._has_lease(lease_ends, identity):
                return
            if catch_up and self._until is None:
                self._until = identity.flushed
            self._receive(connection, identity, phase)

    def _receive(self, connection: ReplicationConnection, identity: SystemIdentity, phase: Phase) -> None:
        system_identifier = identity.system_identifier
        size = segment_size(connection)
        describe_archive(self._store, system_identifier, size)
        self._adopt()
        beginning = find_beginning(
            connection,
            self._postgres,
            self._store,
            identity,
            self._slot,
            self._report,
            lambda segment: self._server_has(segment, identity),
            accept_gap=self._accept_gap,
        )
        self._warn(beginning.server)
        self._follow(identity.system_identifier, identity.timeline)
        self._report.note(
            f"Receiving from {format_lsn(beginning.segment.start)} on timeline {beginning.segment.timeline}; the "
            f"server is at {format_lsn(identity.flushed)} on timeline {identity.timeline}"
        )
        assignment = Assignment(
            store=self._store,
            options=ReceiverOptions(self._slot, self._options.partial_every, self._until),
            progress=self._progress,
            report=self._report,
            stop=self._stop,
            check=self._check_lease,
            on_break=lambda found: self._record_break(system_identifier, found),
            on_timeline=lambda timeline: self._follow(system_identifier, timeline),
        )
        reopen(self._store, system_identifier, beginning.segment)
        with uploading(self._store, system_identifier, beginning.segment.start, size, beginning.joint) as uploads:
            Session(connection, uploads, beginning, assignment).run(phase)
        self._accept_gap = False

    def _adopt(self) -> None:
        """Replace the slot of this archive's last receiver by the environment's own, keeping its WAL."""
        lease = self._lease.before if self._lease is not None else None
        used = lease.slot if lease is not None and lease.slot else ""
        if self._options.slot is not None or used in ("", self._slot):
            return
        if read_server(self._postgres, self._slot).slot is None and adopt_slot(self._postgres, used, self._slot):
            self._report.note(f"The slot {used} is replaced by {self._slot}, used by this environment and store only")

    def _server_has(self, segment: Segment, identity: SystemIdentity) -> bool:
        """Whether the server can stream a segment. It always has its newest one."""
        is_newest = segment.timeline == identity.timeline and segment.end > identity.flushed
        return is_newest or can_stream(self._postgres, segment.start, segment.timeline)

    def _follow(self, system_identifier: str, timeline: int) -> bool:
        """Record the timeline that is followed, and return whether the server is a standby."""
        where = f"{self._postgres.host}:{self._postgres.port}"
        update_records(
            self._store, system_identifier, lambda records: records.with_followed(timeline, where, datetime.now(UTC))
        )
        self._from_standby = read_server(self._postgres, self._slot).in_recovery
        return self._from_standby

    def _record_break(self, system_identifier: str, found: Break) -> None:
        update_records(self._store, system_identifier, lambda records: records.with_break(found))
        self._report.note(
            f"{found.describe()} No recovery can pass this point. Take a base backup now: `tmi-ops backup base`"
        )

    def _has_lease(self, lease_ends: ExitStack, identity: SystemIdentity) -> bool:
        """Take the lease at the first connection. False: the receiver was stopped while it waited for the lease."""
        if self._lease is None:
            self._lease = lease_ends.enter_context(
                hold_lease(
                    self._store,
                    identity.system_identifier,
                    self._slot,
                    self._progress.as_lease_fields,
                    wait=self._options.wait,
                    stop=self._stop,
                    note=self._report.note,
                )
            )
        if self._lease is not None and self._lease.system_identifier != identity.system_identifier:
            raise BackupError(
                f"The server at {self._postgres.describe()} is now another cluster: {identity.system_identifier} "
                f"instead of {self._lease.system_identifier}.",
                detail="The archive of the old cluster is intact as far as it was received.",
                hint="start the receiver again to archive the new cluster, and take a base backup of it",
                code=Code.OTHER_CLUSTER,
            )
        return self._lease is not None

    def _check_lease(self) -> None:
        if self._lease is not None:
            self._lease.check()

    def _warn(self, server: ServerFacts) -> None:
        """Report each warning once."""
        for warning in slot_warnings(server):
            if warning not in self._warned:
                self._warned.add(warning)
                self._report.note(warning)


def _may_pass(error: OpsError) -> bool:
    """Whether to retry. A slot in use is usually one that the server has not yet released from a dead receiver."""
    return error.transient or (isinstance(error, ReplicationError) and error.sqlstate == SLOT_IN_USE)


def _pauses() -> Iterator[float]:
    """Seconds between attempts: doubling, with jitter so that many receivers do not return at once."""
    pause = _FIRST_PAUSE_S
    while True:
        yield pause * random.uniform(0.5, 1)  # noqa: S311
        pause = min(_LONGEST_PAUSE_S, pause * 2)
