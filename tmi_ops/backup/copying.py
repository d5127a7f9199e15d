"""The way of a dump from the server into the store: what is counted, converted and stored on it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tmi_ops.backup.archive.contents import Contents
from tmi_ops.backup.archive.files import chunks_of
from tmi_ops.backup.archive.toc import Toc
from tmi_ops.backup.counting import CountedArchive, CountedDirectory
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
from tmi_ops.errors import BackupError
from tmi_ops.postgres.cluster import require_free_space
from tmi_ops.postgres.connections import libpq_environment
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import Phase, Report
from tmi_ops.settings import PostgresSettings
from tmi_ops.store.manifest import StoredObject
from tmi_ops.store.objects import ObjectStore

# The archive that a script was made of, without its data: `pg_restore --list` reads it.
TOC_OBJECT = "toc.dump"


@dataclass(frozen=True)
class CopiedDatabase:
    """A dump in the store, and what it holds."""

    objects: tuple[StoredObject, ...]
    toc: Toc
    contents: Contents


@dataclass(frozen=True)
class Copying:
    """Sends what programs say of one snapshot into one backup's folder of the store, until `stop` is pulled.

    `spool`: a directory for what cannot be streamed. `application_name`: of the programs' sessions. `warnings`: what
    the programs warned of.
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
        """The output of a program that reaches the server."""
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
        """Parallel pg_dump writes files, not a stream; they wait on local disk only until they are sent."""
        require_free_space(self.spool, self.snapshot.server.database_size, "A dump in the directory format")
        self.spool.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="dump-", dir=self.spool) as spool:
            target = Path(spool) / name
            argv = dump_command(
                self.programs,
                "directory",
                self.snapshot.name,
                self.snapshot.server.encoding,
                directory=target,
                jobs=jobs,
            )
            with self.report.phase("dump (directory)", total=len(self.snapshot.tables), unit="tables"):
                for _ in self.program(argv):
                    pass
            count = CountedDirectory(target)
            files = sorted(target.iterdir())
            with self.report.phase("upload", total=sum(file.stat().st_size for file in files)) as phase:
                objects = [self._send(file, f"{name}/{file.name}", count, phase) for file in files]
            return CopiedDatabase(tuple(objects), count.toc, count.result())

    def _send(self, file: Path, name: str, count: CountedDirectory, phase: Phase) -> StoredObject:
        stored = self.upload(name, count.passing(file, chunks_of(file)), phase)
        file.unlink()
        return stored
