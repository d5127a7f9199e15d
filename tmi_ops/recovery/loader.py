"""Runs the programs that load a dump with as few privileges as possible.

A dump is data from the store, and the program that reads it runs on this machine. So it runs under an account that owns
nothing here, can read the dump and write nowhere, and knows no secret except the password of the server it loads into.
If that server is reached through a socket, the program has no network.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tmi_ops.errors import ProgramError
from tmi_ops.postgres.connections import libpq_environment
from tmi_ops.postgres.guard import guard
from tmi_ops.postgres.programs import Programs, bare_environment, known_by_clients, program_failed
from tmi_ops.postgres.unprivileged import ServerIdentity, loading_identity
from tmi_ops.settings import PostgresSettings


@dataclass(frozen=True)
class Loader:
    """Runs pg_restore and psql against one server."""

    identity: ServerIdentity
    environment: Mapping[str, str]

    def run(self, argv: Sequence[str | Path], stdin: Iterable[bytes] = ()) -> None:
        """Run a program to its end.

        Raises:
            ProgramError: it could not be started, or failed; the message quotes its output.
        """
        with tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    self.identity.command(argv),
                    env=bare_environment(self.environment),
                    cwd="/",
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,  # to kill it with its parallel workers
                    **self.identity.process_options(),
                )
            except OSError as error:
                raise ProgramError(f"{argv[0]} could not be started: {error.strerror}.") from None
            watching = guard(process.pid)
            try:
                _feed(process, stdin)
                process.wait()
            finally:
                if process.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                watching.release()
            if process.returncode != 0:
                errors.seek(0)
                raise program_failed(argv[0], process.returncode, errors.read().decode(errors="replace"))


def loader_into(address: PostgresSettings, programs: Programs, dump: Path) -> Loader:
    """A loader of `dump`, a file or a directory, into the server at `address`. Gives it read access to the dump.

    If authentication depends on the operator's own account or files, the program runs as the operator.
    """
    network = not address.host.startswith("/")
    environment = libpq_environment(address)
    if network:
        environment = known_by_clients(environment)
    if address.password is None:
        return Loader(ServerIdentity(), {"HOME": str(Path.home()), **environment})
    needed = tuple(_files_of_the_operator(address)) if network else ()
    program = programs.path("pg_restore")
    return Loader(loading_identity(program, dump.resolve().parent, needed=needed, network=network), environment)


def _files_of_the_operator(address: PostgresSettings) -> Iterator[Path]:
    """The certificates and keys that libpq uses for this server."""
    named = (address.sslrootcert, address.sslcert, address.sslkey)
    for name, usual in zip(named, ("root.crt", "postgresql.crt", "postgresql.key"), strict=True):
        beside = Path.home() / ".postgresql" / usual
        if name and name != "system":
            yield Path(name)
        elif not name and beside.exists():
            yield beside


def _feed(process: subprocess.Popen[bytes], chunks: Iterable[bytes]) -> None:
    if process.stdin is None:
        raise AssertionError
    try:
        with process.stdin as stdin:
            for chunk in chunks:
                stdin.write(chunk)
    except BrokenPipeError:
        pass  # the program exited early; its exit code and output say why
