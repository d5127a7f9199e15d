"""The records of alerts: in the store, with a copy of each below TMI_OPS_HOME in case the store fails.

1. A change reads the store's record, decides, and writes it back; if the record has changed meanwhile, it starts over.
2. If the store fails, the copy is read and written instead, and marked as ahead of the store.
3. When the store is back, a copy that is ahead is merged into its record before anything is decided.

A file lock serializes the processes of one machine; conditional puts in the store serialize machines.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tmi_ops.alerts.alert import KEY
from tmi_ops.alerts.planning import Step
from tmi_ops.alerts.record import AlertRecord, merged
from tmi_ops.error_codes import Code
from tmi_ops.errors import ObjectExistsError, ObjectMissingError, OpsError, StoreError
from tmi_ops.settings import Settings
from tmi_ops.store.backend import Condition, IfAbsent, IfUnchanged
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.store.small_objects import get_single

FOLDER = "alerts"
# How long a failed store is not tried again: an alert must not wait for it a second time.
STORE_PAUSE_S = 30.0
_WRITINGS = 8
_READERS = 8
_log = logging.getLogger(__name__)

Decide = Callable[[AlertRecord | None], Step | None]


class _Copy(BaseModel):
    """A record on this machine; `ahead`: the store does not have all of it yet."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    record: AlertRecord
    ahead: bool


class AlertBook:
    """The records of one environment. Usable from several threads and processes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.home / FOLDER / settings.environment
        self._kept_in = f"{settings.own_folder}{FOLDER}/"
        self._turn = threading.RLock()
        self._store: ObjectStore | None = None
        self._problem: OpsError | None = None
        self._failed_at = 0.0

    @property
    def problem(self) -> OpsError | None:
        """Why the store could not be used last time; None if it could."""
        return self._problem

    def change(self, key: str, decide: Decide) -> Step | None:
        """Write the step that `decide` makes of the current record, and return it; None if it makes none."""
        with self._turn, self._alone():
            copy = self._read_copy(key)
            try:
                with self._watched():
                    return self._change_stored(key, copy, decide)
            except OpsError:
                step = decide(copy.record if copy else None)
                if step is not None:
                    self._write_copy(_Copy(record=step.record, ahead=True))
                return step

    def records(self) -> list[AlertRecord]:
        """Every record, newest first; only those of this machine if the store fails (see `problem`)."""
        copies = {copy.record.alert.key: copy for copy in self._copies()}
        try:
            with self._watched():
                found = self._stored()
        except OpsError:
            found = {key: copy.record for key, copy in copies.items()}
        for key, copy in copies.items():
            if copy.ahead:
                found[key] = merged(found[key], copy.record) if key in found else copy.record
        return sorted(found.values(), key=lambda record: record.opened_at, reverse=True)

    def _change_stored(self, key: str, copy: _Copy | None, decide: Decide) -> Step | None:
        store = self._open()
        ahead = copy.record if copy and copy.ahead else None
        for _ in range(_WRITINGS):
            stored, condition = _read(store, self._object_key(key))
            record = merged(stored, ahead) if stored and ahead else stored or ahead
            step = decide(record)
            news = step.record if step else ahead and record
            if news is None:
                if record is not None and (copy is None or copy.record != record):
                    self._write_copy(_Copy(record=record, ahead=False))
                return None
            news = news.model_copy(update={"writing": uuid.uuid4().hex})
            try:
                store.put(self._object_key(key), _body(news), condition=condition)
            except ObjectExistsError:
                continue  # another process was faster: decide again on what it wrote
            self._write_copy(_Copy(record=news, ahead=False))
            return step
        raise StoreError(
            f"The record of the alert {key} was changed by others at each of {_WRITINGS} attempts to write it.",
            code=Code.OBJECT_CHANGED,
            transient=True,
        )

    def _stored(self) -> dict[str, AlertRecord]:
        store = self._open()
        names = [item.key for item in store.list_objects(self._kept_in) if item.key.endswith(".json")]
        with ThreadPoolExecutor(_READERS, thread_name_prefix="alerts") as pool:
            found = pool.map(lambda name: _read(store, name)[0], names)
            return {record.alert.key: record for record in found if record is not None}

    def _object_key(self, key: str) -> str:
        return f"{self._kept_in}{key}.json"

    def _open(self) -> ObjectStore:
        if self._problem is not None and time.monotonic() - self._failed_at < STORE_PAUSE_S:
            raise self._problem
        if self._store is None:
            self._store = open_store(self._settings.store, self._settings.environment, hurried=True, kept=True)
        return self._store

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Record whether the store could be used."""
        try:
            yield
        except OpsError as error:
            if error is not self._problem:
                self._problem, self._failed_at = error, time.monotonic()
            raise
        self._problem = None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes of this machine from changing records during a `with` block."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            _log.warning("Alert records cannot be kept on this machine: %s", error)
            yield
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _copies(self) -> list[_Copy]:
        keys = [file.stem for file in self._folder.glob("*.json") if re.fullmatch(KEY, file.stem)]
        return [copy for copy in map(self._read_copy, keys) if copy is not None]

    def _read_copy(self, key: str) -> _Copy | None:
        try:
            return _Copy.model_validate_json((self._folder / f"{key}.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def _write_copy(self, copy: _Copy) -> None:
        """Write atomically. A full disk must not keep an alert from being sent."""
        file = self._folder / f"{copy.record.alert.key}.json"
        try:
            descriptor, temporary = tempfile.mkstemp(prefix=".writing-", dir=self._folder)
            with os.fdopen(descriptor, "wb") as output:
                output.write(_body(copy))
                output.flush()
                os.fsync(output.fileno())
            Path(temporary).replace(file)
        except OSError as error:
            _log.warning("The record of an alert could not be written on this machine: %s", error)


def _read(store: ObjectStore, object_key: str) -> tuple[AlertRecord | None, Condition]:
    """The store's record, and the condition for replacing it. An unreadable record counts as none."""
    try:
        body, head = get_single(store, object_key)
    except ObjectMissingError:
        return None, IfAbsent()
    try:
        return AlertRecord.model_validate_json(body), IfUnchanged(head.etag)
    except ValidationError:
        return None, IfUnchanged(head.etag)


def _body(facts: BaseModel) -> bytes:
    return facts.model_dump_json(indent=2).encode() + b"\n"
