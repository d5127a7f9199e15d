"""Turns facts and a target into a recovery plan, or into an error that says why the target cannot be reached. Pure.

1. The timeline: the requested one, else that of the one line that lives; if several live, the user must choose. A line
   is a timeline with its ancestors, each up to where it was left. Base backups and WAL of other histories do not count.
2. The base backup: the newest on the line that ended before the target, unless a link of its chain is missing or it
   failed verification; then the one before it, with a note in the plan.
3. The WAL: from that base backup along the line, without a gap up to the target.

A time after the last commit is reached by replaying all WAL if a receiver saw the archive complete at a later time:
nothing was committed in between. A time between the last commit before a restart with wal_level = minimal and the first
commit after it is the state just before that restart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tmi_ops.postgres.wal_files import format_lsn, parse_lsn
from tmi_ops.recovery.point_in_time import refusals
from tmi_ops.recovery.point_in_time.facts import Edge, Fork, RecoveryFacts, WalClock
from tmi_ops.recovery.point_in_time.target import Target, format_time
from tmi_ops.recovery.point_in_time.wal_range import wal_after
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.wal.coverage import WalRange
from tmi_ops.wal.lineage import Lineage
from tmi_ops.wal.lines import followed_line, line_to


@dataclass(frozen=True)
class RecoveryPlan:
    """What a recovery will do.

    Args:
        chain: the backups to fetch, the full one first; recovery starts from the last.
        timeline: the timeline to follow; `line` includes its ancestors.
        wal: the archived WAL that may be replayed, in order.
        stop_lsn: where PostgreSQL must stop, if the target is an LSN, a restore point, or a time just before a break.
            `inclusive`: the record that begins there, or what was committed at that time, is replayed.
        to_the_end: replay all WAL, because the target is its end. PostgreSQL is given no target then: it considers one
            reached only when it finds a record beyond it.
        histories: timelines whose history PostgreSQL may ask for.
        newest_timeline: the highest id in use, with or without a history; a promotion needs a higher one.
        named_at: when the target restore point was created; None if the target is not one, or the time is unknown.
        earlier: ids of earlier usable base backups, newest first.
        notes: what the user should know about these choices, one sentence each.
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
    """Plan how to reach the target.

    Args:
        timeline: the timeline to follow; None for the one that lives.
        base: id, or beginning of the id, of the base backup to start from; None for the best one.

    Raises:
        RecoveryError: the target lies before the first base backup, after the last WAL, in a gap of the WAL or on
            another timeline; or no complete chain leads to it. The message says what can be reached.
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
            *_describe_quiet(facts, wal, edge if at_break else None, quiet=quiet),
        ),
    )


def choose_line(facts: RecoveryFacts, timeline: int | None) -> Lineage:
    """The line of the requested timeline; by default, of the lines that live, the one that was followed last.

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
    """Refuse a time or the end of the WAL as target when several lines live: each has a different state.

    Raises:
        RecoveryError: several lines live.
    """
    if target.kind in ("latest", "time") and len(facts.living) > 1:
        raise refusals.several_lines(target, facts.living)


def _known_timelines(facts: RecoveryFacts) -> set[int]:
    """All timelines that left a trace in the store."""
    return {*facts.archive.timelines, *facts.archive.histories, *facts.bases_begin}


def bases_on(facts: RecoveryFacts, line: Lineage) -> list[BaseManifest]:
    """The base backups that lie entirely on the line, newest first."""
    ends = {stretch.timeline: stretch.end for stretch in line.stretches}
    found = []
    for base in facts.bases:
        end = ends.get(base.timeline, 0)
        if end is None or parse_lsn(base.stop_lsn) <= end:
            found.append(base)
    return sorted(found, key=lambda base: parse_lsn(base.stop_lsn), reverse=True)


