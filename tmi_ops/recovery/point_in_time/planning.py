"""Facts and a target in, a plan out; or the precise reason why the target cannot be reached. Pure.

1. The timeline: the one asked for, else that of the one line that lives; where several live, a person must say which.
   It names a line: a timeline with its ancestors, each up to where it was left. Bases and WAL of other histories do
   not count.
2. The base: the newest on the line that ended before the target, unless a link of its chain is gone or a proof found it
   bad; then the one before it, and the plan says so.
3. The WAL: from that base on along the line, without a hole up to the target.

A time after the last commit is reached by all the WAL there is where a receiver had seen the archive complete later
than that: nothing was committed until then. So is a time between the last commit before a restart with wal_level =
minimal and the first one after it: it is the state just before that restart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tmi_ops.postgres.wal_files import format_lsn, parse_lsn
from tmi_ops.recovery.point_in_time import refusals
from tmi_ops.recovery.point_in_time.facts import Edge, Fork, RecoveryFacts, WalClock
from tmi_ops.recovery.point_in_time.target import Target, time_words
from tmi_ops.recovery.point_in_time.wal_range import wal_after
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.wal.coverage import WalRange
from tmi_ops.wal.lineage import Lineage
from tmi_ops.wal.lines import followed_line, line_to


@dataclass(frozen=True)
class RecoveryPlan:
    """What a recovery will do. Nothing has been done yet.

    Args:
        chain: the backups that are fetched, the full one first; the last is the one that recovery begins with.
        timeline: the one that recovery follows; `line` is it with its ancestors.
        wal: the archived WAL that may be replayed, in its order.
        stop_lsn: the LSN that PostgreSQL is told to stop at, where the target is one, a restore point, or a time just
            before a break; `inclusive`: the record that begins there is replayed, or what was committed at that time.
        to_the_end: all WAL is replayed, because the target is its end. PostgreSQL is told of no target then: it takes
            one for reached only when it finds a record beyond it.
        histories: timelines whose history PostgreSQL may ask for.
        newest_timeline: the highest id that is taken, with or without a history; a promotion needs one beyond it.
        named_at: when the restore point that is the target was made; None: it is none, or that is not known.
        earlier: ids of bases that would do instead of this one, newest first.
        notes: what a person should know of these choices, a sentence each.
    """

    target: Target
    chain: tuple[BaseManifest, ...]
    timeline: int
    line: Lineage
    wal: WalRange
    stop_lsn: int | None
    to_the_end: bool
    histories: tuple[int, ...]
    inclusive: bool = True
    newest_timeline: int = 1
    named_at: datetime | None = None
    earlier: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def base(self) -> BaseManifest:
        """The backup that recovery begins with."""
        return self.chain[-1]

    @property
    def fetched_size(self) -> int:
        """Stored bytes of the chain."""
        return sum(link.total_size for link in self.chain)

    @property
    def server_major(self) -> int:
        """PostgreSQL's major version, which must be that of the programs."""
        return self.base.server_version_num // 10000


