"""Delivers verified WAL from the archive to the server's restore_command, in a thread.

The restore_command is a short shell command: it takes the file by renaming it, or reports that there is none. The
server asks repeatedly, so neither side waits for the other. Only a few segments are delivered ahead of the replay. WAL
that must not be replayed is not delivered, so the server stops just before it.
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tmi_ops.errors import IntegrityError, ObjectMissingError, OpsError
from tmi_ops.postgres.unprivileged import ServerIdentity
from tmi_ops.recovery.point_in_time.replay_end import Wal, what_follows
from tmi_ops.shadow.continuation import Fetched, Handed, RefusedError, cut_off, verified
from tmi_ops.shadow.next_wal import LISTED_OPEN_AGAIN_S, Next, Seen, Wanted, names_of, pause, what_next
from tmi_ops.shadow.report import TroubleKind
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.small_objects import look
from tmi_ops.store.trust import UntrustedError
from tmi_ops.wal.archive import list_wal
from tmi_ops.wal.coverage import coverage
from tmi_ops.wal.fetching import check_content
from tmi_ops.wal.layout import file_key
from tmi_ops.wal.lineage import Lineage
from tmi_ops.wal.links import links_of
from tmi_ops.wal.partials import find_open, load_behind, load_open, open_etag
from tmi_ops.wal.pieces import piece_name
from tmi_ops.wal.stored_file import load

AHEAD_BYTES = 128 << 20
LEAST_AHEAD = 2
# How often a refused object is checked again, in case it was repaired.
REFUSED_AGAIN_S = 2.0
# How often the archive is listed while a segment is missing from it.
LISTED_AGAIN_S = 30.0


@dataclass(frozen=True)
class Met:
    """The trouble that stops the feeder."""

    kind: TroubleKind
    what: str
    hint: str
    lsn: int | None
    segment: str | None


@dataclass(frozen=True)
class _Look:
    """What the archive has. `etag`: of the object to fetch; `chain`: SHA-256 of the previous segment, as recorded by
    the writer of the complete one."""

    seen: Seen
    etag: str | None = None
    chain: str | None = None


class Feeder:
    """Keeps `directory` filled for the length of a `with` block.

    Args:
        line: the line to replay.
        start: the LSN from which the server requests WAL.
        directory: on the data directory's disk; its files will belong to the server's account (`identity`).
    """

    def __init__(
        self,
        store: ObjectStore,
        system_identifier: str,
        segment_size: int,
        line: Lineage,
        start: int,
        directory: Path,
        identity: ServerIdentity,
        edits: Mapping[int, int] | None = None,
    ) -> None:
        self._store, self._system_identifier, self._size = store, system_identifier, segment_size
        self.line, self._directory, self._identity = line, directory, identity
        self._at = start
        self._edits = dict(edits or {})
        self._handed: Handed | None = None
        self._before: Handed | None = None
        self._replayed = start
        self._absent_since: float | None = None
        self._beyond: bool | None = None
        self._listed_at = 0.0
        self._listed_open_at = 0.0
        self._refused: tuple[str | None, OpsError] | None = None
        self._changed_at = time.monotonic()
        self._met: Met | None = None
        self._failure: BaseException | None = None
        self._stop, self._wake = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._tend, name="shadow-feeder", daemon=True)

    @property
    def restore_command(self) -> str:
        """For the server's configuration; %f and %p are PostgreSQL's."""
        ready = shlex.quote(str(self._directory)).replace("%", "%%")
        return f'[ -e {ready}/"%f" ] || exit 1; mv {ready}/"%f" "%p" 2>/dev/null || exit 1'

    @property
    def handed_to(self) -> int:
        """The LSN after the last delivered byte."""
        with self._lock:
            return self._handed.end if self._handed is not None else self._at

    @property
    def met(self) -> Met | None:
        """The current trouble, or None."""
        with self._lock:
            return self._met

    def reached(self, lsn: int) -> None:
        """Report how far the server has replayed."""
        self._replayed = lsn
        self._wake.set()

    def require_alive(self) -> None:
        """Raises:
        OpsError: the thread failed; the error says why.
        """
        if self._failure is not None:
            if isinstance(self._failure, OpsError):
                raise self._failure
            raise OpsError(f"Delivering WAL failed: {type(self._failure).__name__}: {self._failure}.")

    def has_more_than(self, lsn: int) -> bool | None:
        """Whether replayable WAL after `lsn` was delivered. None: `lsn` is before the WAL in memory."""
        with self._lock:
            kept = [one for one in (self._before, self._handed) if one is not None]
        if not kept or lsn >= kept[-1].end:
            return False
        holding = next((one for one in kept if one.segment.start <= lsn < one.segment.end), None)
        if holding is None:
            return None
        end = holding.end if holding is kept[-1] else holding.segment.end
        found = what_follows(Wal(holding.content, holding.segment.start, end, self._size), lsn, None)
        return found == "more" or (found == "nothing" and holding is not kept[-1])

    def content_from(self, lsn: int) -> Wal | None:
        """The delivered bytes around `lsn`; None if they are not in memory."""
        with self._lock:
            kept = [one for one in (self._before, self._handed) if one is not None]
        for number, one in enumerate(kept):
            if one.segment.start <= lsn < one.segment.end:
                following = b"".join(other.content for other in kept[number + 1 :])
                return Wal(one.content + following, one.segment.start, kept[-1].end, self._size)
        return None

    def __enter__(self) -> Feeder:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._directory.iterdir():
            left.unlink()
        self._identity.take_over(self._directory)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join()

    def _tend(self) -> None:
        try:
            while not self._stop.is_set():
                self._wake.clear()
                if self._is_far_ahead():
                    self._wake.wait(pause(0))
                    continue
                try:
                    moved = self._step()
                except OpsError as error:
                    if not self._take(error):
                        raise
                    self._stop.wait(REFUSED_AGAIN_S if not error.transient else pause(0))
                    continue
                if not moved:
                    self._stop.wait(pause(time.monotonic() - self._changed_at))
        except BaseException as error:  # noqa: BLE001 - whoever runs the shadow is told
            self._failure = error

    def _is_far_ahead(self) -> bool:
        return self._at - self._replayed > max(AHEAD_BYTES, LEAST_AHEAD * self._size)

    def _take(self, error: OpsError) -> bool:
        """Record the trouble. False: the error does not concern the archive's content."""
        wanted = names_of(self.line, self._at, self._size)[0]
        if isinstance(error, RefusedError):
            met = Met(error.kind, error.message, error.hint, error.lsn, error.segment)
        elif isinstance(error, UntrustedError):
            met = self._met_at("untrusted object", error, wanted)
        elif isinstance(error, IntegrityError):
            met = self._met_at("damaged object", error, wanted)
        elif error.transient or not isinstance(error, ObjectMissingError):
            met = Met("store away", error.message, error.hint, None, None)
        else:
            return False
        with self._lock:
            self._met = met
        return True

    def _met_at(self, kind: TroubleKind, error: OpsError, wanted: Wanted) -> Met:
        return Met(kind, error.message, error.hint, self._handed.end if self._handed else self._at, wanted.segment.name)

    def _clear(self) -> None:
        with self._lock:
            self._met = None

    def _step(self) -> bool:
        """Check for new WAL and deliver it. Returns whether there was any."""
        names = names_of(self.line, self._at, self._size)
        for wanted in names:
            if self._handed is not None and self._handed.whole and self._handed.segment == wanted.segment:
                continue  # its part on this line was delivered
            found = self._look(wanted)
            if what_next(found.seen) in (Next.WHOLE, Next.PARTIAL):
                if self._refused is not None and self._refused[0] == found.etag:
                    raise self._refused[1]
                try:
                    return self._hand_over(wanted, found)
                except IntegrityError as error:
                    self._refused = found.etag, error
                    raise
            if found.seen.partial is not None:
                self._clear()
                return False
        return self._nothing_there(names[0])

    def _look(self, wanted: Wanted) -> _Look:
        """Check the archive with as few requests as possible."""
        before = self._handed if self._handed and self._handed.segment == wanted.segment else None
        handed = None if before is None else before.etag
        now = time.monotonic()
        if before is not None and not before.whole:
            following = piece_name(wanted.segment, before.end - wanted.segment.start)
            added = look(self._store, file_key(self._system_identifier, following))
            if added is not None:
                return _Look(Seen(False, open_etag(added), handed), open_etag(added))
        whole = look(self._store, file_key(self._system_identifier, wanted.segment.name))
        if whole is not None:
            return _Look(Seen(True), whole.etag, links_of(whole.metadata).chain)
        if before is not None and now - self._listed_open_at < LISTED_OPEN_AGAIN_S:
            return _Look(Seen(False, handed, handed), handed)
        self._listed_open_at = now
        partial = find_open(self._store, self._system_identifier, wanted.segment)
        etag = None if partial is None else open_etag(partial.head)
        return _Look(Seen(False, etag, handed), etag)

    def _nothing_there(self, wanted: Wanted) -> bool:
        now = time.monotonic()
        if self._absent_since is None:
            self._absent_since, self._beyond = now, None
        seen = Seen(False, beyond=self._beyond, absent_s=now - self._absent_since)
        decision = what_next(seen)
        if decision is Next.LOOK_BEYOND:
            # The segment may arrive in the meantime; then the next look finds it.
            self._beyond = self._is_more_behind(wanted)
            self._listed_at = now
            if not self._beyond:
                self._absent_since = now
        if decision is Next.HOLE:
            if now - self._listed_at > LISTED_AGAIN_S:
                self._beyond = None
            place = self._handed.end if self._handed else self._at
            raise RefusedError(
                "hole",
                f"{wanted.segment.name} is missing from the archive, though there is WAL after it.",
                max(place, wanted.segment.start),
                wanted.segment.name,
                "archive the segment from wherever it still exists (`tmi-ops wal push`), or take a base backup after "
                "the gap: `tmi-ops backup base --incremental`",
            )
        if decision is Next.WAIT and self._beyond is None:
            self._clear()
        return False

    def _is_more_behind(self, wanted: Wanted) -> bool:
        found = coverage(list_wal(self._store, self._system_identifier), self.line)
        return any(interval.end > wanted.segment.end for interval in found.intervals)

    def _hand_over(self, wanted: Wanted, found: _Look) -> bool:
        """False: the object disappeared before it was read."""
        segment = wanted.segment
        fetched = self._fetch(wanted, found)
        if fetched is None:
            return False
        handed, stop = verified(fetched, self._handed)
        self._put(handed)
        with self._lock:
            if self._handed is None or self._handed.segment.start != segment.start:
                self._before = self._handed
            self._handed = handed
            self._met = None
        self._refused = None
        self._absent_since, self._beyond = None, None
        self._changed_at = time.monotonic()
        if stop is not None:
            raise stop
        if handed.whole:
            self._at = segment.end if wanted.cut is None else wanted.cut
        return True

    def _fetch(self, wanted: Wanted, found: _Look) -> Fetched | None:
        segment, whole = wanted.segment, found.seen.whole
        before = self._handed if self._handed and self._handed.segment == segment else None
        try:
            if whole:
                content, facts = load(self._store, self._system_identifier, segment.name)
            elif before is None:
                content, facts = load_open(self._store, self._system_identifier, segment.name)
            else:
                filled = before.end - segment.start
                content, facts = load_behind(self._store, self._system_identifier, segment, before.content, filled)
        except ObjectMissingError:
            return None
        check_content(content, segment.name, self._system_identifier)
        end = segment.end if whole or facts.end_lsn is None else min(facts.end_lsn, segment.end)
        sha256 = facts.sha256 if whole else None
        if wanted.cut is not None and wanted.cut <= end:
            end, content, whole, sha256 = wanted.cut, cut_off(content, wanted.cut - segment.start), True, None
        etag = None if whole else facts.sha256 or found.seen.partial
        return Fetched(segment, content, end, whole, sha256, found.chain, etag)

    def _put(self, handed: Handed) -> None:
        self._identity.write(self._directory / handed.segment.name, self._edited(handed))

    def _edited(self, handed: Handed) -> bytes:
        segment = handed.segment
        own = {lsn: byte for lsn, byte in self._edits.items() if segment.start <= lsn < segment.end}
        if not own:
            return handed.content
        content = bytearray(handed.content)
        for lsn, byte in own.items():
            content[lsn - segment.start] = byte
        return bytes(content)
