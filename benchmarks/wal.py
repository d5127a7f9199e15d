"""WAL into S3 and out of it: archiving a backlog, lag under a steady load, and a restore that replays it.

    python -m benchmarks.wal --size 5e8 --backlog 40 --rounds 3

One server, one S3 server, ours beside pgBackRest (asynchronous, two processes) and barman-cloud. See peers.py for what
it needs.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import psycopg

from benchmarks.base_backup import on_bench, sides
from benchmarks.logical_backup import MB
from benchmarks.peers import Bench, as_server
from benchmarks.processes import run_pipeline
from tmi_ops.postgres.cluster import free_port
from tmi_ops.postgres.connections import connection_parameters
from tmi_ops.postgres.wal_files import parse_lsn

SEGMENT = 16 << 20
LAG_RATE_MB, LAG_SECONDS = 20, 40
OURS, PGBACKREST, BARMAN = "tmi-ops", "pgBackRest", "barman-cloud"


@click.command()
@click.option("--size", type=float, default=5e8, show_default=True, help="Bytes of the TMI database.")
@click.option(
    "--backlog", type=click.IntRange(2), default=40, show_default=True, help="Segments to archive and replay."
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
def main(size: float, backlog: int, rounds: int) -> None:
    """Measure WAL archiving, its lag, and a restore that replays it."""
    on_bench(size, lambda made, _: measure(made, backlog, rounds), {"archive_mode": "on", "max_wal_size": "16GB"})


def measure(made: Bench, backlog: int, rounds: int) -> None:
    """All three measurements, each printed as a Markdown table."""
    prepare(made)
    click.echo(f"\nArchiving {backlog} segments that lie ready\n\n|  | median MB/s | each |\n| --- | ---: | ---: |")
    for name, archive in ((OURS, _ours), (PGBACKREST, _pgbackrest), (BARMAN, _barman)):
        rates = [_drained(made, backlog, archive) for _ in range(rounds)]
        click.echo(f"| {name} | {statistics.median(rates):.0f} | {' '.join(f'{rate:.0f}' for rate in rates)} |")
    click.echo(
        f"\nLag at {LAG_RATE_MB} MB/s of WAL for {LAG_SECONDS} s\n\n|  | median s | worst s |\n| --- | ---: | ---: |"
    )
    for name, lags in ((OURS, _lag_of_ours(made)), (PGBACKREST, _lag_of_pgbackrest(made))):
        click.echo(f"| {name} | {statistics.median(lags):.1f} | {max(lags):.1f} |")
    base_backups(made)
    write_segments(made, backlog)
    archive_everywhere(made)
    click.echo(
        f"\nRestore to the end of the WAL, {backlog} segments to replay\n\n"
        "|  | median s | each s | of it replay s | segments/s replayed |\n| --- | ---: | ---: | ---: | ---: |"
    )
    for name, restore in ((OURS, _restore_ours), (PGBACKREST, _restore_pgbackrest), (BARMAN, _restore_barman)):
        took = [restore(made) for _ in range(rounds)]
        whole, replay = statistics.median(sum(one) for one in took), statistics.median(one[1] for one in took)
        each = " ".join(f"{sum(one):.1f}" for one in took)
        click.echo(f"| {name} | {whole:.1f} | {each} | {replay:.1f} | {backlog / replay:.1f} |")


def prepare(made: Bench) -> None:
    """Our slot, pgBackRest's stanza; nothing is archived yet."""
    run_pipeline([made.ours("wal", "stream", "--catch-up", "--quiet")], made.env)
    run_pipeline([made.pgbackrest("--no-online", "stanza-create")], made.env)
    _archive_with(made, "")


def write_segments(made: Bench, count: int) -> int:
    """So many segments of a TMI-shaped load (updates of its largest table). Returns the LSN they end at."""
    with _connect(made) as connection:
        start = _lsn(connection)
        connection.execute("CHECKPOINT")
        while _lsn(connection) < start + count * SEGMENT:
            connection.execute(
                "UPDATE threats SET modified_at = clock_timestamp() WHERE ctid IN "
                "(SELECT ctid FROM threats TABLESAMPLE SYSTEM (3))"
            )
        connection.execute("SELECT pg_switch_wal()")
        connection.execute("SELECT pg_logical_emit_message(true, 'benchmark', 'end')")
        return _lsn(connection)


