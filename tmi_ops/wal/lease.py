"""The receiver's lease in the store: it ensures one receiver per archive and records when the archive was complete.

The holder rewrites the lease every few seconds. It expires by the store's clock, so clocks need not agree. A process on
the same machine sees at once that the holder died; other machines wait until the lease expires. The last lease stays
after its holder ends, because it says how far the archive was known to be complete, and when. It is signed: with pinned
keys, a lease signed by no trusted key still keeps a second receiver away, but its statements about the archive are not
used.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from tmi_ops.error_codes import Code
from tmi_ops.errors import BackupError, ObjectExistsError, ObjectMissingError, OpsError, StoreError
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.store.backend import IfAbsent, IfUnchanged, ObjectHead
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.small_objects import get_single, look
from tmi_ops.store.stamped import check_note, put_note
from tmi_ops.store.trust import UntrustedError
from tmi_ops.wal.layout import lease_key

LEASE_S = 30.0
# Every renewal is a billed put. Three are due before the lease expires.
RENEWAL_S = 10.0
_WAIT_POLL_S = 2.0


class Lease(BaseModel):
    """Which receiver archives a cluster, and how far it was when this was written.

    `level_at` is a time by the server's clock: all WAL that the server had flushed by then was in the store.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: int = 1
    holder: str
    host: str
    machine: str = ""
    process: int
    process_start: str = ""
    slot: str = ""
    since: AwareDatetime
    written_at: AwareDatetime
    ended: bool = False
    timeline: int | None = None
    lsn: str | None = None
    level_at: AwareDatetime | None = None

    def describe(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since:%Y-%m-%d %H:%M:%S} UTC"


class LeaseHeldError(BackupError):
    """Another receiver holds the lease. `lease` is that lease, or None if it could not be read."""

    default_code = Code.LEASE_HELD

    def __init__(self, message: str, *, detail: str, hint: str, lease: Lease | None) -> None:
        super().__init__(message, detail=detail, hint=hint)
        self.lease = lease


class KeptLease:
    """A lease that this process holds. `check` raises once it is lost. `before` is the previous lease."""

    def __init__(
        self, store: ObjectStore, system_identifier: str, lease: Lease, etag: str, before: Lease | None
    ) -> None:
        self.before = before
        self.system_identifier = system_identifier
        self._store = store
        self._key = lease_key(system_identifier)
        self._lease = lease
        self._etag = etag
        self._lost: OpsError | None = None
        self._ending = threading.Event()

    def check(self) -> None:
        """Raises:
        LeaseHeldError: another receiver took the lease; nothing more may be written.
        BackupError: renewing the lease failed unexpectedly; nothing more may be written.
        """
        if self._lost is not None:
            raise self._lost

    def keep(self, progress: Callable[[], dict[str, object]]) -> None:
        """Renew the lease until it is given up or lost. Must run in its own thread."""
        while not self._ending.wait(RENEWAL_S):
            try:
                self._write(progress())
            except ObjectExistsError:
                self._lost = _held(_read(self._store, self._key), "took over from this one")
                return
            except OpsError:
                continue  # the receiver meets the same problem and reports it
            except Exception as error:  # noqa: BLE001 - a receiver whose lease is not renewed must not go on
                self._lost = _not_renewed(error)
                return

    def end(self, progress: dict[str, object]) -> None:
        """Give up the lease. What it says about the archive stays in the store."""
        self._ending.set()
        if self._lost is None:
            self._write({**progress, "ended": True})

    def _write(self, changes: dict[str, object]) -> None:
        self._lease = advanced(self._lease, changes, datetime.now(UTC))
        self._etag = put_note(self._store, self._key, _body(self._lease), IfUnchanged(self._etag), "WAL").etag


@contextmanager
def hold_lease(
    store: ObjectStore,
    system_identifier: str,
    slot: str,
    progress: Callable[[], dict[str, object]],
    *,
    wait: bool = False,
    stop: threading.Event,
    note: Callable[[str], None],
) -> Iterator[KeptLease | None]:
    """Hold the lease for the duration of a `with` block. A thread renews it.

    Args:
        progress: returns the fields of `Lease` that change. Called at each renewal.
        wait: stand by while another receiver holds the lease, and take over when that one ends or dies.
        stop: ends the waiting. The block then gets None instead of a lease.
        note: called once with a message that names the current holder.

    Raises:
        LeaseHeldError: another receiver holds the lease, and `wait` is false.
        StoreError: the store failed.
    """
    kept = _acquire(store, system_identifier, slot, wait=wait, stop=stop, note=note)
    if kept is None:
        yield None
        return
    keeper = threading.Thread(target=kept.keep, args=(progress,), name="lease", daemon=True)
    keeper.start()
    failed = True
    try:
        yield kept
        failed = False
    finally:
        kept._ending.set()
        keeper.join()
        try:
            kept.end(progress())
        except OpsError:
            if not failed:
                raise


