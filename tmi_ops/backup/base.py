"""A base backup: the files of a whole cluster, streamed from the server into the store without a local copy.

1. A temporary replication slot makes the server keep the WAL that the backup needs. It ends with the connection.
2. For an incremental backup, the server is sent the manifest of the previous one. If it refuses, a full backup is
   taken.
3. While the server reads its files, each archive and the manifest are streamed into one object each.
4. Our own manifest commits the backup; without it the backup does not exist.

The server's `backup_manifest` is stored unencrypted: it holds file names and checksums but no content, and a backup
host that has only public keys must be able to send it back to the server.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from tmi_ops import __version__
from tmi_ops.backup.chain import LONGEST_CHAIN, ChainFacts, Continuation, continue_chain, newest_of
from tmi_ops.backup.dump import ZSTD_LEVEL, compressed
from tmi_ops.backup.one_at_a_time import only_backup
from tmi_ops.errors import BackupError, DatabaseError, StoreError
from tmi_ops.postgres.base_backup import (
    MANIFEST_NAME,
    BaseBackupOptions,
    BaseBackupStream,
    NewArchive,
    begin_base_backup,
    checked_archive_name,
    split_parts,
    upload_manifest,
)
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.replication import ReplicationConnection, ReplicationError, connect_replication, quote_name
from tmi_ops.postgres.sizes import shown_size
from tmi_ops.postgres.versions import INCREMENTAL_BACKUP, STANDBY_SAYS_SO, since
from tmi_ops.progress import Report
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.backup_documents import backup_folder, commit_manifest, discarded_on_failure, new_backup_id
from tmi_ops.store.catalogue import list_backups
from tmi_ops.store.manifest import BaseManifest, StoredObject, Tablespace
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.restore_guide import write_restore_guide

SERVER_ZSTD_WORKERS = 2


@dataclass(frozen=True)
class Cluster:
    """A cluster, as a replication connection describes it.

    `wal_segment_size` is in bytes. `in_recovery` is None if unknown.
    """

    system_identifier: str
    server_version: str
    server_version_num: int
    wal_segment_size: int
    data_checksums: bool
    summarize_wal: bool
    in_recovery: bool | None


@dataclass(frozen=True)
class _Sent:
    """The objects uploaded so far."""

    objects: tuple[StoredObject, ...]
    archives: dict[str, str]  # object name by tablespace location


def back_up_base(
    settings: Settings,
    store: ObjectStore,
    report: Report,
    *,
    incremental: bool = False,
    max_rate: int | None = None,
    longest_chain: int = LONGEST_CHAIN,
    fast_checkpoint: bool = True,
) -> BaseManifest:
    """Take a base backup and commit it with its manifest. It includes the WAL that makes it consistent.

    On any failure, Ctrl-C included, no manifest is written and the objects already uploaded are removed.

    Args:
        incremental: build upon the newest backup; if that is impossible, take a full one and record why in its
            manifest.
        max_rate: maximum transfer rate of the server, in bytes per second.
        longest_chain: maximum number of backups in a chain, the full one included.
        fast_checkpoint: begin at once, at the price of a burst of writes on the server.

    Raises:
        BackupRunningError: another backup of this database is running.
        DatabaseError: the server could not be reached, a right, a setting or a pg_hba line is missing (the hint gives
            the line), or pages failed their checksum.
        StoreError: the store failed.
    """
    clock = time.monotonic()
    started_at = datetime.now(UTC)
    backup_id = new_backup_id("base", started_at)
    options = BaseBackupOptions(
        label=f"tmi_ops {backup_id}",
        zstd_level=ZSTD_LEVEL,
        zstd_workers=SERVER_ZSTD_WORKERS,
        max_rate=max_rate,
        fast_checkpoint=fast_checkpoint,
    )
    with (
        only_backup(settings.postgres, may_be_refused=True),
        discarded_on_failure(store, backup_id),
        connect_replication(settings.postgres) as connection,
    ):
        cluster = read_cluster(connection)
        upon = _continuation(store, cluster, longest_chain, report) if incremental else Continuation(None, None)
        _keep_wal(connection, report)
        replayed = _ask_standby(settings.postgres)
        stream, upon = _begin(connection, store, options, upon, report)
        sent = _send(stream, store, backup_folder(backup_id), report)
        told = _ask_database(settings.postgres)
        write_restore_guide(store)
        finished_at = datetime.now(UTC)
        manifest = BaseManifest(
            backup_id=backup_id,
            environment=settings.environment,
            server_version=cluster.server_version,
            server_version_num=cluster.server_version_num,
            started_at=started_at,
            finished_at=finished_at,
            duration_seconds=time.monotonic() - clock,
            parent=upon.parent.backup_id if upon.parent else None,
            tools={"tmi_ops": __version__},
            recipients=settings.store.age_recipients,
            tmi_ops_version=__version__,
            format="incremental" if upon.parent else "full",
            chain=upon.chain,
            full_because=upon.full_because,
            system_identifier=cluster.system_identifier,
            timeline=stream.start.timeline,
            start_lsn=stream.start.lsn,
            stop_lsn=stream.stop.lsn,
            consistent_at=told.time or finished_at,
            newest_commit_before=replayed,
            wal_segment_size=cluster.wal_segment_size,
            data_checksums=cluster.data_checksums,
            cluster_size=stream.size,
            tablespaces=_tablespaces(stream, sent),
            role=settings.postgres.user,
            superuser=told.superuser,
            from_standby=told.in_recovery if cluster.in_recovery is None else cluster.in_recovery,
            objects=sent.objects,
        )
        commit_manifest(store, manifest)
    return manifest


def read_cluster(connection: ReplicationConnection) -> Cluster:
    """Read what a walsender reports without any right in any database."""
    identity = connection.query("IDENTIFY_SYSTEM")[0]
    version_num = connection.server_version_num
    return Cluster(
        system_identifier=str(identity["systemid"]),
        server_version=_setting(connection, "server_version"),
        server_version_num=version_num,
        wal_segment_size=shown_size(_setting(connection, "wal_segment_size")),
        data_checksums=_setting(connection, "data_checksums") == "on",
        summarize_wal=version_num >= since(INCREMENTAL_BACKUP) and _setting(connection, "summarize_wal") == "on",
        in_recovery=_setting(connection, "in_hot_standby") == "on" if version_num >= since(STANDBY_SAYS_SO) else None,
    )


def _setting(connection: ReplicationConnection, name: str) -> str:
    return str(connection.query(f"SHOW {name}")[0][name])


def _continuation(store: ObjectStore, cluster: Cluster, longest: int, report: Report) -> Continuation:
    entries = list_backups(store, lambda error: report.note(error.message), kinds=("base",))
    bases = [entry.manifest for entry in entries if isinstance(entry.manifest, BaseManifest)]
    unusable = {entry.manifest.backup_id for entry in entries if entry.failed}
    newest = newest_of(bases, cluster.system_identifier)
    if newest is not None:
        links = {*newest.chain, newest.backup_id}
        unusable |= {base.backup_id for base in bases if base.backup_id in links and not _is_whole(store, base)}
    upon = continue_chain(
        ChainFacts(
            server_version_num=cluster.server_version_num,
            summarize_wal=cluster.summarize_wal,
            system_identifier=cluster.system_identifier,
            bases=bases,
            unusable=unusable,
            longest=longest,
        )
    )
    if upon.full_because:
        report.note(f"taking a full backup instead of an incremental one: {upon.full_because}")
    return upon


def _is_whole(store: ObjectStore, base: BaseManifest) -> bool:
    """Whether every object is present with its recorded size; content is checked by verification."""
    folder = backup_folder(base.backup_id)
    sizes = {item.key: item.size for item in store.list_objects(f"{folder}/")}
    return all(sizes.get(f"{folder}/{item.name}") == item.size for item in base.objects)


def _keep_wal(connection: ReplicationConnection, report: Report) -> None:
    """Make the server keep its WAL from now until the connection ends."""
    slot = quote_name(f"tmi_ops_base_{secrets.token_hex(4)}")
    try:
        connection.query(f"CREATE_REPLICATION_SLOT {slot} TEMPORARY PHYSICAL RESERVE_WAL")
    except ReplicationError as error:
        if error.transient and not error.sqlstate:
            raise
        report.note(
            f"no replication slot for this backup ({error.message}); if a busy server recycles WAL that the backup "
            "needs, the backup fails"
        )


def _begin(
    connection: ReplicationConnection,
    store: ObjectStore,
    options: BaseBackupOptions,
    upon: Continuation,
    report: Report,
) -> tuple[BaseBackupStream, Continuation]:
    """Begin an incremental backup if there is a parent and the server accepts it, else a full one."""
    parent = upon.parent
    if parent is not None:
        try:
            upload_manifest(connection, _server_manifest(store, parent))
            return begin_base_backup(connection, dataclasses.replace(options, incremental=True)), upon
        except ReplicationError as error:
            if error.transient:
                raise
            upon = Continuation(None, f"the server cannot take an increment to {parent.backup_id}: {error.message}")
        except StoreError as error:
            upon = Continuation(None, f"the manifest of {parent.backup_id} cannot be read: {error.message}")
        report.note(f"taking a full backup instead of an incremental one: {upon.full_because}")
    return begin_base_backup(connection, options), upon


def _server_manifest(store: ObjectStore, base: BaseManifest) -> Iterator[bytes]:
    item = next(item for item in base.objects if item.name == MANIFEST_NAME)
    return store.download(f"{backup_folder(base.backup_id)}/{MANIFEST_NAME}", item)


def _send(stream: BaseBackupStream, store: ObjectStore, folder: str, report: Report) -> _Sent:
    readable = dataclasses.replace(store, recipients=())
    objects: list[StoredObject] = []
    archives: dict[str, str] = {}
    with report.phase("base backup", total=stream.size or None) as phase:
        for part in split_parts(stream.messages(), phase.advance):
            if part.archive is None:
                objects.append(readable.upload(f"{folder}/{MANIFEST_NAME}", part.chunks))
                continue
            name, chunks = _archive_object(part.archive, part.chunks)
            archives[part.archive.tablespace] = name
            objects.append(store.upload(f"{folder}/{name}", chunks))
    _require_complete(stream, archives, objects)
    return _Sent(tuple(objects), archives)


def _archive_object(archive: NewArchive, chunks: Iterator[bytes]) -> tuple[str, Iterator[bytes]]:
    """The object's name and its bytes, compressed with zstd by the server or else here."""
    name = checked_archive_name(archive.name)
    if name.endswith(".zst"):
        return name, chunks
    return f"{name}.zst", compressed(chunks)


