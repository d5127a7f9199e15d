"""The three archivers: how each is set to work on the same server, and how far each has come."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import psycopg

from benchmarks.peers import Bench, as_server, barman_is_here, pgbackrest_program
from benchmarks.processes import CpuWatch, Run, run_pipeline
from tmi_ops.postgres.connections import connection_parameters
from tmi_ops.postgres.wal_files import parse_lsn

SEGMENT = 16 << 20
OURS, PGBACKREST, BARMAN = "tmi-ops", "pgBackRest", "barman-cloud"
# What the server needs so that a backlog can lie ready.
SERVER_SETTINGS = {"archive_mode": "on", "max_wal_size": "64GB", "checkpoint_timeout": "1h"}
PATIENCE_S = 300
_FLUSHED_BY_STREAM = "SELECT coalesce(max(flush_lsn), '0/0')::text FROM pg_stat_replication"
_END_OF_LAST_ARCHIVED = """
SELECT ('0/0'::pg_lsn + (('x' || substr(last_archived_wal, 9, 8))::bit(32)::bigint * 4294967296
        + (('x' || substr(last_archived_wal, 17, 8))::bit(32)::bigint + 1) * 16777216))::text FROM pg_stat_archiver
"""


@dataclass(frozen=True)
class Archiver:
    """`at_work` keeps it going for the length of a block; `safe_query` gives the LSN up to which it has archived."""

    name: str
    at_work: Callable[[Bench], AbstractContextManager[None]]
    safe_query: str


def prepare(made: Bench) -> None:
    """Our slot, pgBackRest's stanza; nothing is archived yet."""
    catch_up(made)
    run_pipeline([made.pgbackrest("--no-online", "stanza-create")], made.env)
    archive_with(made, "")


def catch_up(made: Bench) -> Run:
    """Let ours archive what there is."""
    return run_pipeline([made.ours("wal", "stream", "--catch-up", "--quiet")], made.env)


def cpu_watch(made: Bench) -> CpuWatch:
    """What server, store and TLS front use, and pgBackRest's processes that work beside its commands."""
    roots = {"server": made.servers.postgres_pid, "store": made.servers.s3_pid, "front": made.front_pid}
    return CpuWatch(roots, {PGBACKREST: ":async"})  # with its workers, which are its children


def forget_backlog(made: Bench) -> None:
    """What one archiver left ready is no concern of the next."""
    archive_with(made, "/bin/true")
    wait_until(lambda: ready(made) == 0)
    archive_with(made, "")
    catch_up(made)


def pgbackrest_command(made: Bench) -> str:
    words = f"{pgbackrest_program()} --config={made.directory / 'pgbackrest.conf'} --stanza=main archive-push %p"
    return _with_environment(made, words)


def barman_command(made: Bench) -> str:
    words = made.barman("wal-archive", "--zstd", *made.barman_store, "%p")[len(as_server()) :]
    return _with_environment(made, " ".join(map(str, words)))


def archive_with(made: Bench, command: str) -> None:
    """Set the server's archive_command, and wake its archiver, which only a finished segment does."""
    with connect(made) as connection:
        quoted = command.replace("'", "''")
        connection.execute(f"ALTER SYSTEM SET archive_command = '{quoted}'")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("SELECT pg_logical_emit_message(true, 'benchmark', 'wake')")
        connection.execute("SELECT pg_switch_wal()")


def ready(made: Bench) -> int:
    """Segments that wait for the archiver."""
    return sum(1 for path in (made.servers.data / "pg_wal" / "archive_status").iterdir() if path.suffix == ".ready")


def until_archived(made: Bench, command: str) -> float:
    """Let an archive_command take what lies ready. Returns seconds."""
    begun = time.monotonic()
    archive_with(made, command)
    wait_until(lambda: ready(made) == 0)
    took = time.monotonic() - begun
    archive_with(made, "")
    return took


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)


def connect(made: Bench) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(**connection_parameters(made.servers.postgres), autocommit=True)


def flushed(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    """The LSN up to which the server has flushed its WAL."""
    return one_lsn(connection, "SELECT pg_current_wal_flush_lsn()::text")


def one_lsn(connection: psycopg.Connection[tuple[object, ...]], query: str) -> int:
    row = connection.execute(query).fetchone()
    return parse_lsn(str(row[0])) if row and row[0] else 0


def _stream(*options: str) -> Callable[[Bench], AbstractContextManager[None]]:
    @contextmanager
    def at_work(made: Bench) -> Iterator[None]:
        process = subprocess.Popen(
            [str(word) for word in made.ours("wal", "stream", "--quiet", *options)],
            env={**os.environ, **made.env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait()

    return at_work


def _by_command(command: Callable[[Bench], str]) -> Callable[[Bench], AbstractContextManager[None]]:
    @contextmanager
    def at_work(made: Bench) -> Iterator[None]:
        archive_with(made, command(made))
        try:
            yield
        finally:
            archive_with(made, "")

    return at_work


def _with_environment(made: Bench, command: str) -> str:
    """The server was started before there were keys; its children read them from a throw-away file."""
    file = made.directory / "peers.env"
    told = (f"export {name}='{value}'\n" for name, value in made.env.items() if name[:3] in ("AWS", "PGB"))
    file.write_text("".join(told))
    return f". {file} && {command}"


ARCHIVERS = (
    Archiver(OURS, _stream(), _FLUSHED_BY_STREAM),
    Archiver(f"{OURS} --partial-every 0.5", _stream("--partial-every", "0.5"), _FLUSHED_BY_STREAM),
    Archiver(PGBACKREST, _by_command(pgbackrest_command), _END_OF_LAST_ARCHIVED),
    *([Archiver(BARMAN, _by_command(barman_command), _END_OF_LAST_ARCHIVED)] if barman_is_here() else []),
)
NAMES = tuple(archiver.name for archiver in ARCHIVERS)
