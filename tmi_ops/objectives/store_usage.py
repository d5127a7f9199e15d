"""The backups in the store, from the catalogue, and the space that each kind takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from tmi_ops.errors import OpsError
from tmi_ops.objectives.facts import Usage
from tmi_ops.store import catalogue
from tmi_ops.store.catalogue import CatalogueEntry
from tmi_ops.store.manifest import KINDS, Kind
from tmi_ops.store.objects import ListedObject, ObjectStore
from tmi_ops.store.overview import Overview
from tmi_ops.store.stored_catalogue import CATALOGUE_FOLDER
from tmi_ops.wal.archive import Stored
from tmi_ops.wal.layout import WAL

LISTERS = 6
DAY, WEEK = timedelta(days=1), timedelta(days=7)
OTHER = "other"


def read_entries(
    store: ObjectStore, view: Overview, kind: Kind, on_broken: Callable[[OpsError], object]
) -> Iterator[CatalogueEntry]:
    """The committed backups of a kind, newest first, with their newest verification.

    Args:
        on_broken: called with the error for each record that cannot be read.

    Raises:
        StoreError: the store failed.
    """
    folders = (folder for folder in reversed(view.committed) if folder.kind == kind)
    for entry, broken in catalogue.read_entries(store, view, folders):
        if broken is not None:
            on_broken(broken)
        if entry is not None:
            yield entry


def usage_of(view: Overview, wal: Iterable[Stored], now: datetime) -> dict[str, Usage]:
    """The space of backups and WAL by kind. A backup is as old as its newest object."""
    usage: dict[str, Usage] = {}
    for kind in KINDS:
        folders = [one for one in view.folders.values() if one.kind == kind]
        if folders:
            usage[kind] = _added([(one.objects, one.size, one.touched_at) for one in folders], now)
    archives = list(wal)
    if any(one.objects for one in archives):
        usage[WAL] = Usage(
            sum(one.objects for one in archives),
            sum(one.size for one in archives),
            sum(one.day for one in archives),
            sum(one.week for one in archives),
        )
    return usage


def other_usage(store: ObjectStore, now: datetime) -> Usage:
    """The space of everything else.

    Raises:
        StoreError: the store failed.
    """
    folders = [name for name in store.list_folders("") if name not in (*KINDS, WAL, CATALOGUE_FOLDER)]

    def listed(folder: str) -> list[ListedObject]:
        return list(store.list_objects(f"{folder}/"))

    with ThreadPoolExecutor(LISTERS, thread_name_prefix="stock") as pool:
        found = [item for part in pool.map(listed, folders) for item in part]
    return _added([(1, item.size, item.modified) for item in found], now)


def total_of(usage: Mapping[str, Usage]) -> Usage:
    """All kinds together."""
    return Usage(
        sum(item.objects for item in usage.values()),
        sum(item.size for item in usage.values()),
        sum(item.added_day for item in usage.values()),
        sum(item.added_week for item in usage.values()),
    )


def oldest_named(view: Overview) -> datetime | None:
    """When the oldest backup was started, by its id."""
    oldest = min((folder.backup_id[:16] for folder in view.committed), default=None)
    try:
        return None if oldest is None else datetime.strptime(oldest, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _added(parts: Iterable[tuple[int, int, datetime]], now: datetime) -> Usage:
    """The usage of parts, each given as its number of objects, its bytes and when it was stored."""
    count = size = day = week = 0
    for objects, bytes_, at in parts:
        count, size = count + objects, size + bytes_
        week += bytes_ if now - at <= WEEK else 0
        day += bytes_ if now - at <= DAY else 0
    return Usage(count, size, day, week)
