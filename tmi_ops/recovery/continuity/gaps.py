"""Follows the WAL from each base backup to the newest LSN, and finds gaps. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.recovery.point_in_time.facts import RecoveryFacts
from tmi_ops.recovery.point_in_time.planning import bases_on, choose_line, why_unusable
from tmi_ops.recovery.point_in_time.wal_range import continued_at, wal_after
from tmi_ops.retention.wal_need import WindowNeed
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.wal.archive import WalArchive
from tmi_ops.wal.breaks import Break
from tmi_ops.wal.coverage import Hole, coverage
from tmi_ops.wal.lineage import Lineage
from tmi_ops.wal.lines import Tip, followed_line, line_to
from tmi_ops.wal.links import Links, unlinked


@dataclass(frozen=True)
class BaseContinuity:
    """How far recovery can go from one base backup.

    Args:
        timeline: the newest timeline that comes from the base backup; the one that is followed.
        reaches: LSN up to which the WAL has no gap.
        newest: LSN at which the archived WAL of that line ends, ignoring gaps.
        holes: gaps between the base backup and `newest`, where retention keeps WAL.
        dropped: retention removed WAL after it, so it can be restored to its own end, or a little further.
        breaks: places between them that no replay gets past.
        broken: why the base backup cannot be used, or its line cannot be followed; None if it can.
    """

    base: BaseManifest
    timeline: int
    reaches: int
    newest: int
    holes: tuple[Hole, ...]
    broken: str | None = None
    breaks: tuple[Break, ...] = ()
    dropped: bool = False

    @property
    def whole(self) -> bool:
        """Whether it leads everywhere that retention promises."""
        return not self.holes and not self.breaks and self.broken is None


@dataclass(frozen=True)
class Continuity:
    """The state of one cluster's archive.

    Args:
        timeline: the newest one; None if its origin is unknown.
        bases: newest first.
        damaged: names of damaged files, and why.
        lost: other problems, one sentence each.
        living: the lines that live.
    """

    archive: WalArchive
    timeline: int | None
    bases: tuple[BaseContinuity, ...]
    damaged: Mapping[str, str]
    lost: tuple[str, ...]
    living: tuple[Tip, ...] = ()

    @property
    def holes(self) -> tuple[Hole, ...]:
        """Without duplicates, in WAL order."""
        found = {(hole.timeline, hole.start, hole.end): hole for base in self.bases for hole in base.holes}
        return tuple(hole for _, hole in sorted(found.items()))

    @property
    def breaks(self) -> tuple[Break, ...]:
        """Without duplicates, in WAL order."""
        return tuple(sorted({item for base in self.bases for item in base.breaks}))

    @property
    def whole(self) -> bool:
        """Whether every base backup leads everywhere that retention promises, on one line."""
        return all(base.whole for base in self.bases) and not self.damaged and not self.lost and len(self.living) < 2

    @property
    def newest_is_reachable(self) -> bool:
        """Whether at least one base backup of the newest timeline leads to the newest LSN."""
        return any(
            base.broken is None and base.timeline == self.timeline and base.reaches >= base.newest
            for base in self.bases
        )


def check_continuity(
    facts: RecoveryFacts,
    damaged: Mapping[str, str],
    links: Mapping[str, tuple[Links, str | None]] | None = None,
    need: WindowNeed | None = None,
) -> Continuity:
    """Follow the WAL from every base backup.

    Args:
        damaged: names of files in the archive that cannot be used, and why.
        links: how each file, by name, continues the one before it, with the SHA-256 of its bytes; None: not read.
        need: the WAL that retention keeps; None for all of it.
    """
    sound = replace(facts, archive=without(facts.archive, damaged))
    breaks = {*facts.archive.breaks, *_unlinked(sound, links or {})}
    sound = replace(sound, archive=replace(sound.archive, breaks=tuple(sorted(breaks))))
    bases = sorted(facts.bases, key=lambda base: base.consistent_at, reverse=True)
    lost = [*facts.broken, *facts.histories_lost.values()]
    try:
        timeline: int | None = choose_line(sound, None).timelines[-1]
    except RecoveryError as error:
        timeline = None
        lost.append(error.message)
    candidates = _candidates(sound)
    return Continuity(
        archive=facts.archive,
        timeline=timeline,
        bases=tuple(_follow(sound, base, candidates, need) for base in bases),
        damaged=damaged,
        lost=tuple(dict.fromkeys(lost)),
        living=facts.living,
    )


def _unlinked(facts: RecoveryFacts, links: Mapping[str, tuple[Links, str | None]]) -> set[Break]:
    """Places where the WAL of a line that lives does not continue the WAL before it."""
    found = set()
    for tip in facts.living:
        files = coverage(facts.archive, tip.line).files
        chain = [(file.segment, *links[file.stored]) for file in files if file.stored in links]
        found |= {Break(segment.timeline, segment.start, "unlinked") for segment in unlinked(chain)}
    return found


def _is_promised(hole: Hole, need: WindowNeed | None) -> bool:
    if need is None or need.whole_because is not None:
        return True
    return any(
        item.timeline == hole.timeline and item.start < hole.end and (item.end is None or hole.start < item.end)
        for item in need.ranges
    )


def without(archive: WalArchive, names: Mapping[str, str]) -> WalArchive:
    """The archive without these files."""
    if not names:
        return archive
    return replace(
        archive,
        segments={
            timeline: tuple(item for item in group if item.name not in names)
            for timeline, group in archive.segments.items()
        },
        partials={
            timeline: tuple(item for item in group if item.name not in names)
            for timeline, group in archive.partials.items()
        },
    )


def _follow(
    facts: RecoveryFacts, base: BaseManifest, candidates: Sequence[_Candidate], need: WindowNeed | None
) -> BaseContinuity:
    stop = parse_lsn(base.stop_lsn)
    line = _newest_line_from(base, candidates)
    if line is None:
        why = f"The origin of timeline {base.timeline} is unknown: its history is not in the archive."
        return BaseContinuity(base, base.timeline, stop, stop, (), why)
    wal = wal_after(base, line, facts.archive)
    covered, begins = coverage(facts.archive, line), continued_at(base, line)
    all_holes = covered.holes(begins)
    holes = tuple(hole for hole in all_holes if _is_promised(hole, need))
    return BaseContinuity(
        base=base,
        timeline=line.timelines[-1],
        reaches=wal.end,
        newest=max(wal.end, covered.known_end or 0),
        holes=holes,
        broken=why_unusable(facts, base),
        breaks=covered.breaks_after(begins),
        dropped=len(holes) < len(all_holes),
    )


@dataclass(frozen=True)
class _Candidate:
    """A line that a recovery could follow, with the ids of the bases on it.

    `timeline`: the one that only a base backup speaks of, of which no WAL and no history is left; None otherwise.
    """

    line: Lineage
    bases: frozenset[str]
    timeline: int | None = None


def _candidates(facts: RecoveryFacts) -> tuple[_Candidate, ...]:
    """The lines that live, the followed one first; then every line, the newest first."""
    known = {*facts.archive.timelines, *facts.histories}
    followed = [followed_line(facts.living, facts.archive.followed).line] if facts.living else []
    lines: dict[Lineage, int | None] = dict.fromkeys((*followed, *(tip.line for tip in reversed(facts.living))))
    for timeline in sorted({*known, *facts.bases_begin}, reverse=True):
        line = line_to(timeline, facts.histories, facts.bases_begin)
        if line is not None:
            lines.setdefault(line, None if timeline in known else timeline)
    return tuple(
        _Candidate(line, frozenset(base.backup_id for base in bases_on(facts, line)), timeline)
        for line, timeline in lines.items()
    )


def _newest_line_from(base: BaseManifest, candidates: Sequence[_Candidate]) -> Lineage | None:
    """The line that lives and contains the base backup; else the newest that contains it."""
    for one in candidates:
        if base.backup_id in one.bases and one.timeline in (None, base.timeline):
            return one.line
    return None
