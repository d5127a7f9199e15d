"""Reads what is recoverable: the server first, if it answers, then one listing of the store.

The server's WAL position is read before the archive is listed: what it had written by then is archived if the archive
reaches that far. The store must answer; if something else does not, the facts say so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from tmi_ops.errors import OpsError, RecoveryError, StoreError
from tmi_ops.objectives.by_shadow import counted, problems_of, read_shadow
from tmi_ops.objectives.drills import read_drills
from tmi_ops.objectives.facts import (
    LastVerification,
    LogicalBackup,
    ReceiverReading,
    RecoverabilityFacts,
    ServerReading,
    ShadowReading,
    Usage,
)
from tmi_ops.objectives.reach import WalReach, logical_reach, newest_of, reach_by_wal
from tmi_ops.objectives.server import ask_about_wal
from tmi_ops.objectives.store_usage import OTHER, oldest_named, other_usage, read_entries, usage_of
from tmi_ops.postgres.programs import server_programs
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.point_in_time.clock import with_times
from tmi_ops.recovery.point_in_time.facts import RecoveryFacts, facts_from
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.recovery.wal_end import KnownWalEnd, lease_wal_end
from tmi_ops.settings import Settings
from tmi_ops.shadow.reading import known_shadows
from tmi_ops.store.catalogue import CatalogueEntry
from tmi_ops.store.folders import kind_of
from tmi_ops.store.manifest import BaseManifest, Manifest
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.overview import Overview, overview
from tmi_ops.wal.archive import Stored, WalArchive, list_wal
from tmi_ops.wal.lease import Lease, is_held, read_lease

# A receiver reports every few seconds. If neither it nor the server knows anything newer than this, the newest segments
# are fetched to read their commits.
WITNESSED_LATELY = timedelta(minutes=1)
VERIFIED_LOGICAL = 2
# How long a guard trusts the catalogue and the index without checking that their objects exist.
SEEN_AGAIN_S = 600.0
# When this process last checked, by store and environment.
_SEEN_THERE: dict[tuple[str, str], float] = {}


def read_recoverability(
    settings: Settings, store: ObjectStore, now: datetime | None = None, *, whole: bool = False
) -> RecoverabilityFacts:
    """Read what can be recovered now.

    Args:
        now: this machine's time when the reading starts; None: now.
        whole: also check old backups, and measure the space of everything besides backups and WAL.

    Raises:
        StoreError: the store could not be read.
    """
    return _Reading(settings, store, now or datetime.now(UTC), whole).read()


def read_dumps(settings: Settings, store: ObjectStore) -> tuple[LogicalBackup, ...]:
    """The logical backups of this database only, as in `RecoverabilityFacts.logical`.

    Raises:
        StoreError: the store could not be read.
    """
    view = overview(store, thoroughness="recent")
    return tuple(map(_logical, _logical_entries(settings, store, view, lambda _broken: None)))


@dataclass
class _Reading:
    settings: Settings
    store: ObjectStore
    now: datetime
    whole: bool
    archives: list[Stored] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    thorough: bool = True

    def read(self) -> RecoverabilityFacts:
        server, witness, server_problem = _ask(self.settings)
        self.thorough = self.whole or _is_due(self.store)
        view = overview(self.store, thoroughness="names" if self.thorough else "recent")
        measured = read_drills(view.over(self.store), view.drills, self._broken)
        entries = _logical_entries(self.settings, self.store, view, self._broken)
        logical = [_logical(entry) for entry in entries]
        bases = list(read_entries(self.store, view, "base", self._broken))
        by_wal, receiver = self._wal(bases, server, witness)
        if by_wal is None or any(one is not None and one.missing for one in (by_wal.verified, by_wal.newest)):
            _SEEN_THERE.pop((self.store.where, self.store.root), None)  # check again at the next reading
        if server is not None:
            server = self._beside_archive(server, by_wal)
        verified = newest_of(by_wal.verified if by_wal else None, logical_reach(logical, verified=True))
        newest = newest_of(by_wal.newest if by_wal else None, logical_reach(logical, verified=False), verified)
        way = by_wal.way if by_wal else None
        shadow = self._shadow(by_wal.system_identifier if by_wal else None)
        told = counted(verified, newest, way, shadow)
        return RecoverabilityFacts(
            environment=self.settings.name,
            read_at=self.now,
            verified=told.verified,
            newest=told.newest,
            earliest_at=by_wal.earliest_at if by_wal else None,
            oldest_backup_at=_oldest([*bases, *entries], view),
            server=server,
            server_problem=server_problem,
            receiver=receiver,
            way=way,
            last_verification=_last_verification([*bases, *entries]),
            logical=tuple(logical),
            drills=measured,
            failed=tuple(entry.manifest.backup_id for entry in [*bases, *entries] if entry.failed),
            storage=self._usage(view),
            problems=tuple(dict.fromkeys(self.problems)),
            ambiguous=by_wal.ambiguous if by_wal else None,
            shadow=shadow,
        )

    def _shadow(self, cluster: str | None) -> ShadowReading | None:
        reports = known_shadows(self.settings, self.store, self._broken)
        self.problems += problems_of(reports, cluster)
        return read_shadow(reports, cluster)

    def _broken(self, error: OpsError) -> None:
        self.problems.append(error.message)

    def _usage(self, view: Overview) -> dict[str, Usage]:
        usage = usage_of(view, self.archives, self.now)
        if self.whole:
            other = other_usage(self.store, self.now)
            usage |= {OTHER: other} if other.objects else {}
        return usage

    def _wal(
        self, bases: list[CatalogueEntry], server: ServerReading | None, witness: KnownWalEnd | None
    ) -> tuple[WalReach | None, ReceiverReading | None]:
        cluster = self._cluster(bases, server)
        # The server's receiver counts, whichever cluster the base backups are of.
        own = server.system_identifier if server else cluster
        lease = self._lease(own) if own else None
        receiver = None if lease is None else _receiver(*lease)
        if cluster is None:
            return None, receiver
        told = lease_wal_end(cluster, lease[0]) if lease and own == cluster else None
        try:
            facts = facts_from(
                self.store,
                bases,
                (),
                cluster,
                partial(self._archive, bases=bases),
                lambda _: told,
            )
            witnesses = [one for one in (witness, told) if one is not None]
            reach = reach_by_wal(facts, bases, witnesses)
            if self._is_worth_a_look(reach):
                reach = reach_by_wal(self._with_clock(facts), bases, witnesses)
        except (RecoveryError, StoreError) as error:
            self._unless_away(error)
            return None, receiver
        self.problems += reach.problems
        return reach, receiver

    def _archive(self, cluster: str, bases: list[CatalogueEntry]) -> WalArchive:
        """The archive. Segments after the start of the newest verified base backup are listed; a guard does so only
        occasionally. Before that the index is trusted; retention corrects it.
        """
        behind = _place_of(bases, cluster) if self.thorough else None
        archive = list_wal(self.store, cluster, behind=behind)
        self.archives.append(archive.stored)
        return archive

    def _lease(self, cluster: str) -> tuple[Lease, float] | None:
        try:
            return read_lease(self.store, cluster)
        except StoreError as error:
            self._unless_away(error)
            return None

    def _unless_away(self, error: OpsError) -> None:
        """Record a problem if something cannot be read. Raise the error if the store is unavailable."""
        if error.transient:
            raise error
        self.problems.append(error.message)

    def _cluster(self, bases: list[CatalogueEntry], server: ServerReading | None) -> str | None:
        """The server's cluster if it has a base backup, else that of the newest one; None if there is none."""
        found = [entry.manifest for entry in bases if isinstance(entry.manifest, BaseManifest)]
        if not found:
            return None
        newest = max(found, key=lambda base: base.consistent_at).system_identifier
        if server is None or any(base.system_identifier == server.system_identifier for base in found):
            return server.system_identifier if server else newest
        self.problems.append(
            f"The store has no base backup of this server's cluster ({server.system_identifier}), only of another "
            f"({newest})."
        )
        return newest

    def _is_worth_a_look(self, reach: WalReach) -> bool:
        """Whether there is WAL beyond what server and receiver recently reported."""
        newest = reach.newest
        return newest is not None and reach.goes_on_unwitnessed and self.now - newest.at > WITNESSED_LATELY

    def _with_clock(self, facts: RecoveryFacts) -> RecoveryFacts:
        try:
            programs = server_programs(facts.server_major, self.settings.pg_bindir)
            scratch = self.settings.home / "scratch"
            return with_times(self.store, facts, Target(time=self.now), programs, scratch, SilentReport())
        except OpsError as error:
            self.problems.append(f"The times of the newest WAL could not be read: {error.message}")
            return facts

    def _beside_archive(self, server: ServerReading, reach: WalReach | None) -> ServerReading:
        if server.in_recovery:
            self.problems.append(
                f"{self.settings.postgres.describe()} is a standby: it does not know the WAL position of its primary."
            )
        if reach is None or reach.system_identifier != server.system_identifier:
            return server
        if server.timeline is not None and server.timeline != reach.timeline:
            self.problems.append(
                f"The server is on timeline {server.timeline}, the archive on timeline {reach.timeline}."
            )
            return server
        behind = max(0, server.lsn - reach.end)
        return replace(server, behind=behind, level=behind == 0 and not server.in_recovery)


