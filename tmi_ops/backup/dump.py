"""pg_dump and pg_dumpall: what is asked of them, and their output as a stream of bytes."""

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

READ_SIZE = 1 << 20  # bytes; the most that a pipe of an unprivileged process may hold on Linux as it comes
ZSTD_LEVEL = 1  # beyond 1 the dump waits for the compressor on 2 cores, for a few per cent of size
# We hold every table already, so pg_dump waits for a lock only behind somebody who waits for us.
LOCK_WAIT_MS = 10_000
# Concerns dumps of data alone; ours make foreign keys after the rows.
_HARMLESS = ("there are circular foreign-key constraints",)


def dump_object_name(format_: LogicalFormat) -> str:
    """The name of the dump's object in the store (for `directory`: the folder its files are in)."""
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
    """The pg_dump argv of a format. Output goes to stdout, but for `directory` into that directory.

    What ends as a script (`plain`, `schema-only`) leaves the server as an archive too: its contents can be counted on
    the way, and pg_restore makes the script of it (`script_command`).
    Source: https://www.postgresql.org/docs/current/app-pgdump.html

    Args:
        encoding: the database's own. Nothing is converted, so bytes that are no text in another encoding come along.
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
    """The pg_dump argv for a dump that is counted and thrown away."""
    return [*_dump_options(programs, encoding), "--format=custom", f"--compress={compression(programs)}"]


def definitions_command(programs: Programs, encoding: str) -> list[str | Path]:
    """The pg_dump argv for an archive of every definition, without data."""
    return [*_dump_options(programs, encoding), "--format=custom", "--schema-only", "--compress=0"]


def _dump_options(programs: Programs, encoding: str) -> list[str | Path]:
    return [programs.path("pg_dump"), "--no-password", f"--encoding={encoding}"]


def script_command(programs: Programs) -> list[str | Path]:
    """The pg_restore argv that makes a script of an archive: from its standard input to its standard output."""
    return [programs.path("pg_restore"), "--file=-"]


def compression(programs: Programs) -> str:
    """What pg_dump compresses with: zstd where it can, else its gzip at the same eagerness."""
    return f"zstd:{ZSTD_LEVEL}" if _speaks_zstd(programs) else "1"


def globals_command(programs: Programs, database: str, *, with_passwords: bool) -> list[str | Path]:
    """The pg_dumpall argv for roles and their memberships. Without passwords it needs no superuser.

    It connects to `database`: the role need not be let into any other.

    Source: https://www.postgresql.org/docs/current/app-pg-dumpall.html
    """
    argv: list[str | Path] = [programs.path("pg_dumpall"), "--no-password", "--roles-only", f"--database={database}"]
    return argv if with_passwords else [*argv, "--no-role-passwords"]


def waited_for_lock(error: BaseException) -> bool:
    """Whether a pg_dump ended because it was not given a table's lock in time."""
    return isinstance(error, ProgramError) and "LOCK TABLE" in error.output and "canceling statement" in error.output


class Stop:
    """Ends programs from another thread, those that run and those that would begin."""

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
        """Have the programs wait, or go on."""
        with self._lock:
            for process in self._processes:
                if process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGSTOP if paused else signal.SIGCONT)

    def ends(self, process: subprocess.Popen[bytes]) -> None:
        """Have `process` ended when the stop is pulled."""
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
    """Run a program and yield its standard output as it comes. Closing the iterator ends the program.

    Args:
        stdin: what it reads, handed over by a thread.
        warn: told of each warning when the program has ended well: pg_dump's exit code does not tell what it left out.

    Raises:
        ProgramError: after the last byte, when the program exited non-zero: what came before is not a whole dump.
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
        watching = guard(process.pid)  # a parallel dump would go on without us
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
    """Hands chunks to a program's standard input; what fails in making them ends the program."""

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
            pass  # the program ended early; its exit code and words say why
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that reads the output
            self._failure = error
            _end(self._process)


def warnings_in(said: str) -> list[str]:
    """The warnings of one of PostgreSQL's programs that say something of the dump's content."""
    found = [line.split(": warning: ", 1)[1].strip() for line in said.splitlines() if ": warning: " in line]
    return [warning for warning in found if not warning.startswith(_HARMLESS)]


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
        _widen(output)
        while chunk := output.read(READ_SIZE):
            yield chunk


def _widen(output: IO[bytes]) -> None:
    """Let a pipe hold more than its 64 kB, where it may: the program goes on while we hash and send what came."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, READ_SIZE)


@lru_cache(maxsize=8)
def _speaks_zstd(programs: Programs) -> bool:
    """Whether this pg_dump was built with zstd: it says so before it tries to connect (to nowhere, here)."""
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
