"""Where journals are kept: below TMI_OPS_HOME, outside anything that is recovered, with a copy in the store.

::

    <home>/runbooks/<run id>/journal.json, lock, evidence.json, evidence.html
    <store>/runbooks/<run id>/journal.json, evidence.json, evidence.html

In the store they are encrypted for its recipients, because a plan names tables and directories.

A journal is durable before the action that it records: written to a new file, synced, renamed, directory synced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from tmi_ops.error_codes import Code
from tmi_ops.errors import ObjectMissingError, OpsError, RecoveryError, StoreError
from tmi_ops.private import held_alone, write_durably
from tmi_ops.progress import Report
from tmi_ops.runbooks.journal import Consent, Journal
from tmi_ops.settings import Settings
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.signed import read_document, write_over
from tmi_ops.store.small_objects import sealed, unsealed

FOLDER = "runbooks"
JOURNAL = "journal.json"
_LOCK = "lock"


class BrokenJournalError(OpsError):
    """A journal exists but cannot be read."""

    default_code = Code.JOURNAL_UNREADABLE


@dataclass(frozen=True)
class Logbook:
    """The files of one run. `directory` belongs to the run; steps may write to it."""

    directory: Path
    store: ObjectStore | None

    @property
    def run_id(self) -> str:
        return self.directory.name

    def write(self, journal: Journal, report: Report) -> None:
        """Write the journal; durable on this machine when this returns, and in the store if that is reachable.

        Raises:
            RecoveryError: it could not be written on this machine, so no step may begin.
        """
        data = journal_bytes(journal)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            write_durably(self.directory / JOURNAL, data)
        except OSError as error:
            raise RecoveryError(
                f"The journal {self.directory / JOURNAL} could not be written: {error.strerror}.",
                detail="No step starts without it.",
                hint=f"free space or grant access there, then run `tmi-ops recover resume {self.run_id}`",
            ) from None
        self.copy_to_store(JOURNAL, data, report)

    def copy_to_store(self, name: str, data: bytes, report: Report) -> None:
        """Best effort: a recovery does not depend on the store's copy of its journal."""
        if self.store is None:
            return
        try:
            write_over(self.store, f"{FOLDER}/{self.run_id}/{name}", sealed(self.store, data), "journal")
        except StoreError as error:
            report.note(f"{name} is only in {self.directory}, not in the store: {error.message}")

    def read(self) -> Journal:
        """Read the journal on this machine.

        Raises:
            BrokenJournalError: it cannot be read.
        """
        try:
            return _parsed((self.directory / JOURNAL).read_bytes(), str(self.directory / JOURNAL))
        except FileNotFoundError:
            raise BrokenJournalError(
                f"There is no journal in {self.directory}.", hint="list the runs: `tmi-ops recover list`"
            ) from None

    @property
    def busy(self) -> bool:
        """Whether a process on this machine is executing the run."""
        try:
            with self.locked():
                return False
        except RecoveryError:
            return True

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run; the lock ends with the process.

        Raises:
            RecoveryError: another process holds it.
        """
        refusal = RecoveryError(
            f"Another process is executing {self.run_id}.", hint="wait for it, or stop it first", code=Code.RUN_BUSY
        )
        with held_alone(self.directory / _LOCK, refusal):
            yield


def logbook_of(settings: Settings, store: ObjectStore | None, run_id: str) -> Logbook:
    return Logbook(settings.home / FOLDER / run_id, store)


def find_run(settings: Settings, store: ObjectStore | None, name: str = "latest") -> tuple[Logbook, Journal]:
    """Find a run by `latest` or the beginning of its id.

    The journal of another machine's run is fetched from the store. The local journal is used unless the store's copy is
    newer and signed by a trusted key: then another machine has continued the run. Consents are never taken from the
    store.

    Raises:
        RecoveryError: there is none, or more than one.
        BrokenJournalError: it cannot be read.
        StoreError: the store failed.
    """
    here = sorted(path.parent.name for path in (settings.home / FOLDER).glob(f"*/{JOURNAL}"))
    found = _fitting(here, name) or _fitting(_stored(store), name)
    if len(found) != 1:
        raise RecoveryError(
            f"{len(found) or 'No'} runs have an id that begins with {name!r}."
            if name != "latest"
            else "There are no runs.",
            hint="list the runs: `tmi-ops recover list`",
        )
    logbook = logbook_of(settings, store, found[0])
    if found[0] not in here and store is not None:
        logbook.directory.mkdir(parents=True, exist_ok=True)
        write_durably(logbook.directory / JOURNAL, journal_bytes(_from_store(store, found[0], consents=())))
    elif store is not None:
        _take_over(logbook, store)
    return logbook, logbook.read()


def _take_over(logbook: Logbook, store: ObjectStore) -> None:
    """Use the store's copy if it is signed and newer, unless a process here executes the run."""
    if not store.trust.is_pinned:
        return
    with contextlib.suppress(OpsError), logbook.locked():
        here = logbook.read()
        stored = _from_store(store, logbook.run_id, here.consents)
        if stored.progress > here.progress:
            write_durably(logbook.directory / JOURNAL, journal_bytes(stored))


def _from_store(store: ObjectStore, run_id: str, consents: tuple[Consent, ...]) -> Journal:
    """The store's copy of a journal, without its consents: whoever can write to the store must not confirm for us."""
    key = f"{FOLDER}/{run_id}/{JOURNAL}"
    journal = _parsed(unsealed(store, key, read_document(store, key, "journal")), key)
    if journal.run_id != run_id:
        raise BrokenJournalError(
            f"The journal {key} belongs to another run, {journal.run_id}: it was copied or renamed.",
            hint="find out who put it there",
        )
    return journal.model_copy(update={"consents": consents})


def list_runs(settings: Settings, store: ObjectStore | None, report: Report) -> list[Journal]:
    """List the runs of this environment, on this machine and in the store, newest first.

    The local journal is used unless the store's copy is newer and signed by a trusted key.
    """
    found: dict[str, Journal] = {}
    for path in (settings.home / FOLDER).glob(f"*/{JOURNAL}"):
        with _noted(report):
            found[path.parent.name] = _parsed(path.read_bytes(), str(path))
    with _noted(report):
        for run_id in _stored(store):
            known = found.get(run_id)
            if store is None or (known is not None and known.state in ("done", "taken back")):
                continue
            with _noted(report), contextlib.suppress(ObjectMissingError):
                stored = _from_store(store, run_id, known.consents if known else ())
                if known is None or (store.trust.is_pinned and stored.progress > known.progress):
                    found[run_id] = stored
                elif stored.progress > known.progress:
                    report.note(f"The store's copy of {run_id} is newer but not signed by a trusted key: ignored.")
    return [found[run_id] for run_id in sorted(found, reverse=True)]


def journal_bytes(journal: Journal) -> bytes:
    return journal.model_dump_json(indent=2).encode() + b"\n"


def _stored(store: ObjectStore | None) -> list[str]:
    return sorted(store.list_folders(FOLDER)) if store is not None else []


def _fitting(ids: list[str], name: str) -> list[str]:
    return ids[-1:] if name == "latest" else [one for one in ids if one.startswith(name)]


def _parsed(data: bytes, where: str) -> Journal:
    try:
        return Journal.model_validate_json(data)
    except ValidationError:
        raise BrokenJournalError(
            f"The journal {where} cannot be read.", hint="use the tmi-ops release that wrote it, or a newer one"
        ) from None


@contextlib.contextmanager
def _noted(report: Report) -> Iterator[None]:
    try:
        yield
    except OpsError as error:
        report.note(error.message)
