"""Reads from the archive when a line committed, from a few segments after the fork of two lines and at their ends.
A newest commit comes from the object's metadata if it is there, otherwise from the WAL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from tmi_ops.errors import OpsError
from tmi_ops.postgres.wal_files import TimelineSwitch
from tmi_ops.postgres.wal_records import all_commits
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.small_objects import look
from tmi_ops.wal.archive import WalArchive
from tmi_ops.wal.coverage import WalFile, coverage
from tmi_ops.wal.fetching import load_file
from tmi_ops.wal.layout import file_key
from tmi_ops.wal.lineage import Lineage
from tmi_ops.wal.lines import Commits, Tip, lines_of, living, parting
from tmi_ops.wal.links import links_of

# A server with any work commits within this many segments.
SEGMENTS_LOOKED_AT = 6


def living_lines(
    store: ObjectStore,
    archive: WalArchive,
    histories: Mapping[int, Sequence[TimelineSwitch]],
    bases_begin: Mapping[int, int] | None = None,
) -> tuple[Tip, ...]:
    """The lines that are not abandoned, with the newest commit of each if the archive has several lines. See
    `lines.living`.

    Raises:
        StoreError: the store failed.
    """
    lines = lines_of(archive, histories, bases_begin)
    if len(lines) < 2:
        return tuple(Tip(line, coverage(archive, line).known_end or 0) for line in lines)
    commits = {
        (one.timelines[-1], other.timelines[-1]): _commits_after(store, archive, one, parting(one, other))
        for one in lines
        for other in lines
        if one is not other
    }
    tips = []
    for line in lines:
        own = [found.newest for (timeline, _), found in commits.items() if timeline == line.timelines[-1]]
        newest = max((at for at in own if at is not None), default=None)
        tips.append(Tip(line, coverage(archive, line).known_end or 0, newest))
    return living(tips, commits, archive.followed)


def _commits_after(store: ObjectStore, archive: WalArchive, line: Lineage, lsn: int) -> Commits:
    """The first and newest commit of a line from `lsn` on. Only segments near that LSN and near the end are read."""
    files = [file for file in coverage(archive, line).files if file.segment.end > lsn]
    try:
        first = _first(store, archive, files[:SEGMENTS_LOOKED_AT], lsn)
        newest = _newest(store, archive, files[: -SEGMENTS_LOOKED_AT - 1 : -1], lsn)
    except OpsError as error:
        if error.transient:
            raise
        return Commits(readable=False)  # damaged, or encrypted without the key at hand
    if first is None and newest is None and len(files) > 2 * SEGMENTS_LOOKED_AT:
        return Commits(readable=False)  # any commits are in segments that were not read
    return Commits(first if first is not None else newest, newest if newest is not None else first)


def _first(store: ObjectStore, archive: WalArchive, files: Iterable[WalFile], lsn: int) -> datetime | None:
    for file in files:
        if found := _commits_in(store, archive, file, lsn):
            return found[0]
    return None


def _newest(store: ObjectStore, archive: WalArchive, files: Iterable[WalFile], lsn: int) -> datetime | None:
    for file in files:
        if file.segment.start >= lsn and file.cut is None and file.stored == file.segment.name:
            head = look(store, file_key(archive.system_identifier, file.stored))
            told = None if head is None else links_of(head.metadata).last_commit
            if told is not None:
                return told
        if found := _commits_in(store, archive, file, lsn):
            return found[-1]
    return None


def _commits_in(store: ObjectStore, archive: WalArchive, file: WalFile, lsn: int) -> list[datetime]:
    content, facts = load_file(store, archive.system_identifier, file.stored)
    end = facts_end = facts.end_lsn
    if file.cut is not None:
        end = file.cut if facts_end is None else min(facts_end, file.cut)
    return [at for record, at in all_commits(content, end) if record >= lsn]
