"""Which lines of an archive live. A timeline that was written on after a fork makes a second line. Pure.

1. A timeline is the tip of a line if it has no child, or if it has WAL that belongs to none of its children.
2. Two lines part at an LSN. The older timeline is abandoned if it committed nothing after that LSN, or if its newest
   commit is older than the first one of the newer timeline: a failed server whose last commits its successor lacks.
3. A newer timeline without commits lives, unless a receiver follows another one. If a receiver follows it, lines whose
   newest commit is older than the moment when the receiver began to follow it are abandoned.
4. Otherwise both live: a copy of the server was archived in the same place as the original, or two servers acted as the
   primary. Only a person can then say which line is the right one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tmi_ops.postgres.wal_files import TimelineSwitch
from tmi_ops.wal.archive import WalArchive
from tmi_ops.wal.lineage import FIRST_TIMELINE, Lineage, Stretch, lineage
from tmi_ops.wal.records import Followed


@dataclass(frozen=True)
class Commits:
    """The first and newest commit of a line after an LSN. None: none was found.

    `readable` is False if the WAL could not be read, so that nothing is known.
    """

    first: datetime | None = None
    newest: datetime | None = None
    readable: bool = True


@dataclass(frozen=True)
class Tip:
    """The end of a line: its newest timeline, the LSN up to which it is archived, and its newest commit.

    `newest` None: nothing was committed, or the WAL was not read or could not be read.
    """

    line: Lineage
    end: int
    newest: datetime | None = None

    @property
    def timeline(self) -> int:
        return self.line.timelines[-1]


def lines_of(
    archive: WalArchive,
    histories: Mapping[int, Sequence[TimelineSwitch]],
    bases_begin: Mapping[int, int] | None = None,
) -> tuple[Lineage, ...]:
    """The lines that end in a tip, ordered by timeline. A line of unknown history begins at its first base backup, and
    is left out if it has none.

    Args:
        bases_begin: by timeline, the LSN at which the first base backup on it begins.
    """
    begins = bases_begin or {}
    left: dict[int, int] = {}
    for history in histories.values():
        for switch in history:
            left[switch.timeline] = max(switch.lsn, left.get(switch.timeline, 0))
    lines = []
    for timeline in sorted({*archive.timelines, *archive.histories, *begins}):
        line = line_to(timeline, histories, begins)
        if line is not None and (timeline not in left or (archive.newest_lsn(timeline) or 0) > left[timeline]):
            lines.append(line)
    return tuple(lines)


def line_to(
    timeline: int, histories: Mapping[int, Sequence[TimelineSwitch]], bases_begin: Mapping[int, int]
) -> Lineage | None:
    """The line that leads to a timeline. None if the timeline has neither a known history nor a base backup."""
    if timeline == FIRST_TIMELINE or timeline in histories:
        return lineage(timeline, tuple(histories.get(timeline, ())))
    if timeline in bases_begin:
        return Lineage((Stretch(timeline, bases_begin[timeline], None),))
    return None


def parting(one: Lineage, other: Lineage) -> int:
    """The LSN at which two lines part. Before it they are one history."""
    for mine, theirs in zip(one.stretches, other.stretches, strict=False):
        if mine.timeline != theirs.timeline:
            return mine.start
        if mine.end != theirs.end:
            return min(end for end in (mine.end, theirs.end) if end is not None)
    return 0


def is_abandoned(mine: Commits, theirs: Commits, *, mine_is_newer: bool) -> bool:
    """Whether the other line supersedes `mine`, by what each committed after they parted."""
    if not (mine.readable and theirs.readable):
        return False
    if mine.newest is None:
        return not mine_is_newer
    return not mine_is_newer and theirs.first is not None and mine.newest < theirs.first


def living(
    tips: Sequence[Tip],
    commits: Mapping[tuple[int, int], Commits],
    followed: Sequence[Followed] = (),
) -> tuple[Tip, ...]:
    """The tips of the lines that live, in the order of `tips`; never empty if `tips` is not.

    Args:
        commits: by the timelines of two tips, what the first one committed after they parted.
        followed: the records. If a person chose a line, the others are abandoned unless they committed since.
    """
    unknown = Commits(readable=False)
    left = [
        tip
        for tip in tips
        if not any(
            is_abandoned(
                commits.get((tip.timeline, other.timeline), unknown),
                commits.get((other.timeline, tip.timeline), unknown),
                mine_is_newer=tip.timeline > other.timeline,
            )
            for other in tips
            if other is not tip
        )
    ]
    left = _without_unfollowed(left, commits, followed)
    word = next((item for item in reversed(followed) if item.by == "person"), None)
    if word is not None and any(tip.timeline == word.timeline for tip in left):
        left = [
            tip for tip in left if tip.timeline == word.timeline or (tip.newest is not None and tip.newest > word.since)
        ]
    return tuple(left or tips[-1:])


def _without_unfollowed(
    tips: Sequence[Tip], commits: Mapping[tuple[int, int], Commits], followed: Sequence[Followed]
) -> list[Tip]:
    """If commits do not decide, because a line has none yet, the timeline that was followed last does."""
    current = followed[-1] if followed else None
    here = next((tip for tip in tips if current is not None and tip.timeline == current.timeline), None)
    if current is None or here is None:
        return list(tips)

    def is_left(tip: Tip) -> bool:
        readable = all(found.readable for pair, found in commits.items() if pair[0] == tip.timeline)
        before = here.newest is None and tip.newest is not None and tip.newest <= current.since
        return readable and (tip.newest is None or before)

    return [tip for tip in tips if tip is here or not is_left(tip)]


def followed_line(tips: Sequence[Tip], followed: Sequence[Followed]) -> Tip:
    """Of these lines, the one that a receiver followed or a person chose last; otherwise the newest."""
    for item in reversed(followed):
        fitting = [tip for tip in tips if item.timeline in tip.line.timelines]
        exact = [tip for tip in fitting if tip.timeline == item.timeline]
        if exact or fitting:
            return (exact or fitting)[-1]
    return tips[-1]


def several_live(tips: Sequence[Tip]) -> str | None:
    """A sentence if several lines live, because the same moment is a different state on each. None if only one does."""
    if len(tips) < 2:
        return None
    return f"{len(tips)} lines of the cluster live: {describe_lines(tips)}. A restore needs `--timeline`."


def describe_lines(tips: Sequence[Tip]) -> str:
    """For example `timeline 1 (newest commit 2026-11-27 12:00:00 UTC) and timeline 2 (...)`."""
    return " and ".join(f"timeline {tip.timeline} ({_describe_newest(tip)})" for tip in tips)


def _describe_newest(tip: Tip) -> str:
    if tip.newest is None:
        return "newest commit unknown"
    return f"newest commit {tip.newest.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
