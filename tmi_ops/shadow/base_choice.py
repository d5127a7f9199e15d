"""Chooses the base backup for a shadow, and restores its files.

It prefers base backups whose WAL leads to the end of the archive, among these the verified ones, and among these the
newest. A base backup that failed verification, or whose chain is broken, is never used.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tmi_ops.error_codes import Code
from tmi_ops.errors import OpsError, RecoveryError
from tmi_ops.postgres.programs import server_programs
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.progress import Report
from tmi_ops.recovery.point_in_time.execution import extracted_base
from tmi_ops.recovery.point_in_time.facts import RecoveryFacts, facts_from
from tmi_ops.recovery.point_in_time.planning import bases_on, choose_line, plan_recovery, why_unusable
from tmi_ops.recovery.point_in_time.server import run_as
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.recovery.point_in_time.wal_range import continued_at, wal_after
from tmi_ops.settings import Settings
from tmi_ops.shadow.place import Seed, destination_of, place, write_seed
from tmi_ops.store.catalogue import list_backups
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.store.objects import ObjectStore
from tmi_ops.wal.archive import list_wal
from tmi_ops.wal.lineage import Lineage
from tmi_ops.wal.lines import Tip, line_to


@dataclass(frozen=True)
class Candidate:
    """A base backup on the line. `leads`: its WAL leads to the end of the archive without a gap or break."""

    base: BaseManifest
    verified: bool
    leads: bool


@dataclass(frozen=True)
class Basis:
    """What the store has for a shadow: the facts, the line to follow, and the base backups on it, newest first."""

    facts: RecoveryFacts
    line: Lineage
    candidates: tuple[Candidate, ...]

    def line_to(self, timeline: int) -> Lineage | None:
        """The line that leads to a timeline; None if its origin is unknown."""
        return line_to(timeline, self.facts.histories, self.facts.bases_begin)

    @property
    def newest_timeline(self) -> int:
        """The highest timeline with WAL, a history or a base backup in the store."""
        facts = self.facts
        return max({1, *facts.archive.timelines, *facts.archive.histories, *facts.bases_begin})


def choose_base(candidates: Sequence[Candidate]) -> BaseManifest | None:
    """The base backup to restore, or None. `candidates`: newest first."""
    ranked = sorted(candidates, key=lambda one: (one.leads, one.verified), reverse=True)
    return ranked[0].base if ranked else None


def base_behind(candidates: Sequence[Candidate], lsn: int) -> BaseManifest | None:
    """A base backup that begins at or after `lsn`, a point that no replay can pass, or None."""
    return choose_base([one for one in candidates if parse_lsn(one.base.start_lsn) >= lsn])


def own_line(living: Sequence[Tip], own: int | None) -> Lineage | None:
    """If several lines live, the one that ends in timeline `own`; else None."""
    return next((tip.line for tip in living if tip.timeline == own), None) if len(living) > 1 else None


def read_basis(store: ObjectStore, system_identifier: str | None, own: int | None = None) -> Basis:
    """Read what the store has for a shadow.

    Args:
        own: the shadow's timeline: if several lines live, it stays on its own.

    Raises:
        RecoveryError: there is no base backup, or the origin of the newest timeline is unknown.
        StoreError: the store failed.
    """
    broken: list[str] = []
    entries = list_backups(store, lambda error: broken.append(error.message), kinds=("base",))
    facts = facts_from(store, entries, broken, system_identifier, lambda identifier: list_wal(store, identifier))
    line = own_line(facts.living, own) or choose_line(facts, None)
    verified = {one.manifest.backup_id for one in entries if one.verified}
    candidates = tuple(
        Candidate(base, base.backup_id in verified, not wal_after(base, line, facts.archive).goes_on)
        for base in bases_on(facts, line)
        if why_unusable(facts, base) is None and continued_at(base, line)
    )
    return Basis(facts, line, candidates)


def restore_base(
    settings: Settings, store: ObjectStore, basis: Basis, report: Report, *, without: Collection[str] = ()
) -> Seed:
    """Replace the shadow's files with those of a base backup.

    Args:
        without: ids of base backups that turned out to be damaged.

    Raises:
        UnusableBaseError: the one that was chosen is damaged.
        RecoveryError: no base backup can be used.
        OpsError: as `extracted_base`.
    """
    base = choose_base([one for one in basis.candidates if one.base.backup_id not in without])
    if base is None:
        raise RecoveryError(
            "No base backup of this cluster can be used, so the shadow cannot be restored.",
            hint="take one: `tmi-ops backup base`",
            code=Code.NO_BASE_BACKUP,
            transient=True,
        )
    clear(settings)
    begun = time.monotonic()
    timeline = basis.line.timelines[-1]
    plan = plan_recovery(
        basis.facts, Target(lsn=parse_lsn(base.stop_lsn), inclusive=False), timeline=timeline, base=base.backup_id
    )
    destination = destination_of(settings)
    identity = extracted_base(settings, store, plan, destination, report)
    (destination.directory / "recovery.signal").unlink(missing_ok=True)
    signal = destination.directory / "standby.signal"
    signal.touch(mode=0o600)
    identity.take_over(signal)
    # The files must survive a power cut; from here on, the server syncs its own writes.
    programs = server_programs(plan.server_major, settings.pg_bindir, settings.copy_libraries)
    run_as(identity, [programs.path("initdb"), "--sync-only", "--pgdata", destination.directory])
    seed = Seed(
        system_identifier=base.system_identifier,
        backup_id=base.backup_id,
        stop_lsn=base.stop_lsn,
        major=plan.server_major,
        wal_segment_size=base.wal_segment_size,
        role=base.superuser or base.role,
        superuser=base.superuser is not None,
        data_checksums=base.data_checksums,
        timeline=timeline,
        restore_s=time.monotonic() - begun,
    )
    write_seed(settings, seed)
    return seed


def clear(settings: Settings) -> None:
    """Remove the shadow's files; they can be restored from the store."""
    write_seed(settings, None)
    destination = destination_of(settings)
    for directory in (destination.directory, destination.tablespace_root):
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
    if destination.directory.exists():
        raise OpsError(f"{destination.directory} cannot be removed.", hint="remove it yourself")
    place(settings).mkdir(mode=0o755, parents=True, exist_ok=True)
