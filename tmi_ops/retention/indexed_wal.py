"""The WAL of a cluster from its index, for a plan that is only shown: a few requests, however large the archive is.

The index says which whole segments exist and their total size, but not when each was stored. WAL is stored in order, so
a few requests find the segment at which the recovery window begins. A segment that filled a gap later counts as stored
with its neighbours, and superseded pieces of indexed segments are not seen. To remove anything, every object is listed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from tmi_ops.retention.facts import WalFile
from tmi_ops.store.objects import ListedObject, ObjectStore
from tmi_ops.store.small_objects import look
from tmi_ops.wal.index import WalIndex, begins_as_told, listed_behind, read_index
from tmi_ops.wal.layout import cluster_folder, file_key, index_key
from tmi_ops.wal.runs import Segments

# Segments are uploaded in parallel, and one put may be retried for some time.
_AT_ONCE = timedelta(hours=1)


class NotByIndexError(Exception):
    """The index does not match the archive, so everything must be listed."""


def wal_by_index(
    store: ObjectStore, cluster: str, size: int, since: datetime
) -> tuple[list[ListedObject], list[WalFile]] | None:
    """The objects listed in addition to the index, and the segments in the index. None: there is no usable index.

    Args:
        size: the size of a segment in bytes.
        since: the `stored_at` of the segments is only exact enough to tell whether it is before this time.

    Raises:
        StoreError: the store failed.
    """
    folder = cluster_folder(cluster)
    top, folders = store.list_level(folder)
    etag = next((item.etag for item in top if item.key == index_key(cluster)), "")
    found = read_index(store, cluster, etag) if etag else None
    if found is None or found[0].segment_size != size or not begins_as_told(store, cluster, found[0]):
        return None
    index = found[0]
    tail = listed_behind(store, cluster, folders, index)
    if tail is None:
        return None
    timelines = {run.timeline for run in index.runs}
    try:
        files = [file for timeline in sorted(timelines) for file in _files(store, cluster, index, timeline, since)]
    except NotByIndexError:
        return None
    return [*top, *tail], files


def _files(store: ObjectStore, cluster: str, index: WalIndex, timeline: int, since: datetime) -> Iterator[WalFile]:
    runs = index.of(timeline)
    segments = Segments(runs)

    def stored_at(number: int) -> datetime:
        head = look(store, file_key(cluster, segments[number].name))
        if head is None:
            raise NotByIndexError
        return head.modified

    times = times_around(len(segments), stored_at, since)
    asked = sorted(times)
    number = 0
    for run in runs:
        share, rest = divmod(run.size, run.count)
        for place in range(run.count):
            segment = run.segment(place)
            at = times[asked[bisect_right(asked, number) - 1]]
            size = share + (rest if place == 0 else 0)
            yield WalFile(file_key(cluster, segment.name), size, at, timeline, segment.start, segment.end)
            number += 1


def times_around(count: int, stored_at: Callable[[int], datetime], since: datetime) -> dict[int, datetime]:
    """When some of `count` files were stored, by their numbers: the first, the last, the two around `since`, and the
    others that had to be read to find these.

    Args:
        stored_at: reads when one file was stored; called as rarely as possible.

    Raises:
        NotByIndexError: they were not stored in order, as in a copied bucket.
    """
    times = {number: stored_at(number) for number in {0, count - 1}}
    low, high = 0, count - 1
    while high - low > 1 and times[low] < since <= times[high]:
        # Interpolate and halve in turn, because the times may not grow evenly.
        share = (since - times[low]) / (times[high] - times[low]) if len(times) % 2 == 0 else 0.5
        middle = min(high - 1, max(low + 1, low + round(share * (high - low))))
        times[middle] = stored_at(middle)
        if not times[low] - _AT_ONCE <= times[middle] <= times[high] + _AT_ONCE:
            raise NotByIndexError
        low, high = (middle, high) if times[middle] < since else (low, middle)
    if times[0] > times[count - 1] + _AT_ONCE:
        raise NotByIndexError
    return times
