"""A logical backup: pg_dump and a fingerprint from one snapshot, streamed to the store, committed by its manifest."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tmi_ops import __version__
from tmi_ops.backup.dump import (
    READ_SIZE,
    LogicalFormat,
    compressed,
    dump_command,
    dump_object_name,
    globals_command,
    stream_program,
)
from tmi_ops.backup.fingerprint import fingerprint_tables, read_sequences
from tmi_ops.backup.inventory import read_inventory
from tmi_ops.backup.one_at_a_time import only_backup
from tmi_ops.backup.properties import database_script
from tmi_ops.backup.snapshot import Snapshot, exported_snapshot
from tmi_ops.backup.surroundings import SURROUNDINGS_OBJECT, Surroundings, read_surroundings
from tmi_ops.errors import BackupError
from tmi_ops.postgres.cluster import require_free_space
from tmi_ops.postgres.connections import connect, libpq_environment
from tmi_ops.postgres.programs import Programs, programs_at_least
from tmi_ops.progress import Phase, Report
from tmi_ops.settings import Settings
from tmi_ops.store.catalogue import backup_folder, commit_manifest, discarded_on_failure, new_backup_id
from tmi_ops.store.manifest import Manifest, SequenceRange, StoredObject, TableFingerprint
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.restore_guide import write_restore_guide

GLOBALS_OBJECT = "globals.sql"
INVENTORY_OBJECT = "inventory.json"
PROPERTIES_OBJECT = "database.sql"
DUMP_JOBS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class _Copied:
    """What left the server under one snapshot."""

    objects: tuple[StoredObject, ...]
    fingerprints: dict[str, TableFingerprint]
    sequences: dict[str, SequenceRange]
    globals_include_passwords: bool


def back_up_logical(
    settings: Settings, store: ObjectStore, format_: LogicalFormat, report: Report, *, jobs: int = DUMP_JOBS
) -> Manifest:
    """Take a logical backup and commit it with its manifest.

    The fingerprint runs beside the dump, under the same snapshot, while the source keeps changing.
    Whatever goes wrong, Ctrl-C included, no manifest is written and the objects already sent are removed.

    Args:
        format_: `custom` (default everywhere), `directory` (parallel; needs local disk), `plain`, `schema-only`.
        jobs: parallel workers of the `directory` format.

    Raises:
        BackupRunningError: another backup of this database is being taken.
        DatabaseError, ProgramError, StoreError, DiskSpaceError, BackupError: see each.
    """
    clock = time.monotonic()
    started_at = datetime.now(UTC)
    backup_id = new_backup_id("logical", started_at)
    with only_backup(settings.postgres), exported_snapshot(settings.postgres) as snapshot:
        programs = programs_at_least(snapshot.server.major, settings.pg_bindir)
        with discarded_on_failure(store, backup_id):
            copied = _copy_out(settings, store, backup_id, format_, programs, snapshot, report, jobs)
            write_restore_guide(store)
            manifest = _manifest(settings, backup_id, format_, snapshot, programs, copied, started_at, clock)
            commit_manifest(store, manifest)
    return manifest


def _copy_out(
    settings: Settings,
    store: ObjectStore,
    backup_id: str,
    format_: LogicalFormat,
    programs: Programs,
    snapshot: Snapshot,
    report: Report,
    jobs: int,
) -> _Copied:
    copy = _Copy(settings, store, backup_folder(backup_id), programs, snapshot, report)
    with_passwords = _may_keep_passwords(settings, snapshot)
    sequences_before = read_sequences(snapshot.connection)
    # Nothing else uses the snapshot's connection until the reader is done.
    with ThreadPoolExecutor(1, thread_name_prefix="fingerprint") as pool:
        reader = _SourceReader(snapshot, report, rows_too=format_ != "schema-only", with_passwords=with_passwords)
        reading = pool.submit(reader.read)
        reading.add_done_callback(lambda done: copy.give_up() if done.exception() else None)
        try:
            objects = copy.database(format_, jobs)
            objects += (copy.stream(GLOBALS_OBJECT, globals_command(programs, with_passwords=with_passwords)),)
        except BaseException as error:
            # A fingerprint that failed on its own is the cause; one that we cancel now is not.
            reader_failed_first = copy.given_up
            snapshot.connection.cancel_safe()
            failure = reading.exception()
            if reader_failed_first and failure is not None:
                raise failure from error
            raise
        source = reading.result()
    objects += (
        copy.upload(INVENTORY_OBJECT, [source.inventory]),
        copy.upload(PROPERTIES_OBJECT, [source.properties]),
        copy.upload(SURROUNDINGS_OBJECT, [source.surroundings.model_dump_json(indent=1).encode()]),
    )
    return _Copied(
        objects=objects,
        fingerprints=source.fingerprints,
        sequences=_ranges(sequences_before, _sequences_now(settings)),
        globals_include_passwords=with_passwords,
    )


@dataclass(frozen=True)
class _SourceFacts:
    """What a restored copy will be given and compared with."""

    inventory: bytes
    properties: bytes
    surroundings: Surroundings
    fingerprints: dict[str, TableFingerprint]


@dataclass(frozen=True)
class _SourceReader:
    """Reads the source under the snapshot, beside the dump."""

    snapshot: Snapshot
    report: Report
    rows_too: bool
    with_passwords: bool

    def read(self) -> _SourceFacts:
        connection = self.snapshot.connection
        tables = self.snapshot.tables if self.rows_too else ()
        surroundings = read_surroundings(connection, with_passwords=self.with_passwords)
        return _SourceFacts(
            inventory=json.dumps(read_inventory(connection), indent=0, sort_keys=True).encode(),
            properties=database_script(surroundings.database, connection),
            surroundings=surroundings,
            fingerprints=fingerprint_tables(connection, tables, self.report) if tables else {},
        )


class _Copy:
    """Sends a program's output into one backup's folder of the store."""

    def __init__(
        self,
        settings: Settings,
        store: ObjectStore,
        folder: str,
        programs: Programs,
        snapshot: Snapshot,
        report: Report,
    ) -> None:
        self._settings = settings
        self._store = store
        self._folder = folder
        self._programs = programs
        self._snapshot = snapshot
        self._report = report
        self._environment = libpq_environment(settings.postgres)
        self._given_up = threading.Event()

    @property
    def given_up(self) -> bool:
        return self._given_up.is_set()

    def give_up(self) -> None:
        """End the copying at its next chunk: its other half has failed."""
        self._given_up.set()

    def database(self, format_: LogicalFormat, jobs: int) -> tuple[StoredObject, ...]:
        name = dump_object_name(format_)
        if format_ == "directory":
            return self._directory(name, jobs)
        argv = dump_command(self._programs, format_, self._snapshot.name)
        with self._report.phase(f"dump ({format_})") as phase:
            return (self.stream(name, argv, phase=phase, compress=format_ == "plain"),)

    def stream(
        self, name: str, argv: Sequence[str | Path], *, phase: Phase | None = None, compress: bool = False
    ) -> StoredObject:
        chunks: Iterable[bytes] = self._until_given_up(stream_program(argv, self._environment))
        return self.upload(name, compressed(chunks) if compress else chunks, phase)

    def upload(self, name: str, chunks: Iterable[bytes], phase: Phase | None = None) -> StoredObject:
        stored = self._store.upload(f"{self._folder}/{name}", chunks, phase=phase)
        return stored.model_copy(update={"name": name})

    def _until_given_up(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if self.given_up:
                raise BackupError("The fingerprint failed, so the dump was given up.")
            yield chunk

    def _directory(self, name: str, jobs: int) -> tuple[StoredObject, ...]:
        """Parallel pg_dump writes files, not a stream; they wait on local disk only until they are sent."""
        spool_root = self._settings.home / "spool"
        require_free_space(spool_root, self._snapshot.server.database_size, "A dump in the directory format")
        spool_root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="dump-", dir=spool_root) as spool:
            target = Path(spool) / name
            argv = dump_command(self._programs, "directory", self._snapshot.name, directory=target, jobs=jobs)
            with self._report.phase("dump (directory)", total=len(self._snapshot.tables), unit="tables"):
                for _ in self._until_given_up(stream_program(argv, self._environment)):
                    pass
            files = sorted(target.iterdir())
            with self._report.phase("upload", total=sum(file.stat().st_size for file in files)) as phase:
                return tuple(self._send_file(file, f"{name}/{file.name}", phase) for file in files)

    def _send_file(self, file: Path, name: str, phase: Phase) -> StoredObject:
        with file.open("rb") as content:
            stored = self.upload(name, iter(lambda: content.read(READ_SIZE), b""), phase)
        file.unlink()
        return stored


def _may_keep_passwords(settings: Settings, snapshot: Snapshot) -> bool:
    """Password verifiers are kept only where the store is encrypted, and only a superuser can read them."""
    if not settings.store.age_recipients:
        return False
    row = snapshot.connection.execute("SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT')").fetchone()
    return bool(row and row[0])


def _sequences_now(settings: Settings) -> dict[str, int]:
    with connect(settings.postgres) as connection:
        return read_sequences(connection)


def _ranges(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, SequenceRange]:
    return {name: SequenceRange(before=value, after=after[name]) for name, value in before.items() if name in after}


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
        fingerprints=copied.fingerprints,
        sequences=copied.sequences,
        globals_include_passwords=copied.globals_include_passwords,
        parent=None,
        tools={"pg_dump": programs.version, "tmi_ops": __version__},
        recipients=settings.store.age_recipients,
        tmi_ops_version=__version__,
    )
