"""Takes stock of the store: one listing of everything, by several readers, and then only what must be opened.

A listing answers most: what each kind takes, which backups are committed, and where their newest verdict lies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tmi_ops.errors import OpsError
from tmi_ops.objectives.facts import Usage
from tmi_ops.store.catalogue import (
    MANIFEST,
    READERS,
    CatalogueEntry,
    is_verdict,
    read_manifest,
    read_newest_verdict,
)
from tmi_ops.store.manifest import BrokenRecordError, Kind
from tmi_ops.store.objects import ListedObject, ObjectStore
from tmi_ops.wal.layout import WAL

LISTERS = 6
DAY, WEEK = timedelta(days=1), timedelta(days=7)
OTHER = "other"


@dataclass
class Listing:
    """Everything in the store. `backups`: by kind and id, the key of the newest verdict, None without one; committed
    ones only. `wal`: by cluster. `others`: keys of everything else."""

    usage: dict[str, Usage] = field(default_factory=dict)
    backups: dict[str, dict[str, str | None]] = field(default_factory=dict)
    wal: dict[str, list[ListedObject]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


def list_store(store: ObjectStore, now: datetime) -> Listing:
    """List all of it.

    Raises:
        StoreError: the store failed.
    """
    folders = store.list_folders("")
    with ThreadPoolExecutor(LISTERS, thread_name_prefix="stock") as pool:
        parts = list(pool.map(lambda folder: (folder, list(store.list_objects(f"{folder}/"))), folders))
    listing = Listing()
    for folder, objects in parts:
        kind = folder if folder in ("logical", "base", WAL) else OTHER
        listing.usage[kind] = _added(listing.usage.get(kind, Usage()), objects, now)
        if kind == WAL:
            for item in objects:
                listing.wal.setdefault(item.key.split("/")[1], []).append(item)
        elif kind == OTHER:
            listing.others += [item.key for item in objects]
        else:
            listing.backups[kind] = _committed(objects)
    return listing


def read_entries(
    store: ObjectStore, listing: Listing, kind: Kind, on_broken: Callable[[OpsError], object]
) -> Iterator[CatalogueEntry]:
    """The committed backups of a kind, newest first, with their newest verdict; a few are read ahead.

    Args:
        on_broken: told of each manifest or verdict that cannot be read.

    Raises:
        StoreError: the store failed.
    """
    found = listing.backups.get(kind, {})
    ids = sorted(found, reverse=True)
    with ThreadPoolExecutor(READERS, thread_name_prefix="stock") as pool:
        for begin in range(0, len(ids), READERS):
            batch = ids[begin : begin + READERS]
            for entry, broken in pool.map(lambda backup_id: _entry(store, backup_id, found[backup_id]), batch):
                if broken is not None:
                    on_broken(broken)
                if entry is not None:
                    yield entry


def _entry(
    store: ObjectStore, backup_id: str, verdict_key: str | None
) -> tuple[CatalogueEntry | None, OpsError | None]:
    try:
        manifest = read_manifest(store, backup_id)
    except BrokenRecordError as error:
        return None, error
    if verdict_key is None:
        return CatalogueEntry(manifest, None), None
    try:
        return CatalogueEntry(manifest, read_newest_verdict(store, manifest, [verdict_key])), None
    except BrokenRecordError as error:
        return CatalogueEntry(manifest, None), error


def _committed(objects: Sequence[ListedObject]) -> dict[str, str | None]:
    committed: set[str] = set()
    verdicts: dict[str, str] = {}
    for item in objects:
        _, backup_id, *rest = item.key.split("/", 2)
        if rest == [MANIFEST]:
            committed.add(backup_id)
        elif rest and is_verdict(rest[0]):
            verdicts[backup_id] = max(item.key, verdicts.get(backup_id, ""))
    return {backup_id: verdicts.get(backup_id) for backup_id in committed}


def _added(usage: Usage, objects: Iterable[ListedObject], now: datetime) -> Usage:
    count, size, day, week = usage.objects, usage.size, usage.added_day, usage.added_week
    for item in objects:
        count, size = count + 1, size + item.size
        if now - item.modified <= WEEK:
            week += item.size
            day += item.size if now - item.modified <= DAY else 0
    return Usage(count, size, day, week)


def total_of(usage: Mapping[str, Usage]) -> Usage:
    """All kinds together."""
    return Usage(
        sum(item.objects for item in usage.values()),
        sum(item.size for item in usage.values()),
        sum(item.added_day for item in usage.values()),
        sum(item.added_week for item in usage.values()),
    )
