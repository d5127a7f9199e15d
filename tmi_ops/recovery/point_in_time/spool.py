"""Prefetches WAL for the replay, and provides the restore_command that takes it.

A thread keeps a window of segments ready as files. The restore_command is a short shell command that takes the file by
renaming it, so the server waits for no interpreter and no copy. If the file is not ready, it leaves a note and waits
until the note is gone: then either the file is ready, or the archive has none, which means exit code 1.

While the server replays to the end of the WAL, a segment that the archive has but that cannot be used is not answered
with 1: the server would take that for the end and come up in the middle of history. Its note stays, `failure` says why,
and the caller stops the server. A server with a target does not come up before it, and looks beyond it: there the
answer is 1, and `damaged` says afterwards why the target was not reached.
"""

from __future__ import annotations

import os
import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from tmi_ops.errors import DiskSpaceError, IntegrityError, OpsError, RecoveryError, StoreError
from tmi_ops.postgres.unprivileged import ServerIdentity
from tmi_ops.postgres.wal_files import PARTIAL_SUFFIX, history_name
from tmi_ops.recovery.point_in_time.tar_stream import disk_failed
from tmi_ops.store.objects import ObjectStore
from tmi_ops.wal.coverage import WalFile
from tmi_ops.wal.fetching import read_wal_file

# The window: enough to bridge a slow stretch, small compared with any data directory.
AHEAD_BYTES = 512 << 20
MOST_AHEAD = 64
# A fetch needs memory for up to three segments: compressed, decompressed, and in transport. More of them at once do
# not help two cores.
FETCHES_AT_ONCE = 3
FETCHED_BYTES = 256 << 20
POLL_S = 0.01
# How long the server waits for a segment while the store does not answer.
PATIENCE_S = 300.0
# Placeholder for the history of a timeline that is not in the archive; servers do not parse it as a history.
STAND_IN = b"# tmi_ops: this timeline is taken; its history was never archived, or cannot be read\n"
_READY, _WANTED = "ready", "wanted"