def read_lease(store: ObjectStore, system_identifier: str) -> tuple[Lease, float] | None:
    """The current lease and its age in seconds by the store's clock. None if there never was a receiver.

    Raises:
        UntrustedError: no trusted key signed it.
        StoreError: it cannot be parsed, or the store failed.
    """
    key = lease_key(system_identifier)
    try:
        body, head = get_single(store, key)
    except ObjectMissingError:
        return None
    try:
        check_note(store, key, head.metadata, body, "WAL")
    except UntrustedError as error:
        raise UntrustedError(
            error.message,
            detail="The end of the archive that it states was not used.",
            hint="start the receiver, which signs the lease: `tmi-ops wal stream`; if one is already running, find out "
            "who else writes to the store",
        ) from None
    return _parse(body, key), head.age_s


def is_held(lease: Lease, age_s: float) -> bool:
    """Whether a receiver is running under this lease, as far as can be known."""
    return not lease.ended and age_s < LEASE_S and not _is_dead(lease)


def _acquire(
    store: ObjectStore,
    system_identifier: str,
    slot: str,
    *,
    wait: bool,
    stop: threading.Event,
    note: Callable[[str], None],
) -> KeptLease | None:
    key, told = lease_key(system_identifier), False
    while not stop.is_set():
        ours = _ours(slot)
        head = look(store, key)
        before = None if head is None else _read(store, key)
        if before is None or head is None or not is_held(before, head.age_s):
            try:
                etag = put_note(store, key, _body(_following(ours, before)), _condition(head), "WAL").etag
            except ObjectExistsError:
                continue  # another receiver was faster: see which one
            return KeptLease(store, system_identifier, _following(ours, before), etag, before)
        if not wait:
            raise _held(before, "already receives this cluster's WAL")
        if not told:
            note(f"Standing by until the current receiver ends: {before.describe()}.")
            told = True
        stop.wait(_WAIT_POLL_S)
    return None


def _following(ours: Lease, before: Lease | None) -> Lease:
    """Our lease with what the last holder knew of the archive, which holds until we know more."""
    if before is None:
        return ours
    return ours.model_copy(update={"timeline": before.timeline, "lsn": before.lsn, "level_at": before.level_at})


def _condition(head: ObjectHead | None) -> IfAbsent | IfUnchanged:
    return IfAbsent() if head is None else IfUnchanged(head.etag)


def advanced(lease: Lease, changes: Mapping[str, object], now: datetime) -> Lease:
    """The lease with what its holder knows now. The LSN and `level_at` never go back: a restarted receiver begins at
    the start of a segment, but the store still has the WAL after that.
    """
    new = lease.model_copy(update={**changes, "written_at": now})
    kept: dict[str, object] = {}
    if lease.level_at is not None and (new.level_at is None or new.level_at < lease.level_at):
        kept["level_at"] = lease.level_at
    if lease.lsn is not None and (new.lsn is None or (new.timeline == lease.timeline and _lsn(new) < _lsn(lease))):
        kept |= {"lsn": lease.lsn, "timeline": lease.timeline}
    return new.model_copy(update=kept)


def _lsn(lease: Lease) -> int:
    return parse_lsn(lease.lsn) if lease.lsn else 0


def _not_renewed(error: Exception) -> BackupError:
    return BackupError(
        f"The receiver's lease could not be renewed: {type(error).__name__}: {error}",
        detail="The archived WAL is intact. Nothing more is received.",
        hint="start the receiver again; if it happens again, report it with this message",
        code=Code.LEASE_LOST,
        transient=True,
    )


def _ours(slot: str) -> Lease:
    now = datetime.now(UTC)
    return Lease(
        holder=uuid.uuid4().hex,
        host=socket.gethostname(),
        machine=_machine(),
        process=os.getpid(),
        process_start=_process_start(os.getpid()),
        slot=slot,
        since=now,
        written_at=now,
    )


def _is_dead(lease: Lease) -> bool:
    """Whether the holder was a process of this machine and boot that no longer runs."""
    return bool(lease.machine) and lease.machine == _machine() and _process_start(lease.process) != lease.process_start


def _machine() -> str:
    """Identifies the boot and PID namespace, within which a PID is unique. Empty if it cannot be read."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _process_start(process: int) -> str:
    """When a process started, in the kernel's clock ticks since boot. Empty if there is no such process."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    state, start = fields[0], fields[19]
    return "" if state in "ZX" else start


def _held(lease: Lease | None, does: str) -> LeaseHeldError:
    who = "another process" if lease is None else lease.describe()
    return LeaseHeldError(
        f"Another receiver {does}: {who}.",
        detail="It was not disturbed. Nothing was written.",
        hint="stop it first, or start this one with --wait to stand by. If it died on another machine, its lease "
        f"expires after {LEASE_S:.0f} s",
        lease=lease,
    )


def _read(store: ObjectStore, key: str) -> Lease | None:
    """The lease; None if there is none. If no trusted key signed it, its LSN, `level_at` and slot are left out."""
    try:
        body, head = get_single(store, key)
    except ObjectMissingError:
        return None
    lease = _parse(body, key)
    try:
        check_note(store, key, head.metadata, body, "WAL")
    except UntrustedError:
        return lease.model_copy(update={"timeline": None, "lsn": None, "level_at": None, "slot": ""})
    return lease


def _parse(body: bytes, key: str) -> Lease:
    try:
        return Lease.model_validate_json(body)
    except ValidationError:
        raise StoreError(
            f"The lease {key} cannot be read.", hint="make sure that no receiver is running, then delete this object"
        ) from None


def _body(lease: Lease) -> bytes:
    return lease.model_dump_json(indent=2).encode() + b"\n"