def _require_one_reading(target: Target, usable: Sequence[BaseManifest]) -> None:
    """Refuse a time that the server's clock showed twice.

    The clock was put back if a base backup that ended after that time precedes one that ended before it.

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
    """The chain to start from, and why newer base backups were not used."""
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
    """Why a recovery cannot start from this base backup, in one sentence; None if no reason is known."""
    gone = _first_gone(base, facts.by_id)
    if gone is not None:
        return f"{base.backup_id} cannot be used: it depends on {gone}, which is missing or has an unreadable manifest."
    bad = next((link for link in (*base.chain, base.backup_id) if link in facts.failed), None)
    if bad is not None:
        return f"{base.backup_id} is not used: {bad} failed verification."
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
        return  # no commit was found near the gap, so only the replay can tell on which side this time lies
    if not wal.files or (clock.newest_commit is not None and time > clock.newest_commit):
        raise refusals.after_last_commit(target, clock.newest_commit, wal)


def _is_ambiguous(fork: Fork, time: datetime) -> bool:
    """Whether the line had no commits at `time` while the history it had left went on."""
    return (
        fork.first_abandoned is not None
        and fork.first_abandoned <= time
        and (fork.first_after is None or time < fork.first_after)
    )


def _was_quiet(facts: RecoveryFacts, target: Target, line: Lineage, wal: WalRange) -> bool:
    """Whether the target lies between the last commit and a time at which the archive was complete."""
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
    """Whether the target is a time between the last commit before a break and the first after it.

    After missing WAL, or WAL of another history, the time of the next commit is unknown.
    """
    if target.time is None or edge.last_before is None:
        return False
    if target.time <= edge.last_before:
        return target.time == edge.last_before and target.inclusive
    if edge.first_after is None or wal.broken is None or wal.broken.kind != "minimal":
        return False
    return target.time < edge.first_after or (target.time == edge.first_after and not target.inclusive)


def _describe_quiet(facts: RecoveryFacts, wal: WalRange, edge: Edge | None, *, quiet: bool) -> Iterator[str]:
    if edge is not None and edge.last_before is not None:
        following = f", the next one at {format_time(edge.first_after)}" if edge.first_after is not None else ""
        yield (
            f"{wal.why_it_ends()} The last commit before that is at {format_time(edge.last_before)}{following}. "
            "The state just before it is therefore the state at the target."
        )
    if not quiet:
        return
    if facts.clock is None or facts.clock.newest_commit is None or facts.receiver is None:
        raise AssertionError
    yield (
        f"Nothing was committed between {format_time(facts.clock.newest_commit)} and the target (the archive was "
        f"complete at {format_time(facts.receiver.at)}), so the end of the WAL is the state at the target."
    )


def _is_the_end(facts: RecoveryFacts, target: Target, wal: WalRange, stop_lsn: int | None) -> bool:
    if stop_lsn is None:
        newest = facts.clock.newest_commit if facts.clock else None
        return target.time is None or (target.inclusive and not wal.goes_on and target.time == newest)
    # The replay ends at a gap or at WAL of another history, but not at WAL written with wal_level = minimal.
    return stop_lsn == wal.end and (wal.broken is None or wal.broken.kind != "minimal")


def _notes(facts: RecoveryFacts, target: Target, line: Lineage, wal: WalRange) -> list[str]:
    notes = list(facts.broken)
    if facts.other_clusters:
        notes.append(
            f"The store also has base backups of {', '.join(facts.other_clusters)}; this plan is for the cluster "
            f"of the newest one, {facts.system_identifier}."
        )
    if not wal.files:
        notes.append(
            "No WAL after this backup is archived, so the cluster is restored as it was when the backup ended."
        )
    if target.lsn is not None:
        notes += [
            f"Timeline {timeline} also has this LSN, with another history; --timeline {timeline} restores that one."
            for timeline in facts.archive.timelines
            if timeline not in line.timelines and target.lsn <= (facts.archive.newest_lsn(timeline) or 0)
        ] + [
            f"Timeline {stretch.timeline} continued past this LSN after it was left at {format_lsn(stretch.end)}; "
            f"--timeline {stretch.timeline} restores that history."
            for stretch in line.stretches
            if stretch.end is not None and stretch.end < target.lsn <= (facts.archive.newest_lsn(stretch.timeline) or 0)
        ]
    return notes