def plan_recovery(
    facts: RecoveryFacts, target: Target, *, timeline: int | None = None, base: str | None = None
) -> RecoveryPlan:
    """Decide how the target is reached.

    Args:
        timeline: which one to follow; None: the one that lives.
        base: id of the base backup to begin with, or the beginning of one; None: the best one.

    Raises:
        RecoveryError: the target lies before the first base, after the last WAL, in a hole of the WAL or on another
            timeline; or no chain that leads to it is whole. The message says what can be reached.
    """
    if timeline is None:
        require_one_line(facts, target)
    line = choose_line(facts, timeline)
    named = facts.restore_point if target.name is not None else None
    if target.name is not None and named is None:
        raise refusals.no_restore_point(target, line)
    stop_lsn = named.lsn if named is not None else target.lsn
    usable = bases_on(facts, line)
    _require_one_reading(target, usable)
    before = [item for item in usable if _ended_before(item, target, stop_lsn)]
    chosen, notes = _choose_base(facts, target, usable, before, base)
    wal = wal_after(chosen[-1], line, facts.archive)
    quiet = _was_quiet(facts, target, line, wal)
    edge = _edge_at(facts, wal)
    at_break = edge is not None and _stands_before(edge, target, wal)
    _require_reachable(facts, target, line, wal, stop_lsn, quiet=quiet or at_break)
    stop_lsn = wal.end if at_break else stop_lsn
    return RecoveryPlan(
        target=target,
        chain=chosen,
        timeline=line.timelines[-1],
        line=line,
        wal=wal,
        stop_lsn=stop_lsn,
        to_the_end=quiet or _is_the_end(facts, target, wal, stop_lsn),
        histories=tuple(sorted(facts.histories)),
        inclusive=target.inclusive and not at_break,
        newest_timeline=max(_known_timelines(facts)),
        named_at=named.made_at if named is not None else None,
        earlier=tuple(item.backup_id for item in before if parse_lsn(item.stop_lsn) < parse_lsn(chosen[-1].stop_lsn)),
        notes=(
            *notes,
            *_notes(facts, target, line, wal),
            *_quiet_words(facts, wal, edge if at_break else None, quiet=quiet),
        ),
    )


def choose_line(facts: RecoveryFacts, timeline: int | None) -> Lineage:
    """The line of the timeline asked for; else, of the lines that live, the one that was followed last.

    Raises:
        RecoveryError: there is no such timeline, or its history is not in the archive.
    """
    known = _known_timelines(facts)
    if timeline is None:
        living = facts.living
        newest = max(known)
        if not living or line_to(newest, facts.histories, facts.bases_begin) is None:
            raise refusals.no_history(newest, facts, known)
        return followed_line(living, facts.archive.followed).line
    if timeline not in known:
        raise refusals.no_timeline(timeline, known)
    line = line_to(timeline, facts.histories, facts.bases_begin)
    if line is None:
        raise refusals.no_history(timeline, facts, known)
    return line


def require_one_line(facts: RecoveryFacts, target: Target) -> None:
    """A moment, and the end of the WAL, mean something else on each line that lives.

    Raises:
        RecoveryError: there are several.
    """
    if target.kind in ("latest", "time") and len(facts.living) > 1:
        raise refusals.several_lines(target, facts.living)


def _known_timelines(facts: RecoveryFacts) -> set[int]:
    """Those that left any trace."""
    return {*facts.archive.timelines, *facts.archive.histories, *facts.bases_begin}


def bases_on(facts: RecoveryFacts, line: Lineage) -> list[BaseManifest]:
    """The base backups whose whole content belongs to the line, newest first."""
    ends = {stretch.timeline: stretch.end for stretch in line.stretches}
    found = []
    for base in facts.bases:
        end = ends.get(base.timeline, 0)
        if end is None or parse_lsn(base.stop_lsn) <= end:
            found.append(base)
    return sorted(found, key=lambda base: parse_lsn(base.stop_lsn), reverse=True)


def _require_one_reading(target: Target, usable: Sequence[BaseManifest]) -> None:
    """A time that the server's clock showed twice: a base that ended after it lies before one that ended before it.

    Raises:
        RecoveryError: the target is such a time.
    """
    if target.time is None:
        return
    ahead = [base for base in usable if base.consistent_at > target.time]
    for base in usable:
        first = next((one for one in ahead if parse_lsn(one.stop_lsn) < parse_lsn(base.stop_lsn)), None)
        if first is not None and base.consistent_at <= target.time:
            raise refusals.clock_put_back(target, first, base)


def _ended_before(base: BaseManifest, target: Target, stop_lsn: int | None) -> bool:
    if target.time is not None:
        return base.consistent_at <= target.time
    return stop_lsn is None or parse_lsn(base.stop_lsn) <= stop_lsn