def _require_complete(stream: BaseBackupStream, archives: dict[str, str], objects: list[StoredObject]) -> None:
    announced = {tablespace.location or "" for tablespace in stream.tablespaces}
    complete = announced == set(archives) and any(item.name == MANIFEST_NAME for item in objects)
    if not complete or stream.stop.timeline != stream.start.timeline:
        raise BackupError(
            f"The server sent {len(archives)} of {len(announced)} announced archives, ending on timeline "
            f"{stream.stop.timeline} after beginning on {stream.start.timeline}: the backup is incomplete.",
            detail="What was sent was removed from the store; earlier backups are untouched.",
            hint="take the backup again",
        )


def _tablespaces(stream: BaseBackupStream, sent: _Sent) -> tuple[Tablespace, ...]:
    return tuple(
        Tablespace(oid=source.oid, location=source.location, object_name=sent.archives[source.location])
        for source in stream.tablespaces
        if source.oid is not None and source.location is not None
    )


@dataclass(frozen=True)
class _Told:
    """What only a database connection reports: time, bootstrap superuser and, before PostgreSQL 14, standby or not."""

    time: datetime | None = None
    superuser: str | None = None
    in_recovery: bool | None = None


def _ask_database(postgres: PostgresSettings) -> _Told:
    """Query a database for these facts. All are None if the replication role may not connect to it."""
    try:
        with connect(postgres) as connection:
            row = connection.execute(
                "SELECT clock_timestamp(), (SELECT rolname FROM pg_catalog.pg_roles WHERE oid = 10), "
                "pg_is_in_recovery()"
            ).fetchone()
    except DatabaseError:
        return _Told()
    return _Told(*row) if row else _Told()


def _ask_standby(postgres: PostgresSettings) -> datetime | None:
    """The newest commit that a standby has replayed; None on a primary, or if the role may not connect."""
    try:
        with connect(postgres) as connection:
            row = connection.execute("SELECT pg_last_xact_replay_timestamp() WHERE pg_is_in_recovery()").fetchone()
    except DatabaseError:
        return None
    return None if row is None or row[0] is None else row[0].astimezone(UTC)
