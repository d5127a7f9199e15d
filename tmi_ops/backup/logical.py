"""A logical backup: pg_dump from one snapshot, counted as it streams into the store, committed by its manifest."""

from __future__ import annotations

import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tmi_ops import __version__
from tmi_ops.backup.archive.contents import Contents
from tmi_ops.backup.contents import CONTENTS_OBJECT, contents_json, fingerprints_of, sequence_values
from tmi_ops.backup.copying import Copying
from tmi_ops.backup.dump import LogicalFormat, Stop, globals_command, waited_for_lock
from tmi_ops.backup.lock_queue import PATIENCE_S, LockQueueWatch, watched_locks
from tmi_ops.backup.one_at_a_time import only_backup
from tmi_ops.backup.properties import database_script
from tmi_ops.backup.snapshot import Snapshot, exported_snapshot
from tmi_ops.backup.surroundings import SURROUNDINGS_OBJECT, Surroundings, read_surroundings
from tmi_ops.backup.undumped import left_behind
from tmi_ops.error_codes import Code
from tmi_ops.errors import BackupError
from tmi_ops.postgres.connections import APPLICATION_NAME
from tmi_ops.postgres.programs import Programs, programs_at_least
from tmi_ops.progress import Report
from tmi_ops.settings import Settings
from tmi_ops.store.backup_documents import backup_folder, commit_manifest, discarded_on_failure, new_backup_id
from tmi_ops.store.manifest import Manifest, StoredObject
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.restore_guide import write_restore_guide

GLOBALS_OBJECT = "globals.sql"
INVENTORY_OBJECT = "inventory.json"  # of earlier releases, which compared it
PROPERTIES_OBJECT = "database.sql"
DUMP_JOBS = min(4, os.cpu_count() or 1)
# How often a backup gives way to an ALTER before it leaves the decision to a person.
ATTEMPTS = 5
_MAX_NAME = 63  # PostgreSQL truncates application_name to this


@dataclass(frozen=True)
class _Copied:
    """What was copied under one snapshot."""

    objects: tuple[StoredObject, ...]
    contents: Contents
    globals_include_passwords: bool
    left_behind: tuple[str, ...]


class _GaveWayError(BackupError):
    """A session and the backup waited for each other."""

    default_code = Code.GAVE_WAY


def back_up_logical(
    settings: Settings, store: ObjectStore, format_: LogicalFormat, report: Report, *, jobs: int = DUMP_JOBS
) -> Manifest:
    """Take a logical backup and commit it with its manifest.

    Its contents are counted on their way into the store, because the source keeps changing. If an ALTER waits for the
    backup, and the backup behind it, the backup gives way and starts again. On any failure, Ctrl-C included, no
    manifest is written and the objects already uploaded are removed.

    Args:
        format_: `custom` (the default), `directory` (parallel; needs local disk), `plain`, `schema-only`.
        jobs: parallel workers of the `directory` format.

    Raises:
        BackupRunningError: another backup of this database is running.
        DatabaseError, ProgramError, StoreError, DiskSpaceError, BackupError: see each.
    """
    with only_backup(settings.postgres):
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return _attempt(settings, store, format_, report, jobs)
            except _GaveWayError as error:
                if attempt == ATTEMPTS:
                    raise
                report.note(f"{error.message} Starting again.")
    raise AssertionError


def _attempt(settings: Settings, store: ObjectStore, format_: LogicalFormat, report: Report, jobs: int) -> Manifest:
    clock = time.monotonic()
    started_at = datetime.now(UTC)
    backup_id = new_backup_id("logical", started_at)
    with exported_snapshot(settings.postgres) as snapshot:
        programs = programs_at_least(snapshot.server.major, settings.pg_bindir)
        with discarded_on_failure(store, backup_id):
            copying = Copying(
                postgres=settings.postgres,
                store=store,
                folder=backup_folder(backup_id),
                programs=programs,
                snapshot=snapshot,
                spool=settings.home / "spool",
                application_name=f"{APPLICATION_NAME} {backup_id}"[:_MAX_NAME],
                stop=Stop(),
                report=report,
            )
            copied = _copy_out(copying, format_, jobs, with_passwords=_may_keep_passwords(settings, snapshot))
            write_restore_guide(store)
            manifest = _manifest(settings, backup_id, format_, snapshot, programs, copied, started_at, clock)
            commit_manifest(store, manifest)
    return manifest