def _choose_base(
    facts: RecoveryFacts,
    target: Target,
    usable: Sequence[BaseManifest],
    before: Sequence[BaseManifest],
    wanted: str | None,
) -> tuple[tuple[BaseManifest, ...], list[str]]:
    """The chain to begin with, and why it is not that of the newest base."""
    by_id = facts.by_id
    if wanted is not None:
        return _chain_of(_named(facts, wanted, target, usable, before), by_id), []
    if not before:
        raise refusals.before_first_base(facts, target, usable)
    notes: list[str] = []
    for base in before:
        why_not = why_unusable(facts, base)
        if why_not is None:
            return _chain_of(base, by_id), notes
        notes.append(why_not)
    raise refusals.no_whole_chain(target, notes)


def _named(
    facts: RecoveryFacts,
    wanted: str,
    target: Target,
    usable: Sequence[BaseManifest],
    before: Sequence[BaseManifest],
) -> BaseManifest:
    fitting = [base for name, base in facts.by_id.items() if name.startswith(wanted)]
    if len(fitting) != 1:
        raise refusals.no_such_base(wanted, facts)
    (base,) = fitting
    if base not in usable:
        raise refusals.base_of_another_line(base)
    if base not in before:
        raise refusals.base_after_target(base, target)
    gone = _first_gone(base, facts.by_id)
    if gone is not None:
        raise refusals.broken_chain(base, gone)
    return base


def why_unusable(facts: RecoveryFacts, base: BaseManifest) -> str | None:
    """A sentence on why a base cannot begin a recovery; None: nothing known speaks against it."""
    gone = _first_gone(base, facts.by_id)
    if gone is not None:
        return f"{base.backup_id} cannot be used: it builds upon {gone}, which is gone or whose manifest is broken."
    bad = next((link for link in (*base.chain, base.backup_id) if link in facts.failed), None)
    if bad is not None:
        return f"{base.backup_id} is not used: a proof found {bad} bad."
    return None


def _first_gone(base: BaseManifest, by_id: Mapping[str, BaseManifest]) -> str | None:
    return next((link for link in base.chain if link not in by_id), None)


def _chain_of(base: BaseManifest, by_id: Mapping[str, BaseManifest]) -> tuple[BaseManifest, ...]:
    return (*(by_id[link] for link in base.chain), base)


def _require_reachable(
    facts: RecoveryFacts, target: Target, line: Lineage, wal: WalRange, stop_lsn: int | None, *, quiet: bool
) -> None:
    if target.time is not None:
        _require_time(facts.clock or WalClock(), target, target.time, line, wal, quiet=quiet)
    elif stop_lsn is None:
        if wal.goes_on:
            raise refusals.hole(target, wal)
    elif stop_lsn > wal.end or (target.inclusive and wal.broken is not None and stop_lsn == wal.end):
        raise refusals.hole(target, wal) if wal.goes_on else refusals.after_last_wal(target, wal)


def _require_time(
    clock: WalClock, target: Target, time: datetime, line: Lineage, wal: WalRange, *, quiet: bool
) -> None:
    for fork in clock.forks:
        if _is_ambiguous(fork, time):
            raise refusals.between_timelines(target, fork, line.timelines[-1])
    if quiet:
        return
    if wal.goes_on:
        edge = _edge_of(clock, wal)
        if edge is not None and edge.last_before is not None and time > edge.last_before:
            raise refusals.hole(target, wal, edge.last_before)
        return  # where no commit was found near a hole, only the replay can tell on which side of it this time lies
    if not wal.files or (clock.newest_commit is not None and time > clock.newest_commit):
        raise refusals.after_last_commit(target, clock.newest_commit, wal)


def _is_ambiguous(fork: Fork, time: datetime) -> bool:
    """Whether the line stood still at `time` while the history that it left there went on."""
    return (
        fork.first_abandoned is not None
        and fork.first_abandoned <= time
        and (fork.first_after is None or time < fork.first_after)
    )