def _drained(made: Bench, backlog: int, archive: Callable[[Bench, int], float]) -> float:
    """MB/s at which one archiver takes a backlog; what the other ones left ready is forgotten first."""
    _archive_with(made, "/bin/true")
    _wait(lambda: _ready(made) == 0)
    _archive_with(made, "")
    run_pipeline([made.ours("wal", "stream", "--catch-up", "--quiet")], made.env)
    with _connect(made) as connection:
        start = _lsn(connection)
    end = write_segments(made, backlog)
    return (end - start) / MB / archive(made, end)


def _ours(made: Bench, _: int) -> float:
    return run_pipeline([made.ours("wal", "stream", "--catch-up", "--quiet")], made.env).seconds


def _pgbackrest(made: Bench, _: int) -> float:
    return _until_archived(made, _pgbackrest_command(made))


def _barman(made: Bench, _: int) -> float:
    return _until_archived(made, _barman_command(made))


def _until_archived(made: Bench, command: str) -> float:
    begun = time.monotonic()
    _archive_with(made, command)
    _wait(lambda: _ready(made) == 0)
    _archive_with(made, "")
    return time.monotonic() - begun


def _pgbackrest_command(made: Bench) -> str:
    words = f"pgbackrest --config={made.directory / 'pgbackrest.conf'} --stanza=main archive-push %p"
    return _with_environment(made, words)


def _barman_command(made: Bench) -> str:
    words = made.barman("wal-archive", "--lz4", *made.barman_store, "%p")[len(as_server()) :]
    return _with_environment(made, " ".join(map(str, words)))


def _with_environment(made: Bench, command: str) -> str:
    """The server was started before there were keys; its children read them from a throw-away file."""
    file = made.directory / "peers.env"
    told = (f"export {name}='{value}'\n" for name, value in made.env.items() if name[:3] in ("AWS", "PGB"))
    file.write_text("".join(told))
    return f". {file} && {command}"