def _logical_entries(
    settings: Settings, store: ObjectStore, view: Overview, broken: Callable[[OpsError], None]
) -> list[CatalogueEntry]:
    """The logical backups of this database with rows, down to the second verified one: older ones do not matter."""
    found: list[CatalogueEntry] = []
    verified = 0
    for entry in read_entries(store, view, "logical", broken):
        manifest = entry.manifest
        if not isinstance(manifest, Manifest) or manifest.format == "schema-only":
            continue
        if manifest.database != settings.postgres.database:
            continue
        found.append(entry)
        verified += entry.verified
        if verified == VERIFIED_LOGICAL:
            break
    return found


def _place_of(bases: Sequence[CatalogueEntry], cluster: str) -> tuple[int, int] | None:
    """Timeline and start LSN of a cluster's newest verified base backup, or of its newest one if none is verified.
    `bases`: newest first."""
    own = [(one.manifest, one.verification) for one in bases if isinstance(one.manifest, BaseManifest)]
    own = [one for one in own if one[0].system_identifier == cluster]
    verified = [base for base, verification in own if verification is not None and verification.passed]
    chosen = next(iter([*verified, *(base for base, _ in own)]), None)
    return None if chosen is None else (chosen.timeline, parse_lsn(chosen.start_lsn))


def _is_due(store: ObjectStore) -> bool:
    """Whether a guard must check again that older backups and WAL, which newer ones need, exist."""
    place, now = (store.where, store.root), time.monotonic()
    seen = _SEEN_THERE.get(place)
    if seen is not None and now - seen < SEEN_AGAIN_S:
        return False
    _SEEN_THERE[place] = now
    return True


