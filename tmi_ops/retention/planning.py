"""Makes a retention plan from facts, a policy and the current time. Pure.

A backup is kept by a hold, Object Lock, the recovery window, a count of the policy, or a kept backup that depends on
it, or if it is the newest or the newest verified one of its subject. The window keeps the backups within it and the
newest verified backup before it, which has the data as of the beginning of the window. No backup of a subject without a
verified backup is removed. If no backup at all is verified, only old unfinished uploads are removed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from tmi_ops.error_codes import Code
from tmi_ops.errors import BackupError
from tmi_ops.retention.facts import Backup, ClusterWal, HalfMade, RetentionFacts, WalFile
from tmi_ops.retention.plan import Decision, RetentionPlan, WalDecision
from tmi_ops.retention.wal_need import Range, WindowNeed, own_wal, window_needs
from tmi_ops.settings import RetentionPolicy
from tmi_ops.store.guarding import UNTIL_RELEASED

CLOCKS_DIFFER = timedelta(minutes=10)
# If a store has received nothing for this long and for the whole window, its backups have stopped or a clock has
# jumped.
SILENCE = timedelta(days=3)


class RetentionRefusedError(BackupError):
    """Removing anything now might be a mistake, so nothing is removed."""

    default_code = Code.RETENTION_REFUSED


def require_sane_clocks(facts: RetentionFacts, window: timedelta, now: datetime) -> None:
    """Check the clocks, because a wrong clock must not make retention delete backups that are still needed.

    Raises:
        RetentionRefusedError: our clock, the store's clock and the times in the store contradict each other, or no
            backup and no WAL was stored for longer than `SILENCE` and the window.
    """
    if facts.store_now is not None and abs(now - facts.store_now) > CLOCKS_DIFFER:
        raise _refused(
            f"This machine's clock says {now:%Y-%m-%d %H:%M} UTC, the store's {facts.store_now:%Y-%m-%d %H:%M} UTC",
            "set the clock that is wrong (`timedatectl`), then prune again",
            Code.CLOCKS_DIFFER,
        )
    ahead = [backup for backup in facts.backups if backup.taken_at > now + CLOCKS_DIFFER]
    if ahead:
        raise _refused(
            f"{ahead[0].backup_id} has the time {ahead[0].taken_at:%Y-%m-%d %H:%M} UTC, which is in the future: this "
            f"machine's clock says {now:%Y-%m-%d %H:%M}",
            "compare the clocks of this machine, the database server and the store",
            Code.CLOCKS_DIFFER,
        )
    if facts.newest_at is not None and facts.newest_at > now + CLOCKS_DIFFER:
        raise _refused(
            f"The newest object in the store has the time {facts.newest_at:%Y-%m-%d %H:%M} UTC, which is in the future",
            "compare the clocks of this machine and the store",
            Code.CLOCKS_DIFFER,
        )
    if facts.newest_at is not None and now - facts.newest_at > max(SILENCE, window):
        raise _refused(
            f"The store has received no backup and no WAL since {facts.newest_at:%Y-%m-%d %H:%M} UTC "
            f"({(now - facts.newest_at).days} days): backups have stopped, or a clock has jumped",
            "take a backup (`tmi-ops backup logical`) and verify it (`tmi-ops verify latest`), then prune again",
            Code.BACKUPS_STOPPED,
        )


def _refused(what: str, hint: str, code: Code) -> RetentionRefusedError:
    return RetentionRefusedError(f"{what}.", detail="Nothing was deleted.", hint=hint, code=code)


HALF_MADE_AFTER = timedelta(days=1)
# The base backup of a large cluster may be one upload, which may take longer than a day, but not this long.
UPLOAD_STALE_AFTER = timedelta(days=7)
# A receiver may take this long to remove the pieces of a segment that is stored whole.
SUPERSEDED_AFTER = timedelta(hours=1)

_Reasons = dict[str, list[str]]
_PERIODS: Mapping[str, Callable[[datetime], str]] = {
    "daily": lambda time: f"{time:%Y-%m-%d}",
    "weekly": lambda time: f"{time:%G-W%V}",
    "monthly": lambda time: f"{time:%Y-%m}",
    "yearly": lambda time: f"{time:%Y}",
}


def plan_retention(facts: RetentionFacts, policy: RetentionPolicy, now: datetime) -> RetentionPlan:
    """Decide what is kept and what is removed. `now` must be timezone-aware.

    Raises:
        RetentionRefusedError: the clocks contradict each other, or nothing has been stored for days.
    """
    require_sane_clocks(facts, policy.window, now)
    cutoff = now - policy.window
    reasons: _Reasons = defaultdict(list)
    _keep_guarded(facts.backups, reasons, now)
    for backups in _by_subject(facts.backups).values():
        _keep_of_subject(backups, policy, cutoff, reasons)
    anything_verified = any(backup.verification == "proven" for backup in facts.backups)
    needs = window_needs(facts, cutoff) if anything_verified else _everything(facts)
    _keep_for_window(facts.backups, needs, reasons)
    _keep_chains(facts.backups, reasons)
    newest_first = sorted(facts.backups, key=lambda backup: (backup.taken_at, backup.backup_id), reverse=True)
    kept = [backup for backup in newest_first if reasons.get(backup.backup_id)]
    gone = [backup for backup in newest_first if not reasons.get(backup.backup_id)]
    gone.sort(key=lambda backup: (-len(backup.chain), backup.taken_at))
    return RetentionPlan(
        policy=policy,
        kept=tuple(Decision(backup, tuple(dict.fromkeys(reasons[backup.backup_id]))) for backup in kept),
        removed=tuple(Decision(backup, (_why_it_goes(backup, policy),)) for backup in gone),
        wal=tuple(_wal_decision(wal, kept, needs[wal.system_identifier], cutoff, now) for wal in facts.wal),
        half_made=tuple(item for item in facts.half_made if anything_verified and _is_forgotten(item, facts, now)),
        uploads=tuple(upload for upload in facts.uploads if now - upload.begun > UPLOAD_STALE_AFTER),
        has_object_lock=facts.has_object_lock,
    )


def _keep_guarded(backups: Iterable[Backup], reasons: _Reasons, now: datetime) -> None:
    for backup in backups:
        if backup.hold is not None:
            reasons[backup.backup_id].append(f"held: {backup.hold.reason}")
        if backup.locked_until is not None and backup.locked_until > now:
            until = "released" if backup.locked_until == UNTIL_RELEASED else f"{backup.locked_until:%Y-%m-%d %H:%M} UTC"
            reasons[backup.backup_id].append(f"Object Lock until {until}")


def _by_subject(backups: Iterable[Backup]) -> dict[str, list[Backup]]:
    """The backups by subject, newest first."""
    groups: dict[str, list[Backup]] = defaultdict(list)
    for backup in sorted(backups, key=lambda backup: (backup.taken_at, backup.backup_id), reverse=True):
        groups[backup.subject].append(backup)
    return groups


def _keep_of_subject(backups: Sequence[Backup], policy: RetentionPolicy, cutoff: datetime, reasons: _Reasons) -> None:
    verified = [backup for backup in backups if backup.verification == "proven"]
    if not verified:
        for backup in backups:
            reasons[backup.backup_id].append(f"no backup of {backup.subject} is verified yet")
        return
    # Newest by when it was taken, and by when it arrived in the store: if these differ, both are kept.
    for newest in (verified[0], max(verified, key=_arrival)):
        reasons[newest.backup_id].append("the newest verified")
    for newest in (backups[0], max(backups, key=_arrival)):
        reasons[newest.backup_id].append("the newest")
    begins_with = next((backup for backup in verified if backup.taken_at < cutoff), None)
    for backup in backups:
        if backup.here_since >= cutoff:
            where = "" if backup.taken_at >= cutoff else "stored "
            reasons[backup.backup_id].append(f"{where}within the recovery window")
        elif begins_with is None or backup is begins_with:
            why = "the recovery window begins at it" if begins_with else "no verified backup is older than the window"
            reasons[backup.backup_id].append(why)
    sound = [backup for backup in backups if backup.verification != "failed"]
    for backup in sound[: policy.last]:
        reasons[backup.backup_id].append(f"one of the last {policy.last}")
    for name, period in _PERIODS.items():
        for label, backup in _best_of_periods(sound, period, getattr(policy, name)):
            reasons[backup.backup_id].append(f"{name}: {label}")


def _arrival(backup: Backup) -> tuple[datetime, str]:
    return backup.here_since, backup.backup_id


def _best_of_periods(
    backups: Sequence[Backup], period: Callable[[datetime], str], count: int
) -> list[tuple[str, Backup]]:
    """The newest verified backup of each of the newest `count` periods that have backups. The newest one if none is
    verified."""
    groups: dict[str, list[Backup]] = {}
    for backup in backups:
        label = period(backup.taken_at.astimezone(UTC))
        if label not in groups and len(groups) == count:
            break
        groups.setdefault(label, []).append(backup)
    return [
        (label, next((backup for backup in group if backup.verification == "proven"), group[0]))
        for label, group in groups.items()
    ]


def _everything(facts: RetentionFacts) -> dict[str, WindowNeed]:
    because = WindowNeed(whole_because="no backup is verified yet")
    return {wal.system_identifier: because for wal in facts.wal}


def _keep_for_window(backups: Sequence[Backup], needs: Mapping[str, WindowNeed], reasons: _Reasons) -> None:
    for need in needs.values():
        for anchor in need.anchors:
            reasons[anchor.backup_id].append("the recovery window begins at it")
    for backup in backups:
        need_of_it = needs.get(backup.system_identifier)
        if need_of_it is not None and need_of_it.whole_because:
            reasons[backup.backup_id].append(need_of_it.whole_because)


def _keep_chains(backups: Sequence[Backup], reasons: _Reasons) -> None:
    for backup in sorted(backups, key=lambda backup: -len(backup.chain)):
        if reasons.get(backup.backup_id):
            for link in backup.chain:
                reasons[link].append(f"{backup.backup_id} depends on it")


def _why_it_goes(backup: Backup, policy: RetentionPolicy) -> str:
    if backup.verification == "failed":
        return "its verification failed, and it is older than the recovery window"
    return f"older than the recovery window, and not kept by the policy ({policy.describe()})"


def _wal_decision(
    wal: ClusterWal, kept: Iterable[Backup], need: WindowNeed, cutoff: datetime, now: datetime
) -> WalDecision:
    bases = [base for base in kept if base.system_identifier == wal.system_identifier and base.kind == "base"]
    if need.whole_because:
        size = sum(file.size for file in wal.files)
        return WalDecision(wal.system_identifier, len(wal.files), size, (), (need.whole_because,))
    ranges: dict[int, list[Range]] = defaultdict(list)
    for item in _merged([*need.ranges, *(own_wal(base) for base in bases)]):
        ranges[item.timeline].append(item)
    superseded = superseded_pieces(wal.files, now)
    stay = [
        file
        for file in wal.files
        if file.key not in superseded
        and (file.stored_at >= cutoff or any(r.meets(file) for r in ranges[file.timeline]))
    ]
    staying = {file.key for file in stay}
    go = sorted(
        (file for file in wal.files if file.key not in staying), key=lambda file: (file.timeline, file.start, file.key)
    )
    reasons = [f"the recovery window, from {anchor.backup_id} on" for anchor in need.anchors]
    if bases:
        reasons.append(f"needed to make the {len(bases)} kept base backups consistent")
    return WalDecision(
        wal.system_identifier, len(stay), sum(file.size for file in stay), tuple(go), tuple(dict.fromkeys(reasons))
    )


def superseded_pieces(files: Iterable[WalFile], now: datetime) -> frozenset[str]:
    """The keys of pieces whose segment has been stored whole for some time. They remain if the receiver may not remove
    objects, or died."""
    known = list(files)
    settled = {
        (file.timeline, file.start) for file in known if file.is_whole and now - file.stored_at > SUPERSEDED_AFTER
    }
    return frozenset(file.key for file in known if file.is_open and (file.timeline, file.start) in settled)


def _merged(ranges: Sequence[Range]) -> list[Range]:
    """Drop ranges that an open-ended range covers: that of the window covers the WAL of every base backup in it."""
    open_from: dict[int, int] = {}
    closed = []
    for item in dict.fromkeys(ranges):
        if item.end is None:
            open_from[item.timeline] = min(item.start, open_from.get(item.timeline, item.start))
        else:
            closed.append(item)
    return [
        *(Range(timeline, start, None) for timeline, start in open_from.items()),
        *(item for item in closed if item.start < open_from.get(item.timeline, item.start + 1)),
    ]


def _is_forgotten(item: HalfMade, facts: RetentionFacts, now: datetime) -> bool:
    """Whether it is no longer in progress: nothing was stored for a day, and no recent upload belongs to it."""
    uploading = any(
        f"/{item.backup_id}/" in f"/{upload.key}" and now - upload.begun <= UPLOAD_STALE_AFTER
        for upload in facts.uploads
    )
    return now - item.touched_at > HALF_MADE_AFTER and not uploading
