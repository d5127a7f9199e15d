"""What the metadata of whole segments says, of many segments in one object: `wal/<system identifier>/links/...`.

So a check of the archive takes a request for `SEGMENTS` segments instead of one each. It is derived: each segment's
metadata stands in it with its own signature, and counts for an object only while a listing shows the one that was
looked at: the same ETag, size and time. A receiver writes a chapter when it has stored the last of its segments, `wal
gaps` when it has read one that was not there. One that is missing, or of which something changed, costs requests, no
truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tmi_ops.errors import OpsError
from tmi_ops.postgres.wal_files import Segment
from tmi_ops.store.backend import ObjectHead
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.packed import Limits, pack, read_packed, write_packed
from tmi_ops.store.single_put import look
from tmi_ops.wal.layout import LINKS_FOLDER, SUFFIX, cluster_folder, file_key

# 4 GiB of WAL with segments of 16 MiB.
SEGMENTS = 256
FORMAT_VERSION = 1
LIMITS = Limits(stored=2 << 20, plain=16 << 20)
_READERS = 8


class Told(BaseModel):
    """An object as it was looked at, and its metadata. `seen`: as `seen_as` says."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    seen: str
    metadata: dict[str, str]


class Chapter(BaseModel):
    """Of segments by their names."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: int = FORMAT_VERSION
    told: dict[str, Told] = Field(max_length=SEGMENTS)


@dataclass(frozen=True)
class ChapterPlace:
    """A timeline's chapter by its number, counted from LSN 0."""

    timeline: int
    number: int

    def key(self, system_identifier: str) -> str:
        name = f"{self.timeline:08X}-{self.number:010X}{SUFFIX}"
        return f"{cluster_folder(system_identifier)}/{LINKS_FOLDER}/{name}"

    def segments(self, size: int) -> list[Segment]:
        """All of it, in the order of the WAL."""
        first = self.number * SEGMENTS * size
        return [Segment(self.timeline, first + number * size, size) for number in range(SEGMENTS)]


def place_of(segment: Segment) -> ChapterPlace:
    """The chapter that tells of a segment."""
    return ChapterPlace(segment.timeline, segment.start // segment.size // SEGMENTS)


def ends_a_chapter(segment: Segment) -> bool:
    """Whether it is the last of its chapter."""
    return place_of(segment) != place_of(segment.next)


def parse_chapter(name: str, size: int) -> tuple[int, int, int] | None:
    """Timeline and LSNs of which an object of this name tells, without `.zst`; None: it is no chapter's name."""
    timeline, dash, number = name.partition("-")
    if not dash or len(timeline) != 8 or len(number) != 10:
        return None
    try:
        place = ChapterPlace(int(timeline, 16), int(number, 16))
    except ValueError:
        return None
    start = place.number * SEGMENTS * size
    return place.timeline, start, start + SEGMENTS * size


def seen_as(etag: str, size: int, modified: datetime) -> str:
    """By what an object is known again. A listing tells fractions of a second, a look at the object does not."""
    return f"{etag} {size} {int(modified.timestamp())}"


def read_chapters(
    store: ObjectStore, system_identifier: str, segments: Iterable[tuple[Segment, str]]
) -> dict[Segment, Mapping[str, str]]:
    """The metadata of those segments that are told of as they are now.

    Args:
        segments: each with how it is listed (`seen_as`).

    Raises:
        StoreError: the store failed.
    """
    wanted: dict[ChapterPlace, list[tuple[Segment, str]]] = {}
    for segment, seen in segments:
        wanted.setdefault(place_of(segment), []).append((segment, seen))
    folder = f"{cluster_folder(system_identifier)}/{LINKS_FOLDER}/"
    there = {item.key: item.etag for item in store.list_objects(folder)} if wanted else {}
    places = [place for place in wanted if place.key(system_identifier) in there]

    def read(place: ChapterPlace) -> Chapter | None:
        key = place.key(system_identifier)
        found = read_packed(store, key, there[key], LIMITS, _understood)
        return None if found is None else found[0]

    known: dict[Segment, Mapping[str, str]] = {}
    with ThreadPoolExecutor(_READERS, thread_name_prefix="chapters") as pool:
        for place, chapter in zip(places, pool.map(read, places), strict=True):
            told = {} if chapter is None else chapter.told
            for segment, seen in wanted[place]:
                one = told.get(segment.name)
                if one is not None and one.seen == seen:
                    known[segment] = one.metadata
    return known


def write_chapter(store: ObjectStore, system_identifier: str, place: ChapterPlace, size: int) -> None:
    """Look at every segment of a chapter and write it. Nothing, where it is not there whole.

    Raises:
        StoreError: the store failed, or our key may not write it.
    """
    keys = [file_key(system_identifier, segment.name) for segment in place.segments(size)]
    with ThreadPoolExecutor(_READERS, thread_name_prefix="chapter") as pool:
        heads = list(pool.map(lambda key: look(store, key), keys))
    found = {segment: head for segment, head in zip(place.segments(size), heads, strict=True) if head is not None}
    put_chapter(store, system_identifier, place, found)


def put_chapter(
    store: ObjectStore, system_identifier: str, place: ChapterPlace, heads: Mapping[Segment, ObjectHead]
) -> None:
    """Write a chapter whose objects were just looked at. Nothing, where some are missing.

    Raises:
        StoreError: as `write_chapter`.
    """
    if len(heads) < SEGMENTS:
        return
    told = {
        segment.name: Told(seen=seen_as(head.etag, head.size, head.modified), metadata=dict(head.metadata))
        for segment, head in heads.items()
    }
    key = place.key(system_identifier)
    before = look(store, key)
    data = pack(Chapter(told=told).model_dump_json().encode())
    write_packed(store, key, data, None if before is None else before.etag)


def keep_chapters(
    store: ObjectStore, system_identifier: str, heads: Mapping[Segment, ObjectHead], sound: Iterable[Segment]
) -> None:
    """Write the chapters all of whose segments were just looked at, or told of; whoever may not write does not.

    Args:
        heads: of those that were looked at.
        sound: segments that are as they must be.
    """
    by_place: dict[ChapterPlace, dict[Segment, ObjectHead]] = {}
    good = set(sound)
    for segment, head in heads.items():
        if segment in good:
            by_place.setdefault(place_of(segment), {})[segment] = head
    for place, found in by_place.items():
        with suppress(OpsError):
            put_chapter(store, system_identifier, place, found)


def _understood(plain: bytes) -> Chapter | None:
    try:
        chapter = Chapter.model_validate_json(plain)
    except ValidationError:
        return None
    return chapter if chapter.format_version == FORMAT_VERSION else None
