"""Follows the replay and decides whether it reached the target.

- A target (a time, an LSN): the server stops at it, logs that, and waits. The log message counts.
- The end of the WAL: the server comes up when it finds no more WAL. This counts only if nothing in the archive follows
  the last record it replayed (see replay_end.py).
- The WAL ended before the target: an error that says how far the WAL goes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from tmi_ops.error_codes import Code
from tmi_ops.errors import DiskSpaceError, RecoveryError
from tmi_ops.postgres.connections import connection_parameters
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.unprivileged import ServerIdentity
from tmi_ops.postgres.wal_files import format_lsn, parse_lsn
from tmi_ops.progress import Phase, Report
from tmi_ops.recovery.point_in_time import refusals
from tmi_ops.recovery.point_in_time.planning import RecoveryPlan
from tmi_ops.recovery.point_in_time.redirect import emptied_place
from tmi_ops.recovery.point_in_time.replay_end import Follows, Wal, end_of_record, what_follows
from tmi_ops.recovery.point_in_time.server import Recovering, run_as
from tmi_ops.recovery.point_in_time.server_log import NewTablespace, ServerLog
from tmi_ops.recovery.point_in_time.spool import WalSpool
from tmi_ops.recovery.point_in_time.target import target_settings

LOOK_EVERY_S = 0.1
PROMOTION_TIMEOUT_S = 300.0
_STATE = """
SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text, pg_last_xact_replay_timestamp(),
       pg_is_in_recovery() AND pg_is_wal_replay_paused()
"""


class ReplayAgainError(Exception):
    """The replay must be restarted.

    It needs these settings raised, this tablespace created in place, or (if neither is given) must go to the end of the
    WAL.
    """

    def __init__(self, settings: Mapping[str, str], tablespace: int | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.tablespace = tablespace


@dataclass(frozen=True)
class Reached:
    """Where the replay stopped. `stopped`: the server's log message; empty at the end of the WAL.

    `last_commit_at`: commit time of the last replayed transaction; None if none was replayed.
    """

    lsn: int
    last_commit_at: datetime | None
    stopped: str
    in_recovery: bool
    timeline: int


def replay_settings(plan: RecoveryPlan, *, to_the_end: bool) -> dict[str, str]:
    """The server's settings for timeline and target; it pauses there."""
    settings = {"recovery_target_timeline": str(plan.timeline), "recovery_target_action": "pause"}
    if to_the_end:
        return settings
    time = plan.target.time if plan.stop_lsn is None else None
    return {**settings, **target_settings(time, plan.stop_lsn, inclusive=plan.inclusive)}


def follow(recovering: Recovering, spool: WalSpool, plan: RecoveryPlan, report: Report, *, to_the_end: bool) -> Reached:
    """Wait until the server has reached the target.

    Raises:
        RecoveryError: the server exited before, or WAL that it needs cannot be used; the message says how far it got.
        DiskSpaceError: a disk is full.
        ReplayAgainError: the replay must be restarted.
    """
    log = ServerLog(recovering.log)
    with report.phase("replay", total=plan.wal.size or None) as phase, _Window(recovering) as window:
        progress = _Progress(plan, phase)
        while True:
            ended = recovering.cluster.process.poll() is not None
            log.read()
            if ended:
                raise _ended(plan, log, spool)
            if spool.failure is not None:
                raise spool.failure
            if log.too_low:
                raise ReplayAgainError({name: str(value) for name, value in log.too_low.items()})
            state = window.look()
            progress.reach(max(_taken_until(spool, plan), state.lsn if state else 0))
            if state is not None and (not state.in_recovery or (state.paused and log.stopped is not None)):
                break
            time.sleep(LOOK_EVERY_S)
    log.read()
    if to_the_end:
        _require_the_end(plan, log, spool, state.lsn)
    elif log.stopped is None:
        raise _stopped_early(plan, log, state.lsn)
    return Reached(
        state.lsn, state.last_commit_at, log.stopped or "", state.in_recovery, log.new_timeline or plan.timeline
    )


