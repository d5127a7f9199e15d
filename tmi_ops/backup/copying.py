"""The path of a dump from the server into the store: counting, conversion and upload."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tmi_ops.backup.archive.contents import Contents
from tmi_ops.backup.archive.files import TOC_FILE, chunks_of, directory_toc
from tmi_ops.backup.archive.toc import ArchiveError, Toc
from tmi_ops.backup.counting import CountedArchive, CountedDirectory, data_file
from tmi_ops.backup.dump import (
    LogicalFormat,
    Stop,
    compressed,
    dump_command,
    dump_object_name,
    script_command,
    stream_program,
)
from tmi_ops.backup.snapshot import Snapshot
from tmi_ops.backup.spool import WAITING_LIMIT, completed_files
from tmi_ops.errors import BackupError
from tmi_ops.postgres.cluster import require_free_space
from tmi_ops.postgres.connections import libpq_environment
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import Phase, Report
from tmi_ops.settings import PostgresSettings
from tmi_ops.store.manifest import StoredObject
from tmi_ops.store.objects import ObjectStore

# The archive that a script was made from, without its data: `pg_restore --list` reads it.
TOC_OBJECT = "toc.dump"
# Files of a parallel dump that are counted and uploaded at once.
SENDERS = 3


@dataclass(frozen=True)
class CopiedDatabase:
    """A dump in the store, and what it holds."""

    objects: tuple[StoredObject, ...]
    toc: Toc
    contents: Contents


@dataclass(frozen=True)
class Copying:
    """Uploads the output of programs that share one snapshot into one backup's folder, until `stop` is pulled.

    `spool`: directory for what cannot be streamed. `application_name`: of the programs' sessions. `warnings`: collects
    the programs' warnings.
    """

    postgres: PostgresSettings
    store: ObjectStore
    folder: str
    programs: Programs
    snapshot: Snapshot
    spool: Path
    application_name: str
    stop: Stop
    report: Report
    warnings: list[str] = field(default_factory=list)

    def database(self, format_: LogicalFormat, jobs: int) -> CopiedDatabase:
        """Dump the database in this format."""
        if format_ == "directory":
            return self._directory(dump_object_name(format_), jobs)
        archive = CountedArchive(
            self.program(
                dump_command(self.programs, format_, self.snapshot.name, self.snapshot.server.encoding),
            )
        )
        with self.report.phase(f"dump ({format_})") as phase:
            if format_ == "custom":
                objects = [self.upload(dump_object_name(format_), archive, phase)]
            else:
                script = self.program(script_command(self.programs), stdin=archive)
                chunks = compressed(script) if format_ == "plain" else script
                objects = [self.upload(dump_object_name(format_), chunks, phase)]
                objects.append(self.upload(TOC_OBJECT, [archive.head]))
        return CopiedDatabase(tuple(objects), *archive.result())

    def program(self, argv: list[str | Path], *, stdin: Iterable[bytes] | None = None) -> Iterator[bytes]:
        """The output of a program that connects to the server."""
        environment = libpq_environment(self.postgres, server_major=self.snapshot.server.major)
        environment["PGAPPNAME"] = self.application_name
        for chunk in stream_program(argv, environment, stdin=stdin, stop=self.stop, warn=self.warnings.append):
            if self.stop.pulled:
                raise BackupError("The dump was stopped.")
            yield chunk

    def upload(self, name: str, chunks: Iterable[bytes], phase: Phase | None = None) -> StoredObject:
        """Store one object of the backup."""
        stored = self.store.upload(f"{self.folder}/{name}", chunks, phase=phase)
        return stored.model_copy(update={"name": name})

    def _directory(self, name: str, jobs: int) -> CopiedDatabase:
        """Parallel pg_dump writes files, not a stream; each is uploaded as soon as it is complete."""
        self.spool.mkdir(parents=True, exist_ok=True)
        require_free_space(self.spool, self._spool_needed(jobs), "A dump in the directory format")
        with tempfile.TemporaryDirectory(prefix="dump-", dir=self.spool) as spool:
            return self._send_while_dumping(Path(spool).resolve() / name, name, jobs)

    def _send_while_dumping(self, target: Path, name: str, jobs: int) -> CopiedDatabase:
        argv = dump_command(
            self.programs, "directory", self.snapshot.name, self.snapshot.server.encoding, directory=target, jobs=jobs
        )
        count = CountedDirectory()
        sending: dict[Future[StoredObject], int] = {}

        def waiting() -> int:
            return sum(size for future, size in sending.items() if not future.done())

        with (
            self.report.phase("dump (directory)") as phase,
            ThreadPoolExecutor(1, thread_name_prefix="dump") as dumper,
            ThreadPoolExecutor(SENDERS, thread_name_prefix="send") as senders,
        ):
            dumping = dumper.submit(self._run, argv)
            try:
                toc = None
                for file in completed_files(target, dumping, self.stop, waiting):
                    if file.name == TOC_FILE:
                        toc = directory_toc(file.read_bytes())
                    size = file.stat().st_size  # before the upload, which removes the file
                    sending[senders.submit(self._send, file, f"{name}/{file.name}", count, phase)] = size
                    _raise_first(sending)
                objects = [future.result() for future in sending]
            except BaseException:
                self.stop()
                senders.shutdown(wait=True, cancel_futures=True)
                raise
        if toc is None:
            raise ArchiveError("The dump has no table of contents.")
        return CopiedDatabase(tuple(sorted(objects, key=lambda stored: stored.name)), toc, count.result(toc))

    def _run(self, argv: list[str | Path]) -> None:
        for _ in self.program(argv):
            pass

    def _send(self, file: Path, name: str, count: CountedDirectory, phase: Phase) -> StoredObject:
        compression = data_file(file.name)
        chunks = chunks_of(file)
        stored = self.upload(
            name, chunks if compression is None else count.passing(file.name, chunks, compression), phase
        )
        file.unlink()
        return stored

    def _spool_needed(self, jobs: int) -> int:
        """Bytes of the tables that are written at once, plus those of the files that may wait for upload."""
        tables = self.snapshot.tables[: jobs + 1]  # largest first
        sizes = self.snapshot.connection.execute(
            "SELECT pg_table_size(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::name[], %s::name[]))",
            ([table.schema for table in tables], [table.name for table in tables]),
        ).fetchall()
        largest = sum(int(size) for (size,) in sizes)
        return min(self.snapshot.server.database_size, largest + WAITING_LIMIT)


def _raise_first(sending: dict[Future[StoredObject], int]) -> None:
    for future in sending:
        if future.done() and (failure := future.exception()) is not None:
            raise failure
