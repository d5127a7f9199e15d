"""What the store knows about a cluster, read once before a recovery is planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial

from tmi_ops.error_codes import Code
from tmi_ops.errors import OpsError, RecoveryError, StoreError
from tmi_ops.postgres.wal_files import TimelineSwitch, history_name, parse_lsn
from tmi_ops.recovery.wal_end import KnownWalEnd, read_receiver_wal_end
from tmi_ops.store.catalogue import CatalogueEntry, list_backups
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.remembered import remembered
from tmi_ops.store.seen import notice_cluster, notice_wal
from tmi_ops.wal.archive import WalArchive, list_wal
from tmi_ops.wal.commits import living_lines
from tmi_ops.wal.coverage import coverage
from tmi_ops.wal.fetching import read_history
from tmi_ops.wal.layout import file_key
from tmi_ops.wal.lines import Tip, lines_of


@dataclass(frozen=True)
class Fork:
    """Commit times around `lsn`, where a line left `timeline`; None if none was found nearby.

    `last_before` and `first_after` are on the line, `first_abandoned` is on the history it left.
    """

    timeline: int
    lsn: int
    last_before: datetime | None
    first_after: datetime | None
    first_abandoned: datetime | None


@dataclass(frozen=True)
class Edge:
    """Commit times around `lsn`, where a replay ends though the WAL goes on; None if none was found nearby.

    `last_before`: the newest before it; `first_after`: the first after a break, with no WAL missing in between.
    """

    lsn: int
    last_before: datetime | None
    first_after: datetime | None = None


@dataclass(frozen=True)
class WalClock:
    """Times read from the WAL of one line.

    `newest_commit`: None if there is none near the end. `edges`: places on the way to the target that no replay gets
    past.
    """

    newest_commit: datetime | None = None
    forks: tuple[Fork, ...] = ()
    edges: tuple[Edge, ...] = ()


@dataclass(frozen=True)
class NamedPlace:
    """The LSN of a restore point, and when it was created, by the server's clock; None: unknown."""

    lsn: int
    made_at: datetime | None = None


@dataclass(frozen=True)
class RecoveryFacts:
    """One cluster's base backups, WAL and timelines.

    Args:
        bases: those whose manifest can be read, in any order.
        failed: ids of base backups that failed verification.
        histories: of the timelines whose history can be read.
        broken: what could not be read or trusted, one sentence each.
        other_clusters: system identifiers of other clusters with base backups in the same store.
        clock: times of the line to recover along; None: not read.
        receiver: when it last saw the archive complete up to the server's WAL; None: never.
        tips: the lines that live.
        restore_point: the target restore point; None: not looked for, or not found.
    """

    system_identifier: str
    bases: tuple[BaseManifest, ...]
    archive: WalArchive
    histories: Mapping[int, tuple[TimelineSwitch, ...]]
    failed: frozenset[str] = frozenset()
    broken: tuple[str, ...] = ()
    other_clusters: tuple[str, ...] = ()
    clock: WalClock | None = None
    receiver: KnownWalEnd | None = None
    restore_point: NamedPlace | None = None
    histories_lost: Mapping[int, str] = field(default_factory=dict)
    tips: tuple[Tip, ...] = ()

    @cached_property
    def by_id(self) -> Mapping[str, BaseManifest]:
        """The base backups by their ids."""
        return {base.backup_id: base for base in self.bases}

    @cached_property
    def bases_begin(self) -> dict[int, int]:
        """By timeline, the LSN at which the first base backup on it begins."""
        return _bases_begin(self.bases)

    @property
    def living(self) -> tuple[Tip, ...]:
        """The lines that live, by timeline; just the newest line if their commits were not read."""
        return self.tips or tuple(
            Tip(line, coverage(self.archive, line).known_end or 0)
            for line in lines_of(self.archive, self.histories, self.bases_begin)[-1:]
        )

    @property
    def server_major(self) -> int:
        """PostgreSQL's major version, from the newest base backup."""
        newest = max(self.bases, key=lambda base: base.consistent_at)
        return newest.server_version_num // 10000


