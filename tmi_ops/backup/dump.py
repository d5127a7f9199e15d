"""pg_dump and pg_dumpall: their command lines, and their output as a stream of bytes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Literal

import zstandard

from tmi_ops.errors import ProgramError
from tmi_ops.postgres.guard import guard
from tmi_ops.postgres.programs import Programs, client_environment, plain_environment, program_failed
from tmi_ops.postgres.versions import DUMP_IN_ZSTD

LogicalFormat = Literal["custom", "directory", "plain", "schema-only"]
LOGICAL_FORMATS: tuple[LogicalFormat, ...] = ("custom", "directory", "plain", "schema-only")

READ_SIZE = 1 << 20  # bytes; the default maximum of an unprivileged process's pipe on Linux
ZSTD_LEVEL = 1  # above 1, the dump waits for the compressor on 2 cores, for a few per cent of size
# We already hold a lock on every table, so pg_dump waits for one only behind a session that waits for us.
LOCK_WAIT_MS = 10_000
# Applies to data-only dumps; ours create foreign keys after the rows.
_HARMLESS = ("there are circular foreign-key constraints",)


def dump_object_name(format_: LogicalFormat) -> str:
    """The name of the dump's object in the store (for `directory`, of the folder with its files)."""
    return {
        "custom": "database.dump",
        "directory": "database.dir",
        "plain": "database.sql.zst",
        "schema-only": "schema.sql",
    }[format_]


def dump_command(
    programs: Programs,
    format_: LogicalFormat,
    snapshot: str,
    encoding: str,
    *,
    directory: Path | None = None,
    jobs: int = 2,
) -> list[str | Path]:
    """The pg_dump command line of a format. Output goes to stdout, for `directory` into that directory.

    Script formats (`plain`, `schema-only`) also leave the server as an archive: its contents can be counted on the way,
    and pg_restore turns it into a script (`script_command`).
    Source: https://www.postgresql.org/docs/current/app-pgdump.html

    Args:
        encoding: the database's own. Nothing is converted, so bytes that are invalid in another encoding are kept.
    """
    argv = [*_dump_options(programs, encoding), f"--snapshot={snapshot}", f"--lock-wait-timeout={LOCK_WAIT_MS}"]
    if format_ == "directory":
        if directory is None:
            raise AssertionError
        return [
            *argv,
            "--format=directory",
            f"--compress={compression(programs)}",
            f"--jobs={jobs}",
            f"--file={directory}",
        ]
    if format_ == "schema-only":
        argv.append("--schema-only")
    return [*argv, "--format=custom", f"--compress={compression(programs) if format_ == 'custom' else '0'}"]


def count_command(programs: Programs, encoding: str) -> list[str | Path]:
    """The pg_dump command line of a dump that is counted and thrown away."""
    return [*_dump_options(programs, encoding), "--format=custom", f"--compress={compression(programs)}"]


def definitions_command(programs: Programs, encoding: str) -> list[str | Path]:
    """The pg_dump command line of an archive of every definition, without data."""
    return [*_dump_options(programs, encoding), "--format=custom", "--schema-only", "--compress=0"]


def _dump_options(programs: Programs, encoding: str) -> list[str | Path]:
    return [programs.path("pg_dump"), "--no-password", f"--encoding={encoding}"]


def script_command(programs: Programs) -> list[str | Path]:
    """The pg_restore command line that converts an archive on standard input into a script on standard output."""
    return [programs.path("pg_restore"), "--file=-"]


def compression(programs: Programs) -> str:
    """pg_dump's compression option: zstd if it supports it, else gzip at the same level."""
    return f"zstd:{ZSTD_LEVEL}" if _speaks_zstd(programs) else "1"


def globals_command(programs: Programs, database: str, *, with_passwords: bool) -> list[str | Path]:
    """The pg_dumpall command line for roles and their memberships. Without passwords it needs no superuser.

    It connects to `database`, so the role needs access to no other.

    Source: https://www.postgresql.org/docs/current/app-pg-dumpall.html
    """
    argv: list[str | Path] = [programs.path("pg_dumpall"), "--no-password", "--roles-only", f"--database={database}"]
    return argv if with_passwords else [*argv, "--no-role-passwords"]


