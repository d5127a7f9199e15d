"""A listing is no moment: what came while it was read is not called a hole."""

from __future__ import annotations

from tmi_ops.postgres.wal_files import PARTIAL_SUFFIX, Segment
from tmi_ops.settings import Settings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.wal.archive import IN_FLIGHT, archive_of, missing_near_the_end
from tmi_ops.wal.description import describe_archive
from tmi_ops.wal.layout import cluster_folder, file_key

SIZE = 16 << 20
SYSTEM = "7000000000000000001"


def segment(number: int, timeline: int = 1) -> Segment:
    return Segment(timeline, number * SIZE, SIZE)


def test_only_what_is_absent_close_to_the_end_may_be_on_its_way() -> None:
    there = [segment(1), *(segment(number) for number in range(40, 60)), segment(61), segment(63)]
    assert missing_near_the_end(there) == [segment(60), segment(62)]
    assert missing_near_the_end([segment(1), segment(100)]) == [segment(n) for n in range(100 - IN_FLIGHT, 100)]
    assert missing_near_the_end([]) == []
    assert missing_near_the_end([segment(5), segment(9, timeline=2)]) == []


def _put(store: ObjectStore, name: str) -> None:
    store.put(file_key(SYSTEM, name), b"x", {})


def test_a_segment_that_came_behind_the_listing_is_found(settings: Settings) -> None:
    store = open_store(settings.store, settings.environment)
    describe_archive(store, SYSTEM, SIZE)
    for number in (1, 2):
        _put(store, segment(number).name)
    _put(store, f"{segment(3).name}{PARTIAL_SUFFIX}")
    listed = list(store.list_objects(f"{cluster_folder(SYSTEM)}/"))
    # Meanwhile the receiver closes the open segment and begins two more.
    for number in (3, 4):
        _put(store, segment(number).name)
    store.delete([file_key(SYSTEM, f"{segment(3).name}{PARTIAL_SUFFIX}")])
    _put(store, segment(5).name)
    late = [item for item in store.list_objects(f"{cluster_folder(SYSTEM)}/") if segment(5).name in item.key]
    archive = archive_of(store, SYSTEM, [*listed, *late])
    assert [item.segment for item in archive.segments[1]] == [segment(number) for number in (1, 2, 3, 4, 5)]
    assert archive.partials == {}


def test_a_hole_stays_a_hole(settings: Settings) -> None:
    store = open_store(settings.store, settings.environment)
    describe_archive(store, SYSTEM, SIZE)
    for number in (1, 2, 4):
        _put(store, segment(number).name)
    archive = archive_of(store, SYSTEM, store.list_objects(f"{cluster_folder(SYSTEM)}/"))
    assert [item.segment for item in archive.segments[1]] == [segment(number) for number in (1, 2, 4)]