def read_facts(store: ObjectStore, system_identifier: str | None = None, *, whole: bool = False) -> RecoveryFacts:
    """Read the catalogue of base backups, the list of archived WAL, and the timeline histories.

    Args:
        system_identifier: of the cluster; None for that of the newest base backup.
        whole: list every segment instead of using the index.

    Raises:
        RecoveryError: there is no base backup, or none of that cluster.
        StoreError: the store failed.
    """
    broken: list[str] = []
    entries = list_backups(store, lambda error: broken.append(error.message), kinds=("base",))
    return facts_from(store, entries, broken, system_identifier, partial(list_wal, store, whole=whole))


def facts_from(
    store: ObjectStore,
    entries: Sequence[CatalogueEntry],
    broken: Sequence[str],
    system_identifier: str | None,
    archive_of: Callable[[str], WalArchive],
    receiver_of: Callable[[str], KnownWalEnd | None] | None = None,
) -> RecoveryFacts:
    """Like `read_facts`, from a catalogue of base backups that was read already.

    Args:
        archive_of: reads the archive of the cluster with this system identifier.
        receiver_of: reads what its receiver reported; None to read it from the store.

    Raises:
        RecoveryError, StoreError: as `read_facts`.
    """
    bases = [entry.manifest for entry in entries if isinstance(entry.manifest, BaseManifest)]
    clusters = {base.system_identifier for base in sorted(bases, key=lambda base: base.consistent_at)}
    newest, chosen = _newest_cluster(bases, broken), system_identifier
    if system_identifier is None:
        system_identifier = newest
    elif system_identifier not in clusters:
        raise RecoveryError(
            f"The store has no base backup of the cluster {system_identifier}.",
            hint=f"choose one of these with --cluster: {', '.join(sorted(clusters)) or 'none'}",
            code=Code.NO_BASE_BACKUP,
        )
    ask = receiver_of or partial(_ask_receiver, store)
    receiver = ask(system_identifier)  # before the archive, which may grow in the meantime
    archive = archive_of(system_identifier)
    warned = notice_cluster(store, newest, chosen=chosen == newest)
    warned += notice_wal(store, system_identifier, archive.ends)
    histories, lost = _read_histories(store, archive)
    own = tuple(base for base in bases if base.system_identifier == system_identifier)
    failed = (entry.manifest.backup_id for entry in entries if entry.failed)
    return RecoveryFacts(
        system_identifier=system_identifier,
        bases=own,
        archive=archive,
        histories=histories,
        failed=frozenset(failed),
        broken=(*broken, *archive.problems, *warned),
        other_clusters=tuple(sorted(clusters - {system_identifier})),
        histories_lost=lost,
        receiver=receiver,
        tips=living_lines(store, archive, histories, _bases_begin(own)),
    )


def _bases_begin(bases: Sequence[BaseManifest]) -> dict[int, int]:
    begins: dict[int, int] = {}
    for base in bases:
        begin = parse_lsn(base.start_lsn)
        begins[base.timeline] = min(begin, begins.get(base.timeline, begin))
    return begins


def _newest_cluster(bases: Sequence[BaseManifest], broken: Sequence[str]) -> str:
    if not bases:
        raise RecoveryError(
            "There is no base backup, so no cluster can be recovered."
            + (f" Not readable: {' '.join(broken)}" if broken else ""),
            hint="restore a logical backup: `tmi-ops backups`, then `tmi-ops restore --backup ID --into DATABASE`",
            code=Code.NO_BASE_BACKUP,
        )
    return max(bases, key=lambda base: base.consistent_at).system_identifier


def _ask_receiver(store: ObjectStore, system_identifier: str) -> KnownWalEnd | None:
    try:
        return read_receiver_wal_end(store, system_identifier)
    except StoreError as error:
        if error.transient:
            raise
        return None  # useful, but not required


def _read_histories(
    store: ObjectStore, archive: WalArchive
) -> tuple[dict[int, tuple[TimelineSwitch, ...]], dict[int, str]]:
    """The readable histories, and why the others cannot be read. Only lines that need the latter are lost."""
    histories, lost = {}, {}
    for timeline in archive.histories:
        try:
            histories[timeline] = remembered(
                store,
                (key := file_key(archive.system_identifier, history_name(timeline))),
                archive.etags.get(key, ""),
                partial(read_history, store, archive.system_identifier, timeline),
            )
        except StoreError as error:
            if error.transient:
                raise
            lost[timeline] = error.message
        except OpsError as error:
            lost[timeline] = error.message
    return histories, lost