class WalSpool:
    """Keeps WAL ready for the length of a `with` block.

    Args:
        files: what may be replayed, in WAL order.
        histories: timelines whose history the server may ask for.
        directory: where to keep it; must be on the data directory's disk.
        identity: the server's account, which will own the files.
        newest_timeline: the highest timeline id in use. For timelines without an archived history, the server gets a
            placeholder, so that it does not reuse the id.

    `to_the_end`: whether the server replays to the end of the WAL.
    """

    to_the_end = True

    def __init__(
        self,
        store: ObjectStore,
        system_identifier: str,
        files: Sequence[WalFile],
        histories: Sequence[int],
        directory: Path,
        identity: ServerIdentity,
        *,
        newest_timeline: int = 1,
    ) -> None:
        self._store = store
        self._system_identifier = system_identifier
        self._files = {file.name: file for file in files}
        self._order = {file.name: place for place, file in enumerate(files)}
        self._names = [file.name for file in files]
        self._histories = {history_name(timeline) for timeline in histories}
        self._taken = {history_name(timeline) for timeline in range(2, newest_timeline + 1)} - self._histories
        self._directory = directory
        self._identity = identity
        size = files[0].segment.size if files else AHEAD_BYTES
        self._ahead = min(MOST_AHEAD, max(2, AHEAD_BYTES // size))
        self._workers = max(1, min(FETCHES_AT_ONCE, FETCHED_BYTES // (2 * size)))
        self._next = 0
        self._fetching: dict[str, Future[bool]] = {}
        self._failures: dict[str, OpsError] = {}
        self._failed_since: dict[str, float] = {}
        self._made: set[str] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._failure: OpsError | None = None
        self.edits: dict[int, int] = {}
        self.damaged: OpsError | None = None
        self._thread = threading.Thread(target=self._tend, name="wal-spool", daemon=True)

    @property
    def restore_command(self) -> str:
        """For the server's configuration; %f and %p are PostgreSQL's."""
        spool = shlex.quote(str(self._directory)).replace("%", "%%")
        return (
            f's={spool}; [ -e "$s/{_READY}/%f" ] || {{ : > "$s/{_WANTED}/%f"; '
            f'while [ -e "$s/{_WANTED}/%f" ]; do sleep 0.02; done; }}; mv "$s/{_READY}/%f" "%p" 2>/dev/null || exit 1'
        )

    @property
    def failure(self) -> OpsError | None:
        """Why the segment that the server waits for cannot be fetched; it would wait forever."""
        return self._failure

    @property
    def taken(self) -> int:
        """How many files the server has taken, counted up to the last one."""
        with self._lock:
            made = set(self._made)
        gone = [self._order[name] for name in made if not self._ready(name).exists()]
        return max(gone, default=-1) + 1

    def edit(self, content: Mapping[int, int]) -> None:
        """Deliver these bytes, by LSN, instead of the archived ones."""
        self.edits |= content
        for file in self._files.values():
            if any(file.segment.start <= lsn < file.segment.end for lsn in content):
                self._ready(file.name).unlink(missing_ok=True)

    def content_from(self, lsn: int) -> tuple[int, bytes] | None:
        """The bytes of the file that contains an LSN and of the next file, and their start LSN; None: no such file.

        Raises:
            OpsError: they cannot be fetched again.
        """
        held = [file for file in self._files.values() if file.segment.start <= lsn < file.segment.end]
        if not held:
            return None
        begins = held[-1].segment.start
        following = [file for file in self._files.values() if file.segment.start == held[-1].segment.end]
        return begins, b"".join(self.content(file) for file in (held[-1], *following[-1:]))

    def at_hand(self, file: WalFile) -> bytes | None:
        """The bytes of a file that is ready and not yet taken, else None."""
        try:
            return self._ready(file.name).read_bytes()
        except FileNotFoundError:
            return None

    def content(self, file: WalFile) -> bytes:
        """The bytes of a file, fetched again.

        Raises:
            OpsError: they cannot be fetched.
        """
        content = self._read(file.stored)
        if content is None:
            raise _gone(file.name)
        return self._edited(content, file)

    def __enter__(self) -> WalSpool:
        for name in ("", _READY, _WANTED):
            directory = self._directory / name
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._identity.take_over(directory)
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="wal-fetch")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _tend(self) -> None:
        while not self._stopped.wait(POLL_S):
            try:
                self._collect()
                for name in os.listdir(self._directory / _WANTED):  # noqa: PTH208 - a hundred times a second
                    self._answer(name)
                self._fetch_ahead()
            except BaseException as error:  # noqa: BLE001 - the server must not wait for a thread that is gone
                self._failure = error if isinstance(error, OpsError) else _broken(error)
                return

    def _collect(self) -> None:
        """Record the results of finished fetches."""
        for name in [name for name, fetching in self._fetching.items() if fetching.done()]:
            fetching = self._fetching.pop(name)
            try:
                there = fetching.result()
            except OpsError as error:
                self._failures[name] = error
            except OSError as error:
                failed = disk_failed(error, self._directory)
                self._failures[name] = failed if isinstance(failed, OpsError) else _broken(failed)
            else:
                if not there:
                    self._failures[name] = _gone(name)

    def _answer(self, name: str) -> None:
        """Fetch what the server waits for, or remove its note if the file is ready or does not exist."""
        if name in self._failures:
            self._fail_or_retry(name, self._failures[name])
        elif name in self._fetching:
            return
        elif name in self._taken:
            self._stand_in(name)
        elif self._ready(name).exists() or (name not in self._files and name not in self._histories):
            self._note(name).unlink(missing_ok=True)
        else:
            self._fetch(name)
            self._next = max(self._next, self._order.get(name, -1) + 1)

    def _stand_in(self, name: str) -> None:
        self._identity.write(self._ready(name), STAND_IN)
        self._note(name).unlink(missing_ok=True)

    def _fail_or_retry(self, name: str, error: OpsError) -> None:
        """A temporary outage of the store must not abort a replay of hours."""
        first = name not in self._failed_since
        since = self._failed_since.setdefault(name, time.monotonic())
        # A file that did not fit when prefetched may fit now that earlier files are taken.
        found_no_room = first and isinstance(error, DiskSpaceError)
        if found_no_room or (error.transient and time.monotonic() - since < PATIENCE_S):
            del self._failures[name]
            self._fetch(name)
        elif isinstance(error, IntegrityError) and not self.to_the_end:
            self.damaged = self.damaged or _unusable(name, error)
            self._note(name).unlink(missing_ok=True)
        else:
            self._failure = error if isinstance(error, DiskSpaceError) else _unusable(name, error)

    def _fetch_ahead(self) -> None:
        if self._next >= len(self._names):
            return
        ready = len(os.listdir(self._directory / _READY))  # noqa: PTH208 - a hundred times a second
        while self._next < len(self._names) and ready + len(self._fetching) < self._ahead:
            self._fetch(self._names[self._next])
            self._next += 1

    def _fetch(self, name: str) -> None:
        self._fetching[name] = self._pool.submit(self._bring, name)

    def _bring(self, name: str) -> bool:
        """Fetch a file and make it ready atomically; False if the archive does not have it."""
        file = self._files.get(name)
        content = self._read(file.stored if file else name)
        if content is None:
            return False
        self._identity.write(self._ready(name), content if file is None else self._edited(content, file))
        with self._lock:
            if file is not None:
                self._made.add(name)
        self._note(name).unlink(missing_ok=True)
        return True

    def _edited(self, content: bytes, file: WalFile) -> bytes:
        if file.cut is not None:  # what follows belongs to a history that was left
            content = content[: file.cut - file.segment.start].ljust(len(content), b"\0")
        own = {lsn: byte for lsn, byte in self.edits.items() if file.segment.start <= lsn < file.segment.end}
        if not own:
            return content
        edited = bytearray(content)
        for lsn, byte in own.items():
            edited[lsn - file.segment.start] = byte
        return bytes(edited)

    def _read(self, stored: str) -> bytes | None:
        content = read_wal_file(self._store, self._system_identifier, stored)
        # A partial segment that was listed may be complete by now, and then has the complete name.
        whole = stored.removesuffix(PARTIAL_SUFFIX)
        if content is None and whole != stored:
            return read_wal_file(self._store, self._system_identifier, whole)
        return content

    def _ready(self, name: str) -> Path:
        return self._directory / _READY / name

    def _note(self, name: str) -> Path:
        return self._directory / _WANTED / name


def _unusable(name: str, error: OpsError) -> RecoveryError:
    """The error for a WAL file that cannot be used."""
    damaged = isinstance(error, IntegrityError)
    return RecoveryError(
        f"Recovery needs {name}, which cannot be used: {error.message}",
        detail="What was restored so far was removed again; the archive was not changed.",
        hint="if the bucket keeps versions, restore an earlier version of the object; or choose a target before it, or "
        "one after the next base backup"
        if damaged
        else error.hint,
        transient=isinstance(error, StoreError) and error.transient,
    )


def _gone(name: str) -> RecoveryError:
    return RecoveryError(
        f"{name} was removed from the archive after the recovery was planned.",
        hint="try again; `tmi-ops wal gaps` lists what is missing",
    )


def _broken(error: BaseException) -> RecoveryError:
    return RecoveryError(f"Fetching WAL failed: {type(error).__name__}: {error}.")
