"""What the store says of a cluster that is to be recovered: read once, before anything is decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial

from tmi_ops.errors import OpsError, RecoveryError, StoreError
from tmi_ops.postgres.wal_files import TimelineSwitch, history_name, parse_lsn
from tmi_ops.recovery.witness import Witness, ask_receiver
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
    """Commits around the place `lsn` where a line left `timeline`; None where none was found near it.

    `last_before` and `first_after` are on the line, `first_abandoned` is on what the line left behind.
    """

    timeline: int
    lsn: int
    last_before: datetime | None
    first_after: datetime | None
    first_abandoned: datetime | None


@dataclass(frozen=True)
class Edge:
    """Commits around LSN `lsn`, where a replay ends though the WAL goes on; None where none was found near it.

    `last_before` is the newest one before it; `first_after` the first one behind a break, with no WAL missing between.
    """

    lsn: int
    last_before: datetime | None
    first_after: datetime | None = None


@dataclass(frozen=True)
class WalClock:
    """Times read out of the WAL of one line: its newest commit (None: none near the end), its forks, and the places
    that no replay passes on the way to the target."""

    newest_commit: datetime | None = None
    forks: tuple[Fork, ...] = ()
    edges: tuple[Edge, ...] = ()


@dataclass(frozen=True)
class NamedPlace:
    """Where a restore point lies in the WAL, and when it was made, by the server's clock; None: not known."""

    lsn: int
    made_at: datetime | None = None


@dataclass(frozen=True)
class RecoveryFacts:
    """One cluster's base backups, WAL and timelines.

    Args:
        bases: those whose manifest can be read, in any order.
        failed: ids of bases that a proof has found bad.
        histories: of the timelines whose history can be read.
        broken: what could not be read or believed, a sentence each.
        other_clusters: system identifiers of other clusters with base backups in the same store.
        clock: times of the line that leads to `clock_timeline`; None: not read.
        receiver: when it saw the archive level with the server; None: none ever did.
        tips: the lines that live.
        restore_point: the one that is the target; None: not looked for, or not found.
    """

    system_identifier: str
    bases: tuple[BaseManifest, ...]
    archive: WalArchive
    histories: Mapping[int, tuple[TimelineSwitch, ...]]
    failed: frozenset[str] = frozenset()
    broken: tuple[str, ...] = ()
    other_clusters: tuple[str, ...] = ()
    clock: WalClock | None = None
    receiver: Witness | None = None
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
        """The lines that live, by timeline; where nobody looked when they committed, the newest."""
        return self.tips or tuple(
            Tip(line, coverage(self.archive, line).known_end or 0)
            for line in lines_of(self.archive, self.histories, self.bases_begin)[-1:]
        )

    @property
    def server_major(self) -> int:
        """PostgreSQL's major version, by the newest base."""
        newest = max(self.bases, key=lambda base: base.consistent_at)
        return newest.server_version_num // 10000


def read_facts(store: ObjectStore, system_identifier: str | None = None, *, whole: bool = False) -> RecoveryFacts:
    """Read the catalogue of base backups, what WAL there is, and the histories of timelines.

    Args:
        system_identifier: which cluster; None: that of the newest base backup.
        whole: list every segment, whatever the index says.

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
    receiver_of: Callable[[str], Witness | None] | None = None,
) -> RecoveryFacts:
    """As `read_facts`, of a catalogue of base backups that is at hand already.

    Args:
        archive_of: reads the archive of the cluster with this system identifier.
        receiver_of: what its receiver told; None: it is asked.

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
            hint=f"it has those of {', '.join(sorted(clusters)) or 'no cluster'}: choose one with --cluster",
        )
    ask = receiver_of or partial(_ask_receiver, store)
    receiver = ask(system_identifier)  # before the archive, which may grow meanwhile
    archive = archive_of(system_identifier)
    warned = notice_cluster(store, newest, chosen=chosen == newest)
    warned += notice_wal(store, system_identifier, archive.ends)
    histories, lost = _read_histories(store, archive)
    own = tuple(base for base in bases if base.system_identifier == system_identifier)
    failed = (entry.manifest.backup_id for entry in entries if entry.verdict and entry.verdict.outcome == "failed")
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
        begins[base.timeline] = min(parse_lsn(base.start_lsn), begins.get(base.timeline, parse_lsn(base.start_lsn)))
    return begins


def _newest_cluster(bases: Sequence[BaseManifest], broken: Sequence[str]) -> str:
    if not bases:
        raise RecoveryError(
            "There is no base backup, so there is no cluster that could be recovered."
            + (f" What could not be read: {' '.join(broken)}" if broken else ""),
            hint="restore a logical backup: `tmi-ops backups`, then `tmi-ops restore --backup ID --into DATABASE`",
        )
    return max(bases, key=lambda base: base.consistent_at).system_identifier


def _ask_receiver(store: ObjectStore, system_identifier: str) -> Witness | None:
    try:
        return ask_receiver(store, system_identifier)
    except StoreError as error:
        if error.transient:
            raise
        return None  # what a receiver has seen is a help, not a need


def _read_histories(
    store: ObjectStore, archive: WalArchive
) -> tuple[dict[int, tuple[TimelineSwitch, ...]], dict[int, str]]:
    """Those that can be read, and why the others cannot: only a line that needs one of these is lost."""
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
