"""pg_dump and pg_dumpall: what is asked of them, and their output as a stream of bytes."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import zstandard

from tmi_ops.errors import ProgramError
from tmi_ops.postgres.programs import Programs, program_failed

LogicalFormat = Literal["custom", "directory", "plain", "schema-only"]
LOGICAL_FORMATS: tuple[LogicalFormat, ...] = ("custom", "directory", "plain", "schema-only")

READ_SIZE = 1 << 20  # 1 MiB: pipes hold 64 kB, so a read returns what is there; larger only saves calls
ZSTD_LEVEL = 1  # beyond 1 the dump waits for the compressor on 2 cores, for a few per cent of size
_FIRST_MAJOR_WITH_ZSTD = 16


def dump_object_name(format_: LogicalFormat) -> str:
    """The name of the dump's object in the store (for `directory`: the folder its files are in)."""
    return {
        "custom": "database.dump",
        "directory": "database.dir",
        "plain": "database.sql.zst",
        "schema-only": "schema.sql",
    }[format_]


def dump_command(
    programs: Programs, format_: LogicalFormat, snapshot: str, *, directory: Path | None = None, jobs: int = 2
) -> list[str | Path]:
    """The pg_dump argv of a format. Output goes to stdout, but for `directory` into that directory.

    Source: https://www.postgresql.org/docs/current/app-pgdump.html
    """
    argv: list[str | Path] = [programs.path("pg_dump"), "--no-password", f"--snapshot={snapshot}"]
    if format_ == "schema-only":
        return [*argv, "--format=plain", "--schema-only"]
    if format_ == "plain":
        return [*argv, "--format=plain"]
    argv += [f"--format={format_}", f"--compress={compression(programs)}"]
    if format_ == "directory":
        if directory is None:
            raise AssertionError
        argv += [f"--jobs={jobs}", f"--file={directory}"]
    return argv


def compression(programs: Programs) -> str:
    """What pg_dump compresses with: zstd where it can, else its gzip at the same eagerness."""
    return f"zstd:{ZSTD_LEVEL}" if _speaks_zstd(programs) else "1"


def globals_command(programs: Programs, *, with_passwords: bool) -> list[str | Path]:
    """The pg_dumpall argv for roles and their memberships. Without passwords it needs no superuser.

    Source: https://www.postgresql.org/docs/current/app-pg-dumpall.html
    """
    argv: list[str | Path] = [programs.path("pg_dumpall"), "--no-password", "--roles-only"]
    return argv if with_passwords else [*argv, "--no-role-passwords"]


def stream_program(argv: Sequence[str | Path], env: Mapping[str, str]) -> Iterator[bytes]:
    """Run a program and yield its standard output as it comes. Closing the iterator ends the program.

    Raises:
        ProgramError: after the last byte, when the program exited non-zero: what came before is not a whole dump.
    """
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                [str(word) for word in argv],
                env={**os.environ, **env, "LC_MESSAGES": "C"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        except OSError as error:
            raise ProgramError(f"{argv[0]} could not be started: {error.strerror}.") from None
        try:
            yield from _read_all(process)
            if process.wait() != 0:
                errors.seek(0)
                raise program_failed(argv[0], process.returncode, errors.read().decode(errors="replace"))
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def compressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks as one zstd frame (`zstd -d` reads it)."""
    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compressobj()
    for chunk in chunks:
        packed = compressor.compress(chunk)
        if packed:
            yield packed
    yield compressor.flush()


def _read_all(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    if process.stdout is None:
        raise AssertionError
    with process.stdout as output:
        while chunk := output.read(READ_SIZE):
            yield chunk


@lru_cache(maxsize=8)
def _speaks_zstd(programs: Programs) -> bool:
    """Whether this pg_dump was built with zstd: it says so before it tries to connect (to nowhere, here)."""
    if programs.major < _FIRST_MAJOR_WITH_ZSTD:
        return False
    probe = subprocess.run(
        [str(programs.path("pg_dump")), "--format=custom", "--compress=zstd:1", "--host=/nonexistent"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_MESSAGES": "C"},
    )
    return "does not support compression" not in probe.stderr
