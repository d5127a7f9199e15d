"""Where the last reading is kept between runs: in the store, so that every machine continues it, else at home."""

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
# Two runs within a minute (a person looking twice) must not shorten the window of the next scheduled run to seconds.
SHORTEST_WINDOW = timedelta(minutes=1)
# Growth over an hour says little about a day.
GROWTH_WINDOW = timedelta(days=1)


class Kept(BaseModel):
    """What is kept: the last reading, and of the last two days one each (oldest first), which growth is measured by."""

    model_config = ConfigDict(frozen=True)

    version: int = 1
    last: Counters
    days: tuple[Counters, ...] = ()


class Shelf(Protocol):
    """One small text, read and replaced."""

    @property
    def where(self) -> str:
        """In words."""
        ...

    def get(self) -> bytes | None:
        """The text, or None when there is none yet."""
        ...

    def put(self, text: bytes) -> None:
        """Replace it. Of two writers at once the last wins: either reading serves."""
        ...

    def beside(self, name: str) -> Shelf:
        """The shelf of another text, next to this one."""
        ...


@dataclass(frozen=True)
class StoreShelf:
    """In the backup store."""

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

    def beside(self, name: str) -> StoreShelf:
        return StoreShelf(self.store, f"{self.key.rpartition('/')[0]}/{name}")


@dataclass(frozen=True)
class HomeShelf:
    """Below TMI_OPS_HOME; a file for each environment."""

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

    def beside(self, name: str) -> HomeShelf:
        return HomeShelf(self.file.with_name(name))


def open_shelf(settings: Settings) -> Shelf:
    """The store's shelf; the one at home where no store is configured or it cannot be reached now.

    The counters name tables and indexes, and who writes them need not be able to decrypt: so they stay at home, too,
    where the store is encrypted.
    """
    if settings.store.age_recipients:
        return HomeShelf(settings.home / settings.environment / KEY)
    try:
        store = open_store(settings.store, settings.environment, hurried=True)
        return StoreShelf(store, f"{settings.own_folder}{KEY}")
    except StoreError:
        return HomeShelf(settings.home / settings.environment / KEY)


def recall(shelf: Shelf) -> Kept | None:
    """What was kept, or None: nothing yet, unreadable, or written by another version of tmi_ops."""
    try:
        text = shelf.get()
        return Kept.model_validate_json(text) if text else None
    except (StoreError, OSError, ValidationError):
        return None


def window(kept: Kept | None, current: Counters) -> Window:
    """The reading of now beside what was kept of the same database."""
    if kept is None or not comparable(kept.last, current):
        return Window(current)
    days = tuple(reading for reading in kept.days if comparable(reading, current))
    return Window(current, kept.last, days)


def next_kept(seen: Window) -> Kept | None:
    """What to keep for the next run, or None to leave what is kept as it is."""
    current, last, days = seen.current, seen.last, seen.days
    if last is None:
        return Kept(last=current, days=(current,))
    if current.taken_at - last.taken_at < SHORTEST_WINDOW:
        return None
    if not days or current.taken_at - days[-1].taken_at >= GROWTH_WINDOW:
        days = (*days, current)[-2:]
    return Kept(last=current, days=days)


def remember(shelf: Shelf, seen: Window) -> bool:
    """Keep the reading for the next run; False when it could not be kept."""
    kept = next_kept(seen)
    if kept is None:
        return True
    try:
        shelf.put(kept.model_dump_json().encode())
    except (StoreError, OSError):
        return False
    return True
