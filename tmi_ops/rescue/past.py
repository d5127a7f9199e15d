"""Opens a past of the database next to the live one, temporarily."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.cluster import require_free_space, scratch_cluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import server_programs
from tmi_ops.postgres.versions import major_of
from tmi_ops.progress import Report
from tmi_ops.recovery.fetch import disk_needed, fetch_backup
from tmi_ops.recovery.load import load_dump
from tmi_ops.recovery.new_database import create_database
from tmi_ops.recovery.point_in_time.confirmed import confirmed_plan
from tmi_ops.recovery.point_in_time.destination import Destination
from tmi_ops.recovery.point_in_time.execution import recovered_cluster
from tmi_ops.recovery.point_in_time.facts import read_facts
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.recovery.requirements import make_tablespaces, missing_at, requirements_of
from tmi_ops.recovery.roles import restore_roles
from tmi_ops.recovery.surroundings import read_surroundings
from tmi_ops.rescue.travel.open_past import writable_copy
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.catalogue import find_backup
from tmi_ops.store.objects import ObjectStore

_LOADED = "restored"


@dataclass(frozen=True)
class Moment:
    """Which past: a cluster recovered to `target`, or the logical backup `backup`, which needs no WAL.

    `open`: the target is that of the past held open by `tmi-ops travel`, whose files are used. `shadow`: from the
    shadow (see shadow/past.py); without a target, its current state.
    """

    target: Target | None = None
    backup: str | None = None
    open: bool = False
    shadow: bool = False

    def describe(self) -> str:
        if self.backup is not None:
            return f"the backup {self.backup}"
        target = self.target or Target()
        return target.describe() if target.inclusive else f"just before {target.describe()}"


@dataclass(frozen=True)
class Past:
    """How to connect to it, and a description of its moment."""

    address: PostgresSettings
    text: str


@contextmanager
def past_database(settings: Settings, store: ObjectStore, moment: Moment, report: Report) -> Iterator[Past]:
    """The past for the length of a `with` block, on a server that only our own account can reach.

    Raises:
        RecoveryError: the moment cannot be reached, or the database did not exist then.
        DiskSpaceError: the scratch area is too small.
        ProgramError: PostgreSQL programs of the past's version are not installed.
        StoreError: the store failed.
    """
    scratch = settings.home / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="past-", dir=scratch) as name:
        directory = Path(name)
        directory.chmod(0o755)
        if moment.open:
            with writable_copy(settings, store, directory, report) as address:
                yield Past(address, moment.describe())
        elif moment.backup is not None:
            with _loaded(settings, store, moment.backup, directory, report) as past:
                yield past
        else:
            with _recovered(settings, store, moment.target or Target(), directory, report) as past:
                yield past


@contextmanager
def _recovered(
    settings: Settings, store: ObjectStore, target: Target, directory: Path, report: Report
) -> Iterator[Past]:
    facts = read_facts(store)
    programs = server_programs(facts.server_major, settings.pg_bindir, settings.copy_libraries)
    plan = confirmed_plan(store, facts, target, programs, directory, report)
    destination = Destination(directory / "data", tablespace_root=directory / "tablespaces")
    with recovered_cluster(settings, store, plan, destination, report) as cluster:
        address = cluster.address.model_copy(update={"database": settings.postgres.database})
        _require_database(address, target)
        yield Past(address, Moment(target).describe())


@contextmanager
def _loaded(settings: Settings, store: ObjectStore, backup: str, directory: Path, report: Report) -> Iterator[Past]:
    manifest = find_backup(store, backup, settings.postgres.database)
    if manifest.format == "schema-only":
        raise RecoveryError(
            f"{manifest.backup_id} is schema-only; it has no rows.",
            hint="choose another logical backup (`tmi-ops backups`), or a moment with --to-time",
        )
    programs = server_programs(major_of(manifest.server_version_num), settings.pg_bindir, settings.copy_libraries)
    require_free_space(directory, disk_needed(manifest), f"A restore of {manifest.backup_id}")
    (directory / "fetched").mkdir()
    fetched = fetch_backup(store, manifest, directory / "fetched", report)
    with scratch_cluster(programs, directory) as cluster:
        surroundings = read_surroundings(fetched, report)
        restore_roles(cluster.address, surroundings.roles, report)
        make_tablespaces(
            cluster.address, missing_at(cluster.address, requirements_of(fetched, surroundings.database)).tablespaces
        )
        create_database(cluster.address, surroundings.database, _LOADED, report)
        address = cluster.address.model_copy(update={"database": _LOADED})
        load_dump(address, fetched, programs, report)
        taken = f"{manifest.snapshot_at:%Y-%m-%d %H:%M:%S %Z}"
        yield Past(address, f"{taken} (the backup {manifest.backup_id})")


def _require_database(address: PostgresSettings, target: Target) -> None:
    with connect(address, "postgres") as connection:
        found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [address.database]).fetchone()
    if found is None:
        raise RecoveryError(
            f"At {target.describe()} the cluster had no database {address.database}.",
            hint="choose another moment, or set POSTGRES_DB to the name it had",
            code=Code.NOT_IN_PAST,
        )