def _ask(settings: Settings) -> tuple[ServerReading | None, KnownWalEnd | None, str | None]:
    try:
        reading, witness = ask_about_wal(settings)
    except OpsError as error:
        return None, None, error.message
    return reading, witness, None


def _receiver(lease: Lease, age_s: float) -> ReceiverReading:
    return ReceiverReading(
        at_work=is_held(lease, age_s),
        who=lease.describe(),
        since=lease.since,
        ended=lease.ended,
        age=timedelta(seconds=max(0.0, age_s)),
        level_at=lease.level_at,
        lsn=lease.lsn,
        timeline=lease.timeline,
    )


def _logical(entry: CatalogueEntry) -> LogicalBackup:
    manifest, verification = entry.manifest, entry.verification
    if not isinstance(manifest, Manifest):
        raise TypeError(manifest.kind)
    return LogicalBackup(
        backup_id=manifest.backup_id,
        snapshot_at=manifest.snapshot_at.astimezone(UTC),
        size=manifest.total_size,
        database_size=manifest.database_size,
        outcome=verification.outcome if verification else "not proven",
        restore=timedelta(seconds=verification.restore_seconds) if verification else None,
        verify=timedelta(seconds=sum(verification.phases.values())) if verification else None,
    )


def _last_verification(entries: list[CatalogueEntry]) -> LastVerification | None:
    verifications = [one.verification for one in entries if one.verification and one.verification.passed]
    last = max(verifications, key=lambda verification: verification.verified_at, default=None)
    kind = None if last is None else kind_of(last.backup_id)
    if last is None or kind is None:
        return None
    return LastVerification(
        last.backup_id, kind, last.verified_at.astimezone(UTC), timedelta(seconds=last.restore_seconds)
    )


def _oldest(entries: list[CatalogueEntry], view: Overview) -> datetime | None:
    """When the oldest base or logical backup was taken, or started if its manifest was not read."""
    read = [entry.manifest.taken_at.astimezone(UTC) for entry in entries]
    named = oldest_named(view)
    return min([*read, *([named] if named else [])], default=None)
