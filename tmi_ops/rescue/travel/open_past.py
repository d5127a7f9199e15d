"""The process that holds a past open: opens it, moves it on request, and removes it at the end.

The files of a past are extracted once, copied to a twin before anything is replayed, and copied from there. A copy
shares its blocks with the twin if the file system supports reflinks (XFS, Btrfs, ZFS, APFS by `cp`); otherwise it is a
plain copy. Hard links do not work: a server writes into its files, and so into the twin's.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tmi_ops.errors import OpsError, RecoveryError
from tmi_ops.postgres.cluster import copy_tree
from tmi_ops.postgres.programs import Programs, server_programs
from tmi_ops.postgres.shelter import PORT
from tmi_ops.postgres.unprivileged import ServerIdentity
from tmi_ops.progress import Report
from tmi_ops.recovery.point_in_time.confirmed import confirmed_plan
from tmi_ops.recovery.point_in_time.destination import Destination
from tmi_ops.recovery.point_in_time.execution import extracted_base
from tmi_ops.recovery.point_in_time.facts import read_facts
from tmi_ops.recovery.point_in_time.planning import RecoveryPlan
from tmi_ops.recovery.point_in_time.replay import Reached
from tmi_ops.recovery.point_in_time.server import owner_of
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.rescue.travel.replaying import Standing, require_stopping_place, standing_at
from tmi_ops.rescue.travel.state import OpenPast, Wanted, asked, only_one, place, read_open_past, write_open_past
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.objects import ObjectStore

DATA, TWIN, TABLESPACES = "data", "twin", "tablespaces"
NO_ROOM = "free space there, then run `tmi-ops travel` again"
# In addition to the copy, for WAL and what the replay adds.
SPARE = 1 << 30


def destination_in(directory: Path) -> Destination:
    return Destination(directory / DATA, tablespace_root=directory / TABLESPACES)


def keep_twin(directory: Path) -> bool:
    """Copy the files. Returns False, without a twin, if there is no room or they have tablespaces.

    Raises:
        ProgramError: they could not be copied.
    """
    if _has_tablespaces(directory) or shutil.disk_usage(directory).free < _size(directory / DATA) + SPARE:
        return False
    copy_tree(directory / DATA, directory / TWIN, NO_ROOM)
    return True


def start_again(directory: Path) -> None:
    """Replace the data with a copy of the twin.

    Raises:
        ProgramError: it could not be copied.
    """
    shutil.rmtree(directory / DATA)
    copy_tree(directory / TWIN, directory / DATA, NO_ROOM)


def _has_tablespaces(directory: Path) -> bool:
    return any((directory / DATA / "pg_tblspc").iterdir())


def _size(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file())


LOOK_EVERY_S = 0.3
LONGEST_SOCKET = 107 - len("/.s.PGSQL.5432")  # source: sockaddr_un, unix(7)
SOCKET = "socket"


@dataclass(frozen=True)
class _Way:
    """What all moves of one open past have in common."""

    settings: Settings
    store: ObjectStore
    report: Report
    directory: Path
    expires_at: datetime
    twin: bool
    programs: Programs
    identity: ServerIdentity

    def plan(self, target: Target, base: str) -> RecoveryPlan:
        return planned(self.settings, self.store, target, self.report, base=base)


@dataclass(frozen=True)
class _Stop:
    """A moment of an open past. `refused`: a requested moment that could not be reached, and why."""

    plan: RecoveryPlan
    wanted: Wanted
    refused: tuple[Wanted, OpsError] | None = None


def planned(
    settings: Settings, store: ObjectStore, target: Target, report: Report, *, base: str | None = None
) -> RecoveryPlan:
    """The plan to reach a moment and wait there.

    Raises:
        RecoveryError: it cannot be reached.
    """
    facts = read_facts(store)
    programs = server_programs(facts.server_major, settings.pg_bindir, settings.copy_libraries)
    scratch = settings.home / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    plan = confirmed_plan(store, facts, target, programs, scratch, report, base=base)
    require_stopping_place(plan)
    return plan


def travel(
    settings: Settings,
    store: ObjectStore,
    target: Target,
    ttl: timedelta,
    report: Report,
    opened: Callable[[OpenPast], None],
) -> None:
    """Open a past and hold it until its time is over, it is closed, or we are interrupted; then remove it.

    Args:
        opened: called with the past once it is open and after every move.

    Raises:
        OpsError: as a recovery.
    """
    with only_one(settings):
        plan = planned(settings, store, target, report)
        with _cleared_away(place(settings)) as directory:
            destination = destination_in(directory)
            identity = extracted_base(settings, store, plan, destination, report)
            with report.phase("keep a second copy", total=1, unit="steps") as phase:
                twin = keep_twin(directory)
                phase.advance(1)
            programs = server_programs(plan.server_major, settings.pg_bindir, settings.copy_libraries)
            way = _Way(settings, store, report, directory, datetime.now(UTC) + ttl, twin, programs, identity)
            _go(way, _Stop(plan, Wanted.of(target)), opened)


def _go(way: _Way, stop: _Stop, opened: Callable[[OpenPast], None]) -> None:
    """Go from one moment to the next; if one cannot be reached, go back to the one before."""
    before: _Stop | None = None
    while True:
        try:
            following = _held(way, stop, opened)
        except RecoveryError as error:
            if before is None or not way.twin:
                raise
            way.report.note(f"{error.message} Going back to {before.plan.target.describe()}.")
            start_again(way.directory)
            stop, before = replace(before, refused=(stop.wanted, error)), None
            continue
        if following is None:
            return
        stop, before = following, replace(stop, refused=None)


def _held(way: _Way, stop: _Stop, opened: Callable[[OpenPast], None]) -> _Stop | None:
    """Wait at a moment until another reachable one is requested; None if the past must be closed.

    Raises:
        RecoveryError: the moment was not reached.
    """
    destination, plan = destination_in(way.directory), stop.plan
    with standing_at(plan, way.store, destination, way.programs, way.identity, way.report) as standing:
        open_past = _open_past(way, stop, standing)
        write_open_past(way.settings, open_past)
        opened(open_past)
        while datetime.now(UTC) < way.expires_at:
            is_asked, other = asked(way.settings)
            if is_asked and other is None:
                return None
            if other is not None:
                try:
                    following = _Stop(_reachable(way, plan, other, standing), other)
                except OpsError as error:
                    open_past = _refusing(open_past, other, error)
                    write_open_past(way.settings, open_past)
                    continue
                write_open_past(way.settings, open_past.model_copy(update={"moving": True}))
                break
            time.sleep(LOOK_EVERY_S)
        else:
            return None
    if lies_before(plan, following.plan, standing.reached):
        start_again(way.directory)
    return following


def _reachable(way: _Way, plan: RecoveryPlan, other: Wanted, standing: Standing) -> RecoveryPlan:
    """The plan to reach another moment from the same base backup.

    Raises:
        OpsError: it cannot be reached, or it is earlier and there is no twin.
    """
    found = way.plan(other.target, plan.base.backup_id)
    if lies_before(plan, found, standing.reached) and not way.twin:
        raise RecoveryError(
            "This past cannot be moved back: no second copy of its files could be kept.",
            hint="close it with `tmi-ops travel --end`, then open the earlier moment",
        )
    return found


def _refusing(open_past: OpenPast, other: Wanted, error: OpsError) -> OpenPast:
    return open_past.model_copy(update={"answered": other.number, "refused": (error.message, error.hint)})


def lies_before(plan: RecoveryPlan, other: RecoveryPlan, reached: Reached) -> bool:
    """Whether the other moment may be earlier than the replayed one, so that replay must start again from the twin."""
    if other.target.name is not None:
        return other.stop_lsn is None or other.stop_lsn <= reached.lsn
    if other.target.lsn is not None:
        return other.target.lsn < reached.lsn
    time, stands_at = other.target.time, plan.target.time or plan.named_at
    if time is not None and stands_at is not None:
        return time < stands_at or (time == stands_at and not other.target.inclusive)
    return time is None or reached.last_commit_at is None or time <= reached.last_commit_at


def _open_past(way: _Way, stop: _Stop, standing: Standing) -> OpenPast:
    address, base, wanted = standing.address, stop.plan.base, stop.wanted
    open_past = OpenPast(
        cluster=base.system_identifier,
        base=base.backup_id,
        wanted=wanted,
        stands_at=standing.reached.last_commit_at,
        named_at=stop.plan.named_at,
        host=_stable_socket(way.directory, Path(address.host)),
        port=PORT,
        user=address.user,
        database=way.settings.postgres.database,
        expires_at=way.expires_at,
        twin=way.twin,
        answered=wanted.number,
    )
    return _refusing(open_past, *stop.refused) if stop.refused else open_past


def _stable_socket(directory: Path, socket: Path) -> str:
    """A socket directory that stays the same over all moves, if its path is short enough."""
    link = directory / SOCKET
    if len(os.fsencode(link)) > LONGEST_SOCKET:
        return str(socket)
    link.unlink(missing_ok=True)
    link.symlink_to(socket)
    return str(link)


@contextmanager
def _cleared_away(around: Path) -> Iterator[Path]:
    directory = around / "open"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        for name in ("state.json", "request.json"):
            (around / name).unlink(missing_ok=True)


@contextmanager
def writable_copy(
    settings: Settings, store: ObjectStore, directory: Path, report: Report
) -> Iterator[PostgresSettings]:
    """A copy of the open past in `directory`, for the length of a `with` block.

    Its server allows temporary tables. Its files come from the twin, so that only WAL is fetched.

    Raises:
        RecoveryError: no past is open, or it has no twin.
    """
    open_past = read_open_past(settings)
    if not open_past.twin:
        raise RecoveryError(
            "The open past cannot be compared: no second copy of its files could be kept.",
            hint="name the moment instead of --travel; it is restored separately then",
        )
    plan = planned(settings, store, open_past.wanted.target, report, base=open_past.base)
    with report.phase("copy the open past", total=1, unit="steps") as phase:
        copy_tree(place(settings) / "open" / TWIN, directory / DATA, NO_ROOM)
        phase.advance(1)
    destination = destination_in(directory)
    programs = server_programs(plan.server_major, settings.pg_bindir, settings.copy_libraries)
    identity = owner_of(destination.directory, programs, together=True)
    with standing_at(plan, store, destination, programs, identity, report, finish="promote") as standing:
        address = standing.address.model_copy(update={"database": settings.postgres.database})
        yield address
