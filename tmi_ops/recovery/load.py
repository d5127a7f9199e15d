"""Load a fetched logical backup into a new, empty database."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import psycopg
import zstandard
from psycopg import sql

from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.connections import connect, libpq_environment
from tmi_ops.postgres.programs import Programs, program_failed, run_program
from tmi_ops.progress import Report
from tmi_ops.recovery.fetch import FetchedBackup
from tmi_ops.settings import PostgresSettings

RESTORE_JOBS = min(4, os.cpu_count() or 1)
_COPY_SIZE = 1 << 20


class SortsText(Protocol):
    """How a database encodes and sorts text: a manifest of a backup says so, and so do a server's facts."""

    @property
    def encoding(self) -> str: ...
    @property
    def collation(self) -> str: ...
    @property
    def ctype(self) -> str: ...


def create_database(address: PostgresSettings, source: SortsText, name: str, report: Report) -> None:
    """Create an empty database with the source's encoding and, where the server knows it, its collation.

    Raises:
        DatabaseError: it exists, or the role may not create databases.
    """
    with connect(address, "postgres") as connection:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {}").format(
            sql.Identifier(name), sql.Literal(source.encoding)
        )
        collation = sql.SQL(" LC_COLLATE {} LC_CTYPE {}").format(
            sql.Literal(source.collation), sql.Literal(source.ctype)
        )
        try:
            try:
                connection.execute(create + collation)
            except (psycopg.errors.WrongObjectType, psycopg.errors.InvalidParameterValue):
                report.note(f"this server has no locale {source.collation}; {name} sorts by C instead")
                connection.execute(create + sql.SQL(" LC_COLLATE 'C' LC_CTYPE 'C'"))
        except psycopg.errors.DuplicateDatabase:
            raise DatabaseError(
                f"The database {name} exists already.", next_step="choose another name for --into"
            ) from None
        except psycopg.errors.InsufficientPrivilege:
            raise DatabaseError(
                f"{address.user} may not create databases.",
                next_step=f"as a superuser: ALTER USER {address.user} CREATEDB",
            ) from None


def drop_database(address: PostgresSettings, name: str) -> None:
    """Drop a database that we made; it may be gone already."""
    with connect(address, "postgres") as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))


def load_dump(address: PostgresSettings, fetched: FetchedBackup, programs: Programs, report: Report) -> None:
    """Restore the dump into the empty database that `address` names; the first error ends it.

    Raises:
        ProgramError: pg_restore or psql failed; its words are in the message.
    """
    if fetched.manifest.format in ("custom", "directory"):
        load_archive(address, fetched.dump, programs, report)
        return
    with report.phase("restore", total=1, unit="steps") as phase:
        _run_script(fetched.dump, programs, libpq_environment(address))
        phase.advance(1)


def load_archive(address: PostgresSettings, dump: Path, programs: Programs, report: Report) -> None:
    """Restore an archive of pg_dump, a file or a directory, into the empty database that `address` names.

    Raises:
        ProgramError: pg_restore failed; its words are in the message.
    """
    argv: list[str | Path] = [
        programs.path("pg_restore"),
        "--no-password",
        "--exit-on-error",
        f"--jobs={RESTORE_JOBS}",
        f"--dbname={address.database}",
        dump,
    ]
    with report.phase("restore", total=1, unit="steps") as phase:
        run_program(argv, env=libpq_environment(address))
        phase.advance(1)


def _run_script(script: Path, programs: Programs, environment: dict[str, str]) -> None:
    argv = [
        str(programs.path("psql")), "--no-psqlrc", "--no-password", "--quiet", "--single-transaction",
        "--set=ON_ERROR_STOP=1", "--output=/dev/null",
    ]  # fmt: skip
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            argv, env={**os.environ, **environment, "LC_MESSAGES": "C"}, stdin=subprocess.PIPE, stderr=errors
        )
        if process.stdin is None:
            raise AssertionError
        try:
            with process.stdin as stdin:
                for chunk in _script_bytes(script):
                    stdin.write(chunk)
        except BrokenPipeError:
            pass  # psql ended early; its exit code and words say why
        except BaseException:
            process.kill()
            raise
        finally:
            process.wait()
        if process.returncode != 0:
            errors.seek(0)
            raise program_failed("psql", process.returncode, errors.read().decode(errors="replace"))


def _script_bytes(script: Path) -> Iterable[bytes]:
    with script.open("rb") as file:
        if script.suffix == ".zst":
            with zstandard.ZstdDecompressor().stream_reader(file) as reader:
                while chunk := reader.read(_COPY_SIZE):
                    yield chunk
        else:
            while chunk := file.read(_COPY_SIZE):
                yield chunk
