"""Why a target cannot be reached: for each reason its error, with how far one can get and the next step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.wal_files import format_lsn
from tmi_ops.recovery.point_in_time.facts import Fork, RecoveryFacts
from tmi_ops.recovery.point_in_time.target import Target, time_words
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.wal.coverage import WalRange
from tmi_ops.wal.lineage import Lineage
from tmi_ops.wal.lines import Tip, lines_words


def no_timeline(timeline: int, known: Collection[int]) -> RecoveryError:
    return RecoveryError(
        f"There is no timeline {timeline} in the store; it knows {_listed(known)}.",
        hint="leave out --timeline for the one that lives",
    )


def no_history(timeline: int, facts: RecoveryFacts, known: Collection[int]) -> RecoveryError:
    why = facts.histories_lost.get(timeline, "it was never archived.")
    readable = [one for one in sorted(known) if one == 1 or one in facts.histories]
    return RecoveryError(
        f"Where timeline {timeline} came from is not known, because its history file is not in the archive: {why}",
        hint=f"archive pg_wal/{timeline:08X}.history of a server that has it (`tmi-ops wal push`), or follow an "
        f"earlier timeline: --timeline {readable[-1] if readable else 1}",
    )


def several_lines(target: Target, tips: Sequence[Tip]) -> RecoveryError:
    wanted = target.words()
    return RecoveryError(
        f"{len(tips)} lines of this cluster live: {lines_words(tips)}. {wanted[:1].upper()}{wanted[1:]} is another "
        "state on each.",
        detail="Nothing was restored.",
        hint=f"say which one: --timeline {tips[-1].timeline}, or another of them. If one is abandoned, say so for "
        "good: `tmi-ops wal line TIMELINE` names the one that is the environment's",
    )


def no_restore_point(target: Target, line: Lineage) -> RecoveryError:
    return RecoveryError(
        f"The archived WAL of timeline {line.timelines[-1]} has no restore point {target.name!r}.",
        hint="check its spelling, which counts, and whether it lies on another timeline (--timeline); a moment "
        "is named with --to-time",
    )


def misspelt_restore_point(name: str, similar: Sequence[str]) -> RecoveryError:
    return RecoveryError(
        f"No restore point {name!r} is recorded; there is {', '.join(map(repr, similar))}.",
        detail="Nothing was fetched or restored.",
        hint="write the name as it was given; `tmi-ops restore --to-name NAME --plan` shows what it would do",
    )


def before_first_base(facts: RecoveryFacts, target: Target, usable: Sequence[BaseManifest]) -> RecoveryError:
    if not usable:
        others = sorted({base.timeline for base in facts.bases})
        return RecoveryError(
            "No base backup lies on this timeline or on one that it came from." + _left_out(facts),
            hint=f"the base backups are of {_listed(others)}: choose one with --timeline",
        )
    first = usable[-1]
    return RecoveryError(
        f"{target.words()} lies before the end of the first base backup on this timeline, {first.backup_id}."
        + _left_out(facts),
        hint=f"the earliest that can be reached is {time_words(first.consistent_at)} (LSN {first.stop_lsn}); "
        "a logical backup may be older: `tmi-ops backups`",
    )


def _left_out(facts: RecoveryFacts) -> str:
    """What could not be read or believed, which may be the base that was meant."""
    return f" Left out: {' '.join(facts.broken)}" if facts.broken else ""


def clock_put_back(target: Target, first: BaseManifest, second: BaseManifest) -> RecoveryError:
    return RecoveryError(
        f"{target.words()} is ambiguous: the server's clock was put back. {first.backup_id} ended at "
        f"{time_words(first.consistent_at)} (LSN {first.stop_lsn}), and {second.backup_id}, later in the WAL, at "
        f"{time_words(second.consistent_at)} (LSN {second.stop_lsn}).",
        hint="say which of the two is meant by its place in the WAL: --to-lsn; `tmi-ops recover find` shows "
        "commits with their LSN",
    )


def no_whole_chain(target: Target, why_not: Sequence[str]) -> RecoveryError:
    return RecoveryError(
        f"No base backup that leads to {target.words()} can be used. {' '.join(why_not)}",
        hint="bring back what is gone if the bucket keeps versions; or aim at a time after a whole base backup "
        "(`tmi-ops backups`); or name a base that only a proof speaks against: --backup ID",
    )


def no_such_base(wanted: str, facts: RecoveryFacts) -> RecoveryError:
    return RecoveryError(
        f"There is no base backup {wanted} of this cluster whose manifest can be read, or several begin so."
        + _left_out(facts),
        hint="run `tmi-ops backups` to see the ids; --cluster chooses another cluster",
    )


def base_of_another_line(base: BaseManifest) -> RecoveryError:
    return RecoveryError(
        f"{base.backup_id} ended at {base.stop_lsn} on timeline {base.timeline}, which is not part of this line.",
        hint=f"follow its timeline: --timeline {base.timeline}",
    )


def base_after_target(base: BaseManifest, target: Target) -> RecoveryError:
    return RecoveryError(
        f"{base.backup_id} ended at {time_words(base.consistent_at)} (LSN {base.stop_lsn}), after {target.words()}.",
        hint="leave out --backup, so that one before the target is chosen",
    )


def broken_chain(base: BaseManifest, gone: str) -> RecoveryError:
    return RecoveryError(
        f"{base.backup_id} is incremental and builds upon {gone}, which is gone or whose manifest is broken.",
        hint="leave out --backup, so that a whole one is chosen; or bring back an earlier version of what is gone "
        "if the bucket keeps versions",
    )


def after_last_wal(target: Target, wal: WalRange) -> RecoveryError:
    return RecoveryError(
        f"{target.words()} lies after the last archived WAL, which ends at {format_lsn(wal.end)}.",
        hint="`--latest` brings back all there is; if the server lives, let `tmi-ops wal stream` catch up first",
    )


def after_last_commit(target: Target, newest: datetime | None, wal: WalRange) -> RecoveryError:
    last = f"the last commit in it is of {time_words(newest)}" if newest else "there is none after the base backup"
    return RecoveryError(
        f"{target.words()} lies after the last archived WAL, which ends at {format_lsn(wal.end)}; {last}.",
        hint="`--latest` brings back all there is; if the server lives, let `tmi-ops wal stream` catch up first",
    )


def hole(target: Target, wal: WalRange, reached: datetime | None = None) -> RecoveryError:
    if wal.broken is not None:
        return _break(target, wal, reached)
    missing = wal.missing.name if wal.missing else "a segment"
    until = f"{format_lsn(wal.end)}{f' (last commit {time_words(reached)})' if reached else ''}"
    return RecoveryError(
        f"The WAL that leads to {target.words()} has a hole: {missing} is missing from the archive, though there is "
        f"WAL after it. It can be followed up to {until}.",
        hint=f"bring the segment back (`tmi-ops wal push` from wherever it still is), or take what is before the "
        f"hole: --to-lsn {format_lsn(wal.end)}; `tmi-ops wal gaps` shows all holes",
    )


def _break(target: Target, wal: WalRange, reached: datetime | None) -> RecoveryError:
    last = f" (last commit {time_words(reached)})" if reached else ""
    return RecoveryError(
        f"The WAL does not lead to {target.words()}. {wal.why_it_ends()} It can be followed up to "
        f"{format_lsn(wal.end)}{last}.",
        hint=f"restore what is before it: --to-lsn {format_lsn(wal.end)} --exclusive. A base backup taken after "
        "it leads further; `tmi-ops wal gaps` shows all such places",
    )


def tablespace_in_the_wal(base: BaseManifest, place: str, said: str) -> RecoveryError:
    return RecoveryError(
        f"The WAL after {base.backup_id} creates a tablespace at {place}. The replay would make it there, on the "
        f"server's own machine over its files, so it was ended: {said}.",
        detail="Nothing was written there; what was restored so far was removed again.",
        hint="begin with a base backup that was taken after it, whose tablespaces may go anywhere, or stop before "
        f"it. Where nothing of that name is needed on this machine, make {place} an empty directory of the account "
        f"that the cluster runs as: `tmi-ops restore --tablespace-mapping {place}={place}`",
    )


def between_timelines(target: Target, fork: Fork, timeline: int) -> RecoveryError:
    last = f", its last commit before that at {time_words(fork.last_before)}" if fork.last_before else ""
    after = (
        f"the first commit on the way to timeline {timeline} came at {time_words(fork.first_after)}"
        if fork.first_after
        else f"nothing was committed yet on the way to timeline {timeline}"
    )
    return RecoveryError(
        f"{target.words()} lies between two timelines: timeline {fork.timeline} was left at LSN {format_lsn(fork.lsn)}"
        f"{last}, and {after}. What was committed at that time went to timeline {fork.timeline}, and was abandoned.",
        hint=f"for the data of that time: --timeline {fork.timeline}. For the state in which timeline "
        f"{fork.timeline} was left: --to-lsn {format_lsn(fork.lsn)}",
    )


def _listed(timelines: Collection[int]) -> str:
    return "timeline " + ", ".join(str(one) for one in sorted(timelines)) if timelines else "none"
