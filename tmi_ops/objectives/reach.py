"""The newest moment that each way of recovery can reach. Pure.

A base backup counts once a drill has verified it, with all WAL that continues it without a gap: newer base backups only
make recovery faster. So the WAL is followed from the newest verified base backup, and from the newest usable one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tmi_ops.objectives.facts import BaseWay, LogicalBackup, Reach
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.recovery.newest import NewestMoment, newest_moment
from tmi_ops.recovery.point_in_time.facts import RecoveryFacts
from tmi_ops.recovery.point_in_time.planning import bases_on, choose_line, why_unusable
from tmi_ops.recovery.point_in_time.wal_range import continued_at
from tmi_ops.recovery.wal_end import KnownWalEnd
from tmi_ops.store.catalogue import CatalogueEntry
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.wal.coverage import Coverage, coverage
from tmi_ops.wal.lineage import Lineage
from tmi_ops.wal.lines import several_live


@dataclass(frozen=True)
class WalReach:
    """How far base backups and WAL of one cluster reach, on its newest timeline.

    Args:
        end: LSN where the archived WAL of that line ends, ignoring gaps.
        goes_on_unwitnessed: there is WAL after the newest known moment.
        problems: other problems, a sentence each.
        ambiguous: a sentence if several lines live; None: only one does.
    """

    system_identifier: str
    timeline: int
    end: int
    verified: Reach | None
    newest: Reach | None
    earliest_at: datetime | None
    way: BaseWay | None
    goes_on_unwitnessed: bool
    problems: tuple[str, ...] = ()
    ambiguous: str | None = None


def reach_by_wal(facts: RecoveryFacts, entries: Sequence[CatalogueEntry], witnesses: Sequence[KnownWalEnd]) -> WalReach:
    """Follow the newest timeline from the base backups to the end of its WAL.

    Args:
        entries: the catalogue of base backups, for their verification.

    Raises:
        RecoveryError: the origin of the newest timeline is not known.
    """
    line = choose_line(facts, None)
    on_line = bases_on(facts, line)
    unusable = {base.backup_id: why for base in on_line if (why := why_unusable(facts, base))}
    usable = [base for base in on_line if base.backup_id not in unusable]
    verified_ids = {entry.manifest.backup_id for entry in entries if entry.verified}
    verified_base = next((base for base in usable if base.backup_id in verified_ids), None)
    newest_base = usable[0] if usable else None
    followed = {
        base.backup_id: newest_moment(facts, line, base, witnesses) for base in (verified_base, newest_base) if base
    }
    newest = followed[newest_base.backup_id] if newest_base else None
    return WalReach(
        system_identifier=facts.system_identifier,
        timeline=line.timelines[-1],
        end=max([coverage(facts.archive, line).end or 0, *(moment.wal.end for moment in followed.values())]),
        verified=_reach(verified_base, followed, verified=True) if verified_base else None,
        newest=_reach(newest_base, followed, verified=newest_base.backup_id in verified_ids) if newest_base else None,
        earliest_at=_earliest(usable, line, coverage(facts.archive, line)),
        way=_way(newest_base, facts, newest) if newest_base and newest else None,
        goes_on_unwitnessed=newest is not None and _unwitnessed(newest, witnesses),
        problems=(*unusable.values(), *facts.broken),
        ambiguous=several_live(facts.living),
    )


def logical_reach(backups: Sequence[LogicalBackup], *, verified: bool) -> Reach | None:
    """The newest logical backup that is verified, or whose verification did not fail."""
    wanted = ("proven",) if verified else ("proven", "not proven")
    found = [backup for backup in backups if backup.outcome in wanted]
    newest = max(found, key=lambda backup: backup.snapshot_at, default=None)
    if newest is None:
        return None
    return Reach(newest.snapshot_at, "logical backup", newest.backup_id, newest.outcome == "proven", "snapshot")


def newest_of(*reaches: Reach | None) -> Reach | None:
    """The newest reach. If several are equally new, the first."""
    return max((reach for reach in reaches if reach is not None), key=lambda reach: reach.at, default=None)


def _reach(base: BaseManifest, followed: dict[str, NewestMoment], *, verified: bool) -> Reach:
    moment = followed[base.backup_id]
    return Reach(
        at=moment.at.astimezone(UTC),
        means="WAL" if moment.wal.files else "base backup",
        backup_id=base.backup_id,
        verified=verified,
        shown_by=moment.shown_by,
        missing=moment.wal.missing.name if moment.wal.missing else None,
        broken=moment.wal.broken.describe() if moment.wal.broken else None,
    )


def _earliest(usable: Sequence[BaseManifest], line: Lineage, covered: Coverage) -> datetime | None:
    """When the oldest base backup ended whose WAL has no gap or break up to the end of the archive."""
    oldest_first = reversed(usable)
    whole = next((base for base in oldest_first if covered.leads_to_the_end(continued_at(base, line))), None)
    return None if whole is None else whole.consistent_at.astimezone(UTC)


def _way(base: BaseManifest, facts: RecoveryFacts, moment: NewestMoment) -> BaseWay:
    chain = [*(facts.by_id[link] for link in base.chain), base]
    return BaseWay(
        backup_id=base.backup_id,
        consistent_at=base.consistent_at.astimezone(UTC),
        fetched=sum(link.total_size for link in chain),
        full=chain[0].total_size,
        cluster_size=max(link.cluster_size for link in chain),
        replayed=max(0, moment.wal.end - parse_lsn(base.start_lsn)),
        chain_length=len(chain),
    )


def _unwitnessed(moment: NewestMoment, witnesses: Sequence[KnownWalEnd]) -> bool:
    return bool(moment.wal.files) and all(witness.lsn < moment.wal.end for witness in witnesses)