def _was_quiet(facts: RecoveryFacts, target: Target, line: Lineage, wal: WalRange) -> bool:
    """Whether the target is a time between the last commit and a moment at which the archive held all there was."""
    seen, newest = facts.receiver, facts.clock.newest_commit if facts.clock else None
    return (
        target.time is not None
        and newest is not None
        and seen is not None
        and newest < target.time <= seen.at
        and seen.is_of(line)
        and seen.lsn <= wal.end
        and not wal.goes_on
    )


def _edge_at(facts: RecoveryFacts, wal: WalRange) -> Edge | None:
    return _edge_of(facts.clock, wal) if facts.clock is not None and wal.goes_on else None


def _edge_of(clock: WalClock, wal: WalRange) -> Edge | None:
    return next((edge for edge in clock.edges if edge.lsn == wal.end), None)


def _stands_before(edge: Edge, target: Target, wal: WalRange) -> bool:
    """Whether the target is a time from the last commit before a place that no replay passes to the first one after it.

    Behind WAL that is missing or of another history nobody knows when the next commit came.
    """
    if target.time is None or edge.last_before is None:
        return False
    if target.time <= edge.last_before:
        return target.time == edge.last_before and target.inclusive
    if edge.first_after is None or wal.broken is None or wal.broken.kind != "minimal":
        return False
    return target.time < edge.first_after or (target.time == edge.first_after and not target.inclusive)


def _quiet_words(facts: RecoveryFacts, wal: WalRange, edge: Edge | None, *, quiet: bool) -> Iterator[str]:
    if edge is not None and edge.last_before is not None:
        following = f", the next one of {time_words(edge.first_after)}" if edge.first_after is not None else ""
        yield (
            f"{wal.why_it_ends()} The last commit before that is of {time_words(edge.last_before)}{following}: so the "
            "state just before it is the state of that time."
        )
    if not quiet:
        return
    if facts.clock is None or facts.clock.newest_commit is None or facts.receiver is None:
        raise AssertionError
    yield (
        f"Nothing was committed between {time_words(facts.clock.newest_commit)} and the target (the archive held all "
        f"there was at {time_words(facts.receiver.at)}), so the end of the WAL is the state of that time."
    )


def _is_the_end(facts: RecoveryFacts, target: Target, wal: WalRange, stop_lsn: int | None) -> bool:
    if stop_lsn is None:
        newest = facts.clock.newest_commit if facts.clock else None
        return target.time is None or (target.inclusive and not wal.goes_on and target.time == newest)
    # A hole and WAL of another history end the replay by themselves; WAL written with wal_level = minimal does not.
    return stop_lsn == wal.end and (wal.broken is None or wal.broken.kind != "minimal")


def _notes(facts: RecoveryFacts, target: Target, line: Lineage, wal: WalRange) -> list[str]:
    notes = list(facts.broken)
    if facts.other_clusters:
        notes.append(
            f"The store also has base backups of {', '.join(facts.other_clusters)}; this is the cluster "
            f"{facts.system_identifier}, of the newest one."
        )
    if not wal.files:
        notes.append("No WAL after this backup is archived: the cluster will be as it was when the backup ended.")
    if target.lsn is not None:
        notes += [
            f"Timeline {timeline} has this LSN too, as another history; --timeline {timeline} goes there."
            for timeline in facts.archive.timelines
            if timeline not in line.timelines and target.lsn <= (facts.archive.newest_lsn(timeline) or 0)
        ] + [
            f"Timeline {stretch.timeline} went on beyond this LSN after it was left at {format_lsn(stretch.end)}; "
            f"--timeline {stretch.timeline} goes there."
            for stretch in line.stretches
            if stretch.end is not None and stretch.end < target.lsn <= (facts.archive.newest_lsn(stretch.timeline) or 0)
        ]
    return notes
