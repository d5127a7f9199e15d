"""The errors for targets that cannot be reached: what can be reached instead, and what to run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.wal_files import format_lsn
from tmi_ops.recovery.point_in_time.facts import Fork, RecoveryFacts
from tmi_ops.recovery.point_in_time.target import Target, format_time
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.wal.coverage import WalRange
from tmi_ops.wal.lineage import Lineage
from tmi_ops.wal.lines import Tip, describe_lines

_CATCH_UP = "restore all there is with `--latest`; if the server is alive, let `tmi-ops wal stream` catch up first"


def no_timeline(timeline: int, known: Collection[int]) -> RecoveryError:
    return RecoveryError(
        f"The store has no timeline {timeline}. It has {_listed(known)}.",
        hint="leave out --timeline to follow the current one",
        code=Code.TARGET_UNKNOWN,
    )


def no_history(timeline: int, facts: RecoveryFacts, known: Collection[int]) -> RecoveryError:
    why = facts.histories_lost.get(timeline, "it was never archived.")
    readable = [one for one in sorted(known) if one == 1 or one in facts.histories]
    return RecoveryError(
        f"The origin of timeline {timeline} is unknown, because its history file is not in the archive: {why}",
        hint=f"archive pg_wal/{timeline:08X}.history from a server that has it (`tmi-ops wal push`), or follow an "
        f"earlier timeline: --timeline {readable[-1] if readable else 1}",
        code=Code.WAL_INCOMPLETE,
    )


def several_lines(target: Target, tips: Sequence[Tip]) -> RecoveryError:
    return RecoveryError(
        f"{len(tips)} lines of this cluster live: {describe_lines(tips)}. "
        f"{_begun(target)} is a different state on each.",
        detail="Nothing was restored.",
        hint=f"choose one with --timeline, such as --timeline {tips[-1].timeline}. If one is abandoned, record which "
        "line belongs to the environment: `tmi-ops wal line TIMELINE`",
        code=Code.TARGET_AMBIGUOUS,
    )


def no_restore_point(target: Target, line: Lineage) -> RecoveryError:
    return RecoveryError(
        f"The archived WAL of timeline {line.timelines[-1]} has no restore point {target.name!r}.",
        hint="check its spelling, including case, and whether it is on another timeline (--timeline); to restore to "
        "a time, use --to-time",
        code=Code.TARGET_UNKNOWN,
    )


def misspelt_restore_point(name: str, similar: Sequence[str]) -> RecoveryError:
    return RecoveryError(
        f"There is no restore point {name!r}. Similar names: {', '.join(map(repr, similar))}.",
        detail="Nothing was fetched or restored.",
        hint="use the exact name; `tmi-ops restore --to-name NAME --dry-run` shows what a restore would do",
        code=Code.TARGET_UNKNOWN,
    )


def before_first_base(facts: RecoveryFacts, target: Target, usable: Sequence[BaseManifest]) -> RecoveryError:
    if not usable:
        others = sorted({base.timeline for base in facts.bases})
        return RecoveryError(
            "There is no base backup on this timeline or on those it came from." + _left_out(facts),
            hint=f"choose a timeline that has base backups ({_listed(others)}) with --timeline",
            code=Code.NO_BASE_BACKUP,
        )
    first = usable[-1]
    return RecoveryError(
        f"{_begun(target)} lies before the end of the first base backup on this timeline, {first.backup_id}."
        + _left_out(facts),
        hint=f"restore to {format_time(first.consistent_at)} (LSN {first.stop_lsn}) or later; a logical backup may be "
        "older: `tmi-ops backups`",
        code=Code.TARGET_TOO_EARLY,
    )


def _left_out(facts: RecoveryFacts) -> str:
    """Backups that could not be read or trusted; the one the user meant may be among them."""
    return f" Left out: {' '.join(facts.broken)}" if facts.broken else ""


def clock_put_back(target: Target, first: BaseManifest, second: BaseManifest) -> RecoveryError:
    return RecoveryError(
        f"{_begun(target)} is ambiguous: the server's clock was put back. {first.backup_id} ended at "
        f"{format_time(first.consistent_at)} (LSN {first.stop_lsn}), and {second.backup_id}, later in the WAL, at "
        f"{format_time(second.consistent_at)} (LSN {second.stop_lsn}).",
        hint="name the position in the WAL with --to-lsn; `tmi-ops recover find` lists commits with their LSN",
        code=Code.TARGET_AMBIGUOUS,
    )


def no_whole_chain(target: Target, why_not: Sequence[str]) -> RecoveryError:
    return RecoveryError(
        f"No base backup that leads to {target.describe()} can be used. {' '.join(why_not)}",
        hint="if the bucket keeps versions, restore the missing objects; or choose a time after a usable base backup "
        "(`tmi-ops backups`); or use a base backup whose only fault is a failed verification: --backup ID",
        code=Code.BASE_UNUSABLE,
    )


def no_such_base(wanted: str, facts: RecoveryFacts) -> RecoveryError:
    return RecoveryError(
        f"This cluster has no base backup {wanted} with a readable manifest, or several whose ids begin so."
        + _left_out(facts),
        hint="list the ids with `tmi-ops backups`; --cluster chooses another cluster",
    )


def base_of_another_line(base: BaseManifest) -> RecoveryError:
    return RecoveryError(
        f"{base.backup_id} ended at {base.stop_lsn} on timeline {base.timeline}, which is not part of this line.",
        hint=f"follow its timeline: --timeline {base.timeline}",
    )


def base_after_target(base: BaseManifest, target: Target) -> RecoveryError:
    return RecoveryError(
        f"{base.backup_id} ended at {format_time(base.consistent_at)} (LSN {base.stop_lsn}), "
        f"after {target.describe()}.",
        hint="leave out --backup to use a base backup from before the target",
    )


def broken_chain(base: BaseManifest, gone: str) -> RecoveryError:
    return RecoveryError(
        f"{base.backup_id} is incremental and depends on {gone}, which is missing or has an unreadable manifest.",
        hint="leave out --backup to use a complete chain; or, if the bucket keeps versions, restore an earlier version "
        "of the missing objects",
        code=Code.BASE_UNUSABLE,
    )


def after_last_wal(target: Target, wal: WalRange) -> RecoveryError:
    return RecoveryError(
        f"{_begun(target)} lies after the last archived WAL, which ends at {format_lsn(wal.end)}.",
        hint=_CATCH_UP,
        code=Code.TARGET_TOO_LATE,
    )


def after_last_commit(target: Target, newest: datetime | None, wal: WalRange) -> RecoveryError:
    last = f"its last commit is at {format_time(newest)}" if newest else "it has no commit after the base backup"
    return RecoveryError(
        f"{_begun(target)} lies after the last archived WAL, which ends at {format_lsn(wal.end)}; {last}.",
        hint=_CATCH_UP,
        code=Code.TARGET_TOO_LATE,
    )


def hole(target: Target, wal: WalRange, reached: datetime | None = None) -> RecoveryError:
    if wal.broken is not None:
        return _break(target, wal, reached)
    missing = wal.missing.name if wal.missing else "a segment"
    until = f"{format_lsn(wal.end)}{f' (last commit {format_time(reached)})' if reached else ''}"
    return RecoveryError(
        f"The WAL that leads to {target.describe()} has a gap: {missing} is missing from the archive, though there is "
        f"WAL after it. It can be replayed up to {until}.",
        hint=f"archive the segment from wherever it still exists (`tmi-ops wal push`), or restore what is before the "
        f"gap: --to-lsn {format_lsn(wal.end)}; `tmi-ops wal gaps` lists all gaps",
        code=Code.WAL_INCOMPLETE,
    )


def _break(target: Target, wal: WalRange, reached: datetime | None) -> RecoveryError:
    last = f" (last commit {format_time(reached)})" if reached else ""
    return RecoveryError(
        f"The WAL does not lead to {target.describe()}. {wal.why_it_ends()} It can be replayed up to "
        f"{format_lsn(wal.end)}{last}.",
        hint=f"restore what is before that: --to-lsn {format_lsn(wal.end)} --exclusive. A base backup taken after "
        "it leads further; `tmi-ops wal gaps` lists all such places",
        code=Code.WAL_INCOMPLETE,
    )


def tablespace_in_the_wal(base: BaseManifest, place: str, said: str) -> RecoveryError:
    return RecoveryError(
        f"The WAL after {base.backup_id} creates a tablespace at {place}. The replay would create it there, which on "
        f"the server's own machine means over its files, so the replay was stopped: {said}.",
        detail="Nothing was written there; what was restored so far was removed again.",
        hint="start from a base backup that was taken later, whose tablespaces may go anywhere, or choose an earlier "
        f"target. If nothing on this machine needs {place}, make it an empty directory owned by the account that "
        f"the cluster runs as: `tmi-ops restore --tablespace-mapping {place}={place}`",
    )


def between_timelines(target: Target, fork: Fork, timeline: int) -> RecoveryError:
    last = f" (last commit before that: {format_time(fork.last_before)})" if fork.last_before else ""
    after = (
        f"the first commit towards timeline {timeline} is at {format_time(fork.first_after)}"
        if fork.first_after
        else f"there is no commit towards timeline {timeline} yet"
    )
    return RecoveryError(
        f"{_begun(target)} lies between two timelines: timeline {fork.timeline} was left at LSN {format_lsn(fork.lsn)}"
        f"{last}, and {after}. What was committed at that time is on timeline {fork.timeline}, which was abandoned.",
        hint=f"to restore the data of that time, use --timeline {fork.timeline}; to restore the state at which "
        f"timeline {fork.timeline} was left, use --to-lsn {format_lsn(fork.lsn)}",
        code=Code.TARGET_AMBIGUOUS,
    )


def _begun(target: Target) -> str:
    words = target.describe()
    return f"{words[:1].upper()}{words[1:]}"


def _listed(timelines: Collection[int]) -> str:
    return "timeline " + ", ".join(str(one) for one in sorted(timelines)) if timelines else "none"
