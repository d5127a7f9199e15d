"""Where journals lie: below TMI_OPS_HOME, outside of all that is recovered, and copied into the store when it answers.

::

    <home>/runbooks/<run id>/journal.json, lock, evidence.json, evidence.html
    <store>/runbooks/<run id>/journal.json, evidence.json, evidence.html

In the store they are encrypted for its recipients: a plan names tables and places.

A journal is on disk before the deed that it tells of: written beside, synced, renamed, and the directory synced.
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
from tmi_ops.store.single_put import sealed, unsealed

FOLDER = "runbooks"
JOURNAL = "journal.json"
_LOCK = "lock"


class BrokenJournalError(OpsError):
    """A journal is there and cannot be understood."""

    default_code = Code.JOURNAL_UNREADABLE


@dataclass(frozen=True)
class Logbook:
    """The place of one run. `directory` is its own: steps may work in it."""

    directory: Path
    store: ObjectStore | None

    @property
    def run_id(self) -> str:
        return self.directory.name

    def write(self, journal: Journal, report: Report) -> None:
        """Durable here when this returns; in the store where that answers.

        Raises:
            RecoveryError: it could not be written here, so nothing may be done that it would have to tell of.
        """
        data = journal_bytes(journal)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            write_durably(self.directory / JOURNAL, data)
        except OSError as error:
            raise RecoveryError(
                f"The journal {self.directory / JOURNAL} could not be written: {error.strerror}.",
                detail="No step is begun without it.",
                hint=f"make room or give access there, then `tmi-ops recover resume {self.run_id}`",
            ) from None
        self.copy_to_store(JOURNAL, data, report)

    def copy_to_store(self, name: str, data: bytes, report: Report) -> None:
        """Best effort: a recovery does not wait for the copy of its own record."""
        if self.store is None:
            return
        try:
            write_over(self.store, f"{FOLDER}/{self.run_id}/{name}", sealed(self.store, data), "journal")
        except StoreError as error:
            report.note(f"{name} is kept here only, in {self.directory}: {error.message}")

    def read(self) -> Journal:
        """The journal as it lies here.

        Raises:
            BrokenJournalError: it cannot be understood.
        """
        try:
            return _parsed((self.directory / JOURNAL).read_bytes(), str(self.directory / JOURNAL))
        except FileNotFoundError:
            raise BrokenJournalError(
                f"There is no journal in {self.directory}.", hint="see what is there: `tmi-ops recover list`"
            ) from None

    @property
    def busy(self) -> bool:
        """Whether a process of this machine is carrying out the run just now."""
        try:
            with self.locked():
                return False
        except RecoveryError:
            return True

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else carries on this run meanwhile; the lock ends with the process, however that ends.

        Raises:
            RecoveryError: somebody does.
        """
        refusal = RecoveryError(f"Another process is carrying out {self.run_id}.", hint="wait for it, or stop it first")
        with held_alone(self.directory / _LOCK, refusal):
            yield


def logbook_of(settings: Settings, store: ObjectStore | None, run_id: str) -> Logbook:
    return Logbook(settings.home / FOLDER / run_id, store)


def find_run(settings: Settings, store: ObjectStore | None, name: str = "latest") -> tuple[Logbook, Journal]:
    """The run that is named, by the beginning of its id or `latest`.

    One of another machine is fetched from the store. What is here counts, unless the store's copy has come further and
    a trusted key signed it: then another machine went on. Nobody's consent is ever taken from the store.

    Raises:
        RecoveryError: there is none, or more than one.
        BrokenJournalError: it cannot be understood.
        StoreError: the store failed.
    """
    here = sorted(path.parent.name for path in (settings.home / FOLDER).glob(f"*/{JOURNAL}"))
    found = _fitting(here, name) or _fitting(_stored(store), name)
    if len(found) != 1:
        raise RecoveryError(
            f"{len(found) or 'No'} runs of runbooks begin with {name!r}." if name != "latest" else "There was no run.",
            hint="see which there are: `tmi-ops recover list`",
        )
    logbook = logbook_of(settings, store, found[0])
    if found[0] not in here and store is not None:
        logbook.directory.mkdir(parents=True, exist_ok=True)
        write_durably(logbook.directory / JOURNAL, journal_bytes(_from_store(store, found[0], consents=())))
    elif store is not None:
        _take_over(logbook, store)
    return logbook, logbook.read()


def _take_over(logbook: Logbook, store: ObjectStore) -> None:
    """Where a signed copy in the store has come further, another machine went on: it counts, unless we are at it."""
    if not store.trust.is_pinned:
        return
    with contextlib.suppress(OpsError), logbook.locked():
        here = logbook.read()
        stored = _from_store(store, logbook.run_id, here.consents)
        if stored.progress > here.progress:
            write_durably(logbook.directory / JOURNAL, journal_bytes(stored))


def _from_store(store: ObjectStore, run_id: str, consents: tuple[Consent, ...]) -> Journal:
    """A run's journal as the store has it, but for the consents: who may write the store cannot say yes for us."""
    key = f"{FOLDER}/{run_id}/{JOURNAL}"
    journal = _parsed(unsealed(store, key, read_document(store, key, "journal")), key)
    if journal.run_id != run_id:
        raise BrokenJournalError(
            f"The journal {key} is of another run, {journal.run_id}: it was copied or renamed.",
            hint="find out who put it there",
        )
    return journal.model_copy(update={"consents": consents})


def list_runs(settings: Settings, store: ObjectStore | None, report: Report) -> list[Journal]:
    """Every run of this environment that is known here or in the store, the newest first.

    What is here counts, but for a run of which a trusted key signed a copy that has come further.
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
                    report.note(f"The store's copy of {run_id} says more than ours, but is unsigned: ours counts.")
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
            f"The journal {where} cannot be read.", hint="use the tmi-ops that wrote it, or a newer one"
        ) from None


@contextlib.contextmanager
def _noted(report: Report) -> Iterator[None]:
    try:
        yield
    except OpsError as error:
        report.note(error.message)
