"""Chapters: copies of the metadata of many whole segments in one object, `wal/<system identifier>/links/...`.

With them, a check of the archive needs one request for `SEGMENTS` segments instead of one for each. A chapter is
derived data: it holds each segment's metadata with its own signature, and an entry counts only while a listing shows
the object it was made from (same ETag, size and time). A receiver writes a chapter after storing the last of its
segments; `wal gaps` writes those that it found missing. A missing or outdated chapter costs requests, but never changes
a result.
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
from tmi_ops.store.small_objects import look
from tmi_ops.wal.layout import LINKS_FOLDER, SUFFIX, cluster_folder, file_key

# 4 GiB of WAL with segments of 16 MiB.
SEGMENTS = 256
FORMAT_VERSION = 1
LIMITS = Limits(stored=2 << 20, plain=16 << 20)
_READERS = 8


class Told(BaseModel):
    """An object's metadata. `seen` identifies the object; see `seen_as`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    seen: str
    metadata: dict[str, str]


class Chapter(BaseModel):
    """The stored form of a chapter. `told` is by segment name."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: int = FORMAT_VERSION
    told: dict[str, Told] = Field(max_length=SEGMENTS)


@dataclass(frozen=True)
class ChapterPlace:
    """Identifies a chapter of a timeline. `number` counts from LSN 0."""

    timeline: int
    number: int

    def key(self, system_identifier: str) -> str:
        name = f"{self.timeline:08X}-{self.number:010X}{SUFFIX}"
        return f"{cluster_folder(system_identifier)}/{LINKS_FOLDER}/{name}"

    def segments(self, size: int) -> list[Segment]:
        """All its segments, in WAL order."""
        first = self.number * SEGMENTS * size
        return [Segment(self.timeline, first + number * size, size) for number in range(SEGMENTS)]


def place_of(segment: Segment) -> ChapterPlace:
    """The chapter that a segment belongs to."""
    return ChapterPlace(segment.timeline, segment.start // segment.size // SEGMENTS)


def ends_a_chapter(segment: Segment) -> bool:
    """Whether a segment is the last of its chapter."""
    return place_of(segment) != place_of(segment.next)


def parse_chapter(name: str, size: int) -> tuple[int, int, int] | None:
    """The timeline, start LSN and end LSN of a chapter by its name without `.zst`. None: not a chapter's name."""
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
    """Identify a version of an object. The time is in whole seconds: a HEAD request, unlike a listing, returns no
    fractions."""
    return f"{etag} {size} {int(modified.timestamp())}"


def read_chapters(
    store: ObjectStore, system_identifier: str, segments: Iterable[tuple[Segment, str]]
) -> dict[Segment, Mapping[str, str]]:
    """Read the metadata of segments from their chapters, leaving out segments whose entry is missing or outdated.

    Args:
        segments: each with its `seen_as` from a listing.

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
    """Read the metadata of a chapter's segments and write the chapter. Does nothing if a segment is missing.

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
    """Write a chapter from metadata that was just read. Does nothing if a segment is missing.

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
    """Write the chapters whose segments were all just read. Errors, such as a key that may not write, are ignored.

    Args:
        heads: the heads of the objects that were read.
        sound: the segments without a problem. Others are left out.
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