def promote(recovering: Recovering, programs: Programs, identity: ServerIdentity) -> int:
    """Promote a server that waits at its target to a new timeline.

    Returns:
        The new timeline.

    Raises:
        RecoveryError: the promotion failed.
    """
    directory = recovering.cluster.directory
    log = ServerLog(recovering.log)
    deadline = time.monotonic() + PROMOTION_TIMEOUT_S
    with _Window(recovering) as window:
        if not window.resume():
            run_as(identity, [programs.path("pg_ctl"), "promote", "--no-wait", "--pgdata", directory])
        while time.monotonic() < deadline and recovering.cluster.process.poll() is None:
            log.read()
            state = window.look()
            if state is not None and not state.in_recovery and log.new_timeline is not None:
                return log.new_timeline
            time.sleep(LOOK_EVERY_S)
    log.read()
    raise RecoveryError(f"The recovered cluster in {directory} could not be promoted: {log.last_messages}.")


def enabled_subscriptions(recovering: Recovering) -> int:
    """How many subscriptions would become active if the cluster ran with the source's settings."""
    with psycopg.connect(**connection_parameters(recovering.cluster.address), autocommit=True) as connection:
        row = connection.execute("SELECT count(*) FROM pg_subscription WHERE subenabled").fetchone()
    return int(row[0]) if row else 0


@dataclass(frozen=True)
class _State:
    in_recovery: bool
    lsn: int
    last_commit_at: datetime | None
    paused: bool


class _Window:
    """A connection for observing the server, opened as soon as it accepts any."""

    def __init__(self, recovering: Recovering) -> None:
        self._parameters = connection_parameters(recovering.cluster.address)
        self._connection: psycopg.Connection[Any] | None = None

    def look(self) -> _State | None:
        """None while the server is not yet consistent and refuses connections."""
        try:
            if self._connection is None:
                self._connection = psycopg.connect(**self._parameters, autocommit=True)
            row = self._connection.execute(_STATE).fetchone()
        except psycopg.OperationalError:
            self.close()
            return None
        if row is None:  # a SELECT without FROM has its row
            raise AssertionError
        in_recovery, lsn, last_commit_at, paused = row
        return _State(in_recovery, parse_lsn(lsn or "0/0"), last_commit_at, paused)

    def resume(self) -> bool:
        """Make the waiting server come up at once; it notices a promotion only within a second.

        Returns:
            False if our role lacks the privilege.
        """
        try:
            if self._connection is None:
                self._connection = psycopg.connect(**self._parameters, autocommit=True)
            self._connection.execute("SELECT pg_wal_replay_resume()")
        except psycopg.errors.InsufficientPrivilege:
            return False
        return True

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> _Window:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Progress:
    def __init__(self, plan: RecoveryPlan, phase: Phase) -> None:
        self._start, self._end, self._phase = plan.wal.start, plan.wal.end, phase
        self._at = plan.wal.start

    def reach(self, lsn: int) -> None:
        lsn = min(lsn, self._end)
        if lsn > self._at:
            self._phase.advance(lsn - self._at)
            self._at = lsn


def _taken_until(spool: WalSpool, plan: RecoveryPlan) -> int:
    """Start of the last segment that the server has taken."""
    taken = spool.taken
    return plan.wal.files[taken - 1].segment.start if taken else 0