def _lag_of_ours(made: Bench) -> list[float]:
    stream = subprocess.Popen(
        [str(word) for word in made.ours("wal", "stream", "--quiet")],
        env={**os.environ, **made.env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    query = "SELECT coalesce(max(flush_lsn), '0/0')::text FROM pg_stat_replication"
    try:
        return _lags(made, query)
    finally:
        stream.terminate()
        stream.wait()


def _lag_of_pgbackrest(made: Bench) -> list[float]:
    _archive_with(made, "/bin/true")
    _wait(lambda: _ready(made) == 0)
    _archive_with(made, _pgbackrest_command(made))
    # The end of the last archived segment.
    query = (
        "SELECT (('0/0'::pg_lsn) + (('x' || substr(last_archived_wal, 9, 8))::bit(32)::bigint * 4294967296 + "
        "(('x' || substr(last_archived_wal, 17, 8))::bit(32)::bigint + 1) * 16777216))::text FROM pg_stat_archiver"
    )
    try:
        return _lags(made, query)
    finally:
        _archive_with(made, "")


def _lags(made: Bench, archived: str) -> list[float]:
    """Once a second: how old is the newest WAL that is safe? The first five seconds are left out."""
    written: list[tuple[float, int]] = []
    done = threading.Event()
    writer = threading.Thread(target=_write_steadily, args=(made, written, done))
    writer.start()
    lags = []
    with _connect(made) as connection:
        for second in range(LAG_SECONDS):
            time.sleep(1)
            row = connection.execute(archived).fetchone()
            safe = parse_lsn(str(row[0])) if row and row[0] else 0
            waiting = [at for at, lsn in written if lsn > safe]
            if second >= 5:
                lags.append(time.monotonic() - waiting[0] if waiting else 0.0)
    done.set()
    writer.join()
    return lags


def _write_steadily(made: Bench, written: list[tuple[float, int]], done: threading.Event) -> None:
    begun = time.monotonic()
    with _connect(made) as connection:
        connection.execute("SET synchronous_commit = local")
        while not done.is_set():
            connection.execute(
                "SELECT pg_logical_emit_message(true, 'benchmark', string_agg(md5(random()::text), '')) "
                "FROM generate_series(1, 31250)"
            )
            written.append((time.monotonic(), _lsn(connection)))
            ahead = begun + len(written) / LAG_RATE_MB - time.monotonic()
            time.sleep(max(0.0, ahead))


def base_backups(made: Bench) -> None:
    """One of each tool, to restore from."""
    _archive_with(made, "/bin/true")
    _wait(lambda: _ready(made) == 0)
    _archive_with(made, _both(made))
    for side in sides(made):
        run_pipeline([side.command], made.env)


def archive_everywhere(made: Bench) -> None:
    """Every archive holds the same WAL."""
    run_pipeline([made.ours("wal", "stream", "--catch-up", "--quiet")], made.env)
    _wait(lambda: _ready(made) == 0)


def _both(made: Bench) -> str:
    return f"{_pgbackrest_command(made)} && {_barman_command(made)}"


def _restore_ours(made: Bench) -> tuple[float, float]:
    """The replay is what the command itself says of it."""
    with _place(made) as place:
        begun = time.monotonic()
        done = subprocess.run(
            [str(word) for word in made.ours("restore", "--latest", "--into", place, "--quiet")],
            env={**os.environ, **made.env},
            capture_output=True,
            text=True,
            check=True,
        )
        took = time.monotonic() - begun
    replay = sum(float(found) for found in re.findall(r"^\s*replay\s+([\d.]+) s", done.stdout, re.MULTILINE))
    return took - replay, replay


def _restore_pgbackrest(made: Bench) -> tuple[float, float]:
    with _place(made) as place:
        fetch = run_pipeline([made.pgbackrest(f"--pg1-path={place}", "--type=default", "restore")], made.env).seconds
        return fetch, _recovered(made, place, [])


def _restore_barman(made: Bench) -> tuple[float, float]:
    store = made.barman_store
    with _place(made) as place:
        run = run_pipeline([made.barman("restore", *store, "auto", place)], made.env)
        words = made.barman("wal-restore", *store, "%f", "%p")[len(as_server()) :]
        (place / "recovery.signal").touch()
        return run.seconds, _recovered(made, place, ["-c", f"restore_command={' '.join(map(str, words))}"])


def _recovered(made: Bench, place: Path, options: list[str]) -> float:
    """Start the restored cluster and wait until it is up for writing."""
    port = free_port()
    begun = time.monotonic()
    server = subprocess.Popen(
        [
            *map(str, as_server()),
            str(made.servers.programs.path("postgres")),
            *("-D", str(place), "-c", f"port={port}", "-c", "listen_addresses=", "-c", "archive_mode=off"),
            *("-c", f"unix_socket_directories={made.sockets}", "-c", "shared_buffers=256MB", "-c", "hot_standby=on"),
            *options,
        ],
        env={**os.environ, **made.env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(lambda: _is_up(made, port))
        return time.monotonic() - begun
    finally:
        server.terminate()
        server.wait()


def _is_up(made: Bench, port: int) -> bool:
    try:
        parameters = {**connection_parameters(made.servers.postgres), "host": str(made.sockets), "port": port}
        with psycopg.connect(**parameters) as connection:
            row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    except psycopg.OperationalError:
        return False
    return row == (False,)


@contextmanager
def _place(made: Bench) -> Iterator[Path]:
    place = made.directory / "restored"
    place.mkdir(mode=0o700)
    if as_server():
        shutil.chown(place, "nobody", "nogroup")
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _archive_with(made: Bench, command: str) -> None:
    with _connect(made) as connection:
        quoted = command.replace("'", "''")
        connection.execute(f"ALTER SYSTEM SET archive_command = '{quoted}'")
        connection.execute("SELECT pg_reload_conf()")
        # Only a finished segment wakes the archiver.
        connection.execute("SELECT pg_logical_emit_message(true, 'benchmark', 'wake')")
        connection.execute("SELECT pg_switch_wal()")


def _ready(made: Bench) -> int:
    return sum(1 for path in (made.servers.data / "pg_wal" / "archive_status").iterdir() if path.suffix == ".ready")


def _wait(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)


def _connect(made: Bench) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(**connection_parameters(made.servers.postgres), autocommit=True)


def _lsn(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    return parse_lsn(str(row[0])) if row else 0


if __name__ == "__main__":
    main()
