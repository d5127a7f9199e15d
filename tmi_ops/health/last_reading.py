"""Keeps the last reading between runs: in the store, where every machine finds it, else below TMI_OPS_HOME."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from tmi_ops.errors import ObjectMissingError, StoreError
from tmi_ops.health.counters import Counters, Window, comparable
from tmi_ops.settings import Settings
from tmi_ops.store.objects import ObjectStore, open_store

KEY = "health/last-reading.json"
# Two runs within a minute (a person looks twice) must not shorten the window of the next scheduled run to seconds.
SHORTEST_WINDOW = timedelta(minutes=1)
# Growth over an hour says little about a day.
GROWTH_WINDOW = timedelta(days=1)


class Kept(BaseModel):
    """The stored readings: the last one, and one of each of the last two days (oldest first), for growth."""

    model_config = ConfigDict(frozen=True)

    version: int = 1
    last: Counters
    days: tuple[Counters, ...] = ()


class SavedText(Protocol):
    """One small text that is read and replaced as a unit."""

    @property
    def where(self) -> str:
        """The place, for people."""
        ...

    def get(self) -> bytes | None:
        """The text; None if there is none yet."""
        ...

    def put(self, text: bytes) -> None:
        """Replace it. Of two concurrent writers the last wins: either reading will do."""
        ...

    def beside(self, name: str) -> SavedText:
        """Another text in the same place."""
        ...


@dataclass(frozen=True)
class SavedObject:
    """An object of the backup store."""

    store: ObjectStore
    key: str = KEY

    @property
    def where(self) -> str:
        return f"{self.store.where}: {self.key}"

    def get(self) -> bytes | None:
        try:
            return self.store.get_bytes(self.key)
        except ObjectMissingError:
            return None

    def put(self, text: bytes) -> None:
        self.store.put_bytes(self.key, text)

    def beside(self, name: str) -> SavedObject:
        return SavedObject(self.store, f"{self.key.rpartition('/')[0]}/{name}")


@dataclass(frozen=True)
class SavedFile:
    """A file below TMI_OPS_HOME, one for each environment."""

    file: Path

    @property
    def where(self) -> str:
        return str(self.file)

    def get(self) -> bytes | None:
        return self.file.read_bytes() if self.file.is_file() else None

    def put(self, text: bytes) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.file.with_suffix(".new")
        unfinished.write_bytes(text)
        unfinished.replace(self.file)

    def beside(self, name: str) -> SavedFile:
        return SavedFile(self.file.with_name(name))


def open_saved_text(settings: Settings) -> SavedText:
    """The store; TMI_OPS_HOME where no store is configured, it cannot be reached, or it is encrypted.

    The counters name tables and indexes, so they must not be in an encrypted store in the clear, and the machine that
    writes them may lack the key to read them back.
    """
    if settings.store.age_recipients:
        return SavedFile(settings.home / settings.environment / KEY)
    try:
        store = open_store(settings.store, settings.environment, hurried=True)
        return SavedObject(store, f"{settings.own_folder}{KEY}")
    except StoreError:
        return SavedFile(settings.home / settings.environment / KEY)


def recall(saved: SavedText) -> Kept | None:
    """The stored readings; None: nothing yet, unreadable, or written by another version of tmi_ops."""
    try:
        text = saved.get()
        return Kept.model_validate_json(text) if text else None
    except (StoreError, OSError, ValidationError):
        return None


def window(kept: Kept | None, current: Counters) -> Window:
    """The current reading together with the stored ones of the same database."""
    if kept is None or not comparable(kept.last, current):
        return Window(current)
    days = tuple(reading for reading in kept.days if comparable(reading, current))
    return Window(current, kept.last, days)


def next_kept(seen: Window) -> Kept | None:
    """What to store for the next run; None: leave what is stored."""
    current, last, days = seen.current, seen.last, seen.days
    if last is None:
        return Kept(last=current, days=(current,))
    if current.taken_at - last.taken_at < SHORTEST_WINDOW:
        return None
    if not days or current.taken_at - days[-1].taken_at >= GROWTH_WINDOW:
        days = (*days, current)[-2:]
    return Kept(last=current, days=days)


def remember(saved: SavedText, seen: Window) -> bool:
    """Store the reading for the next run; False if it could not be stored."""
    kept = next_kept(seen)
    if kept is None:
        return True
    try:
        saved.put(kept.model_dump_json().encode())
    except (StoreError, OSError):
        return False
    return True