def waited_for_lock(error: BaseException) -> bool:
    """Whether pg_dump failed because it did not get a table lock in time."""
    return isinstance(error, ProgramError) and "LOCK TABLE" in error.output and "canceling statement" in error.output


class Stop:
    """Ends programs from another thread: those running, and those started later."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        self.pulled = False

    def __call__(self) -> None:
        with self._lock:
            self.pulled = True
            for process in self._processes:
                _end(process)

    def pause(self, paused: bool) -> None:
        """Pause the programs, or let them continue."""
        with self._lock:
            for process in self._processes:
                if process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGSTOP if paused else signal.SIGCONT)

    def ends(self, process: subprocess.Popen[bytes]) -> None:
        """End `process` when the stop is pulled."""
        with self._lock:
            self._processes.append(process)
            if self.pulled:
                _end(process)


def stream_program(
    argv: Sequence[str | Path],
    env: Mapping[str, str],
    *,
    stdin: Iterable[bytes] | None = None,
    stop: Stop | None = None,
    warn: Callable[[str], None] | None = None,
) -> Iterator[bytes]:
    """Run a program and yield its standard output as it is written. Closing the iterator ends the program.

    Args:
        stdin: its standard input, written by a thread.
        warn: called with each warning once the program has succeeded: pg_dump's exit code does not show what it left
            out.

    Raises:
        ProgramError: after the last byte, if the program exited non-zero; the output so far is not a whole dump.
    """
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                [str(word) for word in argv],
                env=client_environment(env),
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # with the workers of a parallel dump
            )
        except OSError as error:
            raise ProgramError(f"{argv[0]} could not be started: {error.strerror}.") from None
        watching = guard(process.pid)  # a parallel dump would continue without us
        if stop is not None:
            stop.ends(process)
        feeder = _Feeder(process, stdin) if stdin is not None else None
        try:
            yield from _read_all(process)
            if feeder is not None:
                feeder.finish()
            if process.wait() != 0:
                errors.seek(0)
                raise program_failed(argv[0], process.returncode, errors.read().decode(errors="replace"))
            if warn is not None:
                errors.seek(0)
                for warning in warnings_in(errors.read().decode(errors="replace")):
                    warn(warning)
        finally:
            _end(process)
            process.wait()
            watching.release()
            if feeder is not None:
                feeder.join()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


class _Feeder:
    """Writes chunks to a program's standard input. If producing them fails, the program is ended."""

    def __init__(self, process: subprocess.Popen[bytes], chunks: Iterable[bytes]) -> None:
        self._process = process
        self._chunks = chunks
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._feed, name="feed", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def join(self) -> None:
        self._thread.join()

    def _feed(self) -> None:
        if self._process.stdin is None:
            raise AssertionError
        try:
            with self._process.stdin as stdin:
                for chunk in self._chunks:
                    stdin.write(chunk)
        except BrokenPipeError:
            pass  # the program ended early; its exit code and messages say why
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that reads the output
            self._failure = error
            _end(self._process)


def warnings_in(said: str) -> list[str]:
    """The warnings in a PostgreSQL program's output that concern the dump's content."""
    found = [line.split(": warning: ", 1)[1].strip() for line in said.splitlines() if ": warning: " in line]
    return [warning for warning in found if not warning.startswith(_HARMLESS)]


def compressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks as one zstd frame (readable by `zstd -d`)."""
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
        _widen(output)
        while chunk := output.read(READ_SIZE):
            yield chunk


def _widen(output: IO[bytes]) -> None:
    """Enlarge a pipe beyond its 64 kB if permitted: the program continues while we hash and upload its output."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, READ_SIZE)


@lru_cache(maxsize=8)
def _speaks_zstd(programs: Programs) -> bool:
    """Whether this pg_dump was built with zstd: it reports a lack before it tries to connect (here, to nowhere)."""
    if programs.major < DUMP_IN_ZSTD:
        return False
    probe = subprocess.run(
        [str(programs.path("pg_dump")), "--format=custom", "--compress=zstd:1", "--host=/nonexistent"],
        capture_output=True,
        text=True,
        check=False,
        env=plain_environment(),
    )
    return "does not support compression" not in probe.stderr
