"""Which WAL is needed to make kept base backups consistent and to recover to every moment of the recovery window.

1. Each timeline that was written to within the window needs an anchor: the newest verified base backup on its line that
   was taken before the window began. The clusters with the last write, now and when the window began, also need one for
   their highest timeline and for the timeline with the last write before the window.
2. The anchor with its chain is needed, and all WAL on its line from the start of the anchor on.
3. If there is no such base backup, or the history of a timeline is not known, all WAL and all base backups of the
   cluster are needed.
LSNs of different timelines are never compared: after a recovery into the past, the newest WAL may have a lower LSN.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tmi_ops.retention.facts import Backup, ClusterWal, RetentionFacts, WalFile
from tmi_ops.wal.lineage import FIRST_TIMELINE, Lineage, lineage

# When something of a timeline was stored.
_Write = tuple[datetime, int]
_ORIGINAL = lineage(FIRST_TIMELINE, ())


@dataclass(frozen=True)
class Range:
    """WAL of a timeline that is needed, from LSN `start` to LSN `end`. `end` None: to the end of the timeline."""

    timeline: int
    start: int
    end: int | None

    def meets(self, file: WalFile) -> bool:
        return file.timeline == self.timeline and file.end > self.start and (self.end is None or file.start < self.end)


@dataclass(frozen=True)
class WindowNeed:
    """What the recovery window needs of one cluster. `whole_because`: why all its WAL and base backups are kept."""

    anchors: tuple[Backup, ...] = ()
    ranges: tuple[Range, ...] = ()
    whole_because: str | None = None


def window_needs(facts: RetentionFacts, cutoff: datetime) -> dict[str, WindowNeed]:
    """What the recovery window that began at `cutoff` needs, by cluster."""
    bases: dict[str, list[Backup]] = defaultdict(list)
    for backup in facts.backups:
        if backup.kind == "base":
            bases[backup.system_identifier].append(backup)
    writes = {wal.system_identifier: _writes(wal, bases[wal.system_identifier]) for wal in facts.wal}
    current = {_latest(writes, until=cutoff), _latest(writes, until=None)}
    return {
        wal.system_identifier: _cluster_need(
            wal,
            bases[wal.system_identifier],
            writes[wal.system_identifier],
            cutoff,
            is_current=wal.system_identifier in current,
        )
        for wal in facts.wal
    }


def _cluster_need(
    wal: ClusterWal, bases: Sequence[Backup], writes: Sequence[_Write], cutoff: datetime, *, is_current: bool
) -> WindowNeed:
    """`is_current`: whether this cluster has the last write of all clusters, now or when the window began."""
    timelines = {timeline for _, timeline in writes}
    unknown = sorted(timelines - set(wal.lines) - {FIRST_TIMELINE})
    if unknown:
        because = f"the history of timeline {unknown[0]} is not archived, or cannot be read without the private key"
        return WindowNeed(whole_because=because)
    needed = {timeline for stored_at, timeline in writes if stored_at >= cutoff}
    if is_current and timelines:
        before = [write for write in writes if write[0] < cutoff]
        needed |= {max(timelines), *([max(before)[1]] if before else [])}
    anchors, ranges = [], []
    for timeline in sorted(needed):
        line = wal.lines.get(timeline, _ORIGINAL)
        anchor = _anchor(bases, line, cutoff)
        if anchor is None:
            because = f"no verified base backup older than the window leads to timeline {timeline}"
            return WindowNeed(whole_because=because)
        anchors.append(anchor)
        ranges += [Range(item.timeline, item.start, item.end) for item in line.from_lsn(anchor.start_lsn)]
    return WindowNeed(tuple(dict.fromkeys(anchors)), tuple(ranges))


def _writes(wal: ClusterWal, bases: Sequence[Backup]) -> list[_Write]:
    stored = [(file.stored_at, file.timeline) for file in wal.files]
    return stored + [(base.taken_at, base.timeline) for base in bases]


def _latest(writes: Mapping[str, Sequence[_Write]], until: datetime | None) -> str | None:
    """The cluster with the last write, optionally before `until`."""
    last = {
        cluster: max((at for at, _ in some if until is None or at < until), default=None)
        for cluster, some in writes.items()
    }
    return max(((at, cluster) for cluster, at in last.items() if at is not None), default=(None, None))[1]


def own_wal(base: Backup) -> Range:
    """The WAL that makes a base backup consistent."""
    return Range(base.timeline, base.start_lsn, base.stop_lsn)


def _anchor(bases: Sequence[Backup], line: Lineage, cutoff: datetime) -> Backup | None:
    ends = {item.timeline: item.end for item in line.stretches}
    known = {base.backup_id for base in bases}
    failed = {base.backup_id for base in bases if base.verification == "failed"}
    usable = []
    for base in bases:
        end = ends.get(base.timeline, -1)
        links = {*base.chain, base.backup_id}
        is_on_line = end is None or base.stop_lsn <= end
        if (
            is_on_line
            and base.verification == "proven"
            and base.taken_at <= cutoff
            and links <= known
            and not links & failed
        ):
            usable.append(base)
    return max(usable, key=lambda base: (base.start_lsn, base.taken_at), default=None)