def _copy_out(copying: Copying, format_: LogicalFormat, jobs: int, *, with_passwords: bool) -> _Copied:
    snapshot, stop = copying.snapshot, copying.stop
    roles = globals_command(copying.programs, snapshot.server.database, with_passwords=with_passwords)
    failures: list[BaseException] = []

    def failed(done: Future[Any]) -> None:
        if not done.cancelled() and (failure := done.exception()) is not None:
            failures.append(failure)
            stop()

    with (
        watched_locks(copying.postgres, snapshot.backend, copying.application_name, stop) as watch,
        ThreadPoolExecutor(2, thread_name_prefix="beside") as pool,
    ):
        reading = pool.submit(_SourceReader(snapshot, with_passwords=with_passwords).read)
        dumping_roles = pool.submit(copying.upload, GLOBALS_OBJECT, copying.program(roles))
        reading.add_done_callback(failed)
        dumping_roles.add_done_callback(failed)
        try:
            database = copying.database(format_, jobs)
            source, stored_roles = reading.result(), dumping_roles.result()
        except BaseException as error:
            if watch.decision != "go on" or waited_for_lock(error):
                raise _gave_way(watch) from error
            # If something beside the dump failed first, that is the cause; what we cancel now is not.
            cause = failures[0] if failures else error
            stop()
            snapshot.connection.cancel_safe()
            if cause is not error:
                raise cause from error
            raise
    objects = (*database.objects, stored_roles)
    objects += (
        copying.upload(CONTENTS_OBJECT, [contents_json(database.contents)]),
        copying.upload(PROPERTIES_OBJECT, [source.properties]),
        copying.upload(SURROUNDINGS_OBJECT, [source.surroundings.model_dump_json(indent=1).encode()]),
    )
    left = _told(copying.report, (*source.left_behind, *dict.fromkeys(copying.warnings)))
    return _Copied(objects, database.contents, with_passwords, left)


def _gave_way(watch: LockQueueWatch) -> BackupError:
    if watch.decision == "give up":
        return BackupError(
            f"The dump did not get a lock that it needs within {PATIENCE_S:.0f} s. In the way: {watch.described}.",
            hint="end that transaction (see pg_stat_activity or pg_prepared_xacts), then try again",
            code=Code.LOCK_NOT_GRANTED,
            transient=True,
        )
    return _GaveWayError(
        f"The backup gave way to {watch.described}: each was waiting for the other.",
        detail="Its locks are released, and nothing was stored.",
        hint="try again when the schema change is over",
        transient=True,
    )


def _told(report: Report, left_behind: tuple[str, ...]) -> tuple[str, ...]:
    for sentence in left_behind:
        report.note(f"not in this backup: {sentence}")
    return left_behind


@dataclass(frozen=True)
class _SourceFacts:
    """What a restored copy is given and compared with."""

    left_behind: tuple[str, ...]
    properties: bytes
    surroundings: Surroundings


@dataclass(frozen=True)
class _SourceReader:
    """Reads the source under the snapshot, beside the dump."""

    snapshot: Snapshot
    with_passwords: bool

    def read(self) -> _SourceFacts:
        connection = self.snapshot.connection
        surroundings = read_surroundings(connection, with_passwords=self.with_passwords)
        return _SourceFacts(
            left_behind=left_behind(connection),
            properties=database_script(surroundings.database, connection),
            surroundings=surroundings,
        )


def _may_keep_passwords(settings: Settings, snapshot: Snapshot) -> bool:
    """Password verifiers are kept only if the store is encrypted; only a superuser can read them."""
    if not settings.store.age_recipients:
        return False
    row = snapshot.connection.execute("SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT')").fetchone()
    return bool(row and row[0])


def _manifest(
    settings: Settings,
    backup_id: str,
    format_: LogicalFormat,
    snapshot: Snapshot,
    programs: Programs,
    copied: _Copied,
    started_at: datetime,
    clock: float,
) -> Manifest:
    server = snapshot.server
    return Manifest(
        backup_id=backup_id,
        kind="logical",
        format=format_,
        environment=settings.environment,
        database=server.database,
        database_size=server.database_size,
        encoding=server.encoding,
        collation=server.collation,
        ctype=server.ctype,
        server_version=server.version,
        server_version_num=server.version_num,
        system_identifier=server.system_identifier,
        timeline=server.timeline,
        lsn=server.lsn,
        snapshot=snapshot.name,
        snapshot_at=snapshot.taken_at,
        started_at=started_at,
        finished_at=datetime.now(UTC),
        duration_seconds=time.monotonic() - clock,
        objects=copied.objects,
        digest_method="copy",
        fingerprints=fingerprints_of(copied.contents),
        sequences=sequence_values(copied.contents),
        globals_include_passwords=copied.globals_include_passwords,
        left_behind=copied.left_behind,
        parent=None,
        tools={"pg_dump": programs.version, "tmi_ops": __version__},
        recipients=settings.store.age_recipients,
        tmi_ops_version=__version__,
    )