def _ended(plan: RecoveryPlan, log: ServerLog, spool: WalSpool) -> Exception:
    if log.disk_full:
        return DiskSpaceError(
            f"A disk became full during the replay: {log.last_messages}.",
            detail="What was restored so far was removed again; the backups are untouched.",
            hint="free some space there, or restore to a larger disk (--into)",
        )
    if log.tablespace is not None:
        if _make_in_place(plan, log.tablespace, spool):
            return ReplayAgainError({}, log.tablespace.oid)
        return refusals.tablespace_in_the_wal(plan.base, log.tablespace.place, log.last_messages)
    if not log.ended_before_target and plan.wal.broken is not None:
        return refusals.hole(plan.target, plan.wal, log.last_completed)
    if not log.ended_before_target:
        return RecoveryError(
            f"The server exited during the replay: {log.last_messages}.",
            detail="What was restored so far was removed again; the backups are untouched.",
            hint="try another base backup (--backup ID)",
            code=Code.REPLAY_ENDED,
        )
    if spool.damaged is not None:
        return spool.damaged
    place = _ended_at(plan, log, spool)
    if place is not None and _follows(plan, log, spool, place) == "more":
        return _stopped_early(plan, log, place)
    if plan.wal.goes_on:
        return refusals.hole(plan.target, plan.wal, log.last_completed)
    if plan.stop_lsn is not None:
        # Only padding lies between the last record and the target: everything before the target is replayed.
        return ReplayAgainError({})
    return refusals.after_last_commit(plan.target, log.last_completed, plan.wal)


def _require_the_end(plan: RecoveryPlan, log: ServerLog, spool: WalSpool, lsn: int) -> None:
    """Verify that all WAL was replayed: a server comes up at whatever looks like the end of the WAL.

    Raises:
        RecoveryError: there is WAL that was not replayed.
    """
    if lsn < _end_of(plan) and _follows(plan, log, spool, lsn) == "more":
        raise _stopped_early(plan, log, lsn)


def _follows(plan: RecoveryPlan, log: ServerLog, spool: WalSpool, lsn: int) -> Follows:
    wal = _wal_at(plan, spool, lsn)
    if wal is None:
        return "nothing" if lsn >= _end_of(plan) else "more"
    found = what_follows(wal, lsn, log.last_record)
    # Later segments may exist that the server never asked for.
    return "more" if found == "nothing" and wal.until < _end_of(plan) else found


def _end_of(plan: RecoveryPlan) -> int:
    """The LSN up to which all WAL must be replayed: the requested target, or the end of the WAL."""
    return plan.wal.end if plan.stop_lsn is None else min(plan.stop_lsn, plan.wal.end)


def _ended_at(plan: RecoveryPlan, log: ServerLog, spool: WalSpool) -> int | None:
    """Where the replay of a server that has exited ended; None if its log does not say."""
    if log.last_record is None:
        return None
    wal = _wal_at(plan, spool, log.last_record)
    return None if wal is None else end_of_record(wal, log.last_record)


def _make_in_place(plan: RecoveryPlan, tablespace: NewTablespace, spool: WalSpool) -> bool:
    """Change the record that creates a tablespace to create it in the data directory; False if that is impossible."""
    wal = _wal_at(plan, spool, tablespace.lsn)
    bytes_of_it = None if wal is None else emptied_place(wal, tablespace.lsn, tablespace.oid)
    if not bytes_of_it or any(lsn in spool.edits for lsn in bytes_of_it):
        return False
    spool.edit(bytes_of_it)
    return True


def _wal_at(plan: RecoveryPlan, spool: WalSpool, lsn: int) -> Wal | None:
    found = spool.content_from(lsn)
    return None if found is None else Wal(found[1], found[0], _end_of(plan), plan.base.wal_segment_size)


def _stopped_early(plan: RecoveryPlan, log: ServerLog, lsn: int) -> RecoveryError:
    said = f": {log.broke}" if log.broke else ""
    return RecoveryError(
        f"The replay ended at {format_lsn(lsn)}, though the archived WAL goes to {format_lsn(plan.wal.end)}{said}. "
        "The WAL after that does not continue the WAL before it: it is damaged, or from another history.",
        detail="What was restored so far was removed again; the archive was not changed.",
        hint=f"run `tmi-ops wal gaps --deep`; restore what is before that with --to-lsn {format_lsn(lsn)}; a base "
        "backup that was taken later leads to what is after it",
        code=Code.REPLAY_ENDED,
    )
