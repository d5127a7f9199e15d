"""A restore to the end of the WAL: the base backup fetched, then segment after segment fetched and replayed.

    python -m benchmarks.wal.restore --size 2e9 --segments 64 --rounds 3

Three archives of the same server hold the same WAL. The server that replays has the same settings on every side.
"""

from __future__ import annotations

import os
import pwd
import re
import resource
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click
import psycopg

from benchmarks.base_backup import on_bench, sides
from benchmarks.peers import Bench, as_server, barman_is_here
from benchmarks.processes import run_pipeline
from benchmarks.wal.archivers import (
    BARMAN,
    NAMES,
    OURS,
    PGBACKREST,
    SERVER_SETTINGS,
    archive_with,
    barman_command,
    catch_up,
    cpu_watch,
    forget_backlog,
    pgbackrest_command,
    prepare,
    ready,
    wait_until,
)
from benchmarks.wal.backlog import write_segments
from tmi_ops.postgres.cluster import free_port
from tmi_ops.postgres.connections import connection_parameters
from tmi_ops.postgres.unprivileged import SERVER_USER


@dataclass(frozen=True)
class Restored:
    """Seconds: until the files were there, and from the server's start until it took writes; CPU seconds of the tool
    (with its own server, where it starts one), and of the S3 server with its front."""

    files: float
    replay: float
    cpu: float = 0.0
    store_cpu: float = 0.0

    @property
    def whole(self) -> float:
        return self.files + self.replay


@click.command()
@click.option("--size", type=float, default=2e9, show_default=True, help="Bytes of the TMI databases.")
@click.option("--segments", type=click.IntRange(2), default=64, show_default=True, help="Segments to replay.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
def main(size: float, segments: int, rounds: int) -> None:
    """Measure a restore to the end of the WAL."""
    on_bench(size, lambda made, _: _measure(made, segments, rounds), SERVER_SETTINGS, major=17)


def _measure(made: Bench, segments: int, rounds: int) -> None:
    fill_archives(made, segments)
    taken = [one_round(made, number) for number in range(rounds)]
    click.echo(
        f"\nRestore to the end of the WAL, {segments} segments to replay; load {os.getloadavg()[1]:.1f}\n\n"
        "|  | median s | each s | of it replay s | times ours, median | CPU s: tool and server | S3 and TLS |"
        "\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    for name in taken[0]:
        whole = [one[name].whole for one in taken]
        replay = statistics.median(one[name].replay for one in taken)
        each = " ".join(f"{one:.1f}" for one in whole)
        ratio = statistics.median(one[name].whole / one[OURS].whole for one in taken)
        cpu, store_cpu = (statistics.median(getattr(one[name], part) for one in taken) for part in ("cpu", "store_cpu"))
        click.echo(
            f"| {name} | {statistics.median(whole):.1f} | {each} | {replay:.1f} | {ratio:.2f} | {cpu:.1f} "
            f"| {store_cpu:.1f} |"
        )


def fill_archives(made: Bench, segments: int) -> None:
    """A base backup of each tool, and the same WAL after it in every archive."""
    prepare(made)
    forget_backlog(made)
    commands = [pgbackrest_command(made), *([barman_command(made)] if barman_is_here() else [])]
    archive_with(made, " && ".join(commands))
    for side in sides(made):
        if "bundle" not in side.name:
            run_pipeline([side.command], made.env)
    write_segments(made, segments)
    catch_up(made)
    wait_until(lambda: ready(made) == 0)
    archive_with(made, "")


def one_round(made: Bench, number: int) -> dict[str, Restored]:
    """Every tool's restore once, in an order that changes with the round."""
    ways = {OURS: _restore_ours, PGBACKREST: _restore_pgbackrest, BARMAN: _restore_barman}
    found = {}
    for name in NAMES if number % 2 == 0 else NAMES[::-1]:
        before = _cpu_of_children()
        with cpu_watch(made) as watch:
            restored = ways[name](made)
        used = watch.seconds
        cpu = _cpu_of_children() - before + sum(seconds for who, seconds in used.items() if who.startswith(PGBACKREST))
        found[name] = replace(restored, cpu=cpu, store_cpu=used["store"] + used["front"])
        click.echo(f"round {number + 1}: {name} {found[name]}")
    return found


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _restore_ours(made: Bench) -> Restored:
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
    return Restored(took - replay, replay)


def _restore_pgbackrest(made: Bench) -> Restored:
    with _place(made) as place:
        # As on a machine of its own: archive-get must not wait for a lock of the source's archive-push.
        apart = [f"--lock-path={_room(made, 'lock')}", f"--spool-path={_room(made, 'spool')}"]
        restore = made.pgbackrest(f"--pg1-path={place}", *apart, "--type=default", "restore")
        fetch = run_pipeline([restore], made.env).seconds
        return Restored(fetch, _recovered(made, place, []))


def _room(made: Bench, name: str) -> Path:
    room = made.directory / f"restore-{name}"
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir()
    room.chmod(0o777)
    return room


def _restore_barman(made: Bench) -> Restored:
    store = made.barman_store
    with _place(made) as place:
        run = run_pipeline([made.barman("restore", *store, "auto", place)], made.env)
        words = made.barman("wal-restore", *store, "%f", "%p")[len(as_server()) :]
        (place / "recovery.signal").touch()
        return Restored(run.seconds, _recovered(made, place, ["-c", f"restore_command={' '.join(map(str, words))}"]))


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
        wait_until(lambda: _is_up(made, port))
        return time.monotonic() - begun
    finally:
        server.send_signal(signal.SIGINT)
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
        shutil.chown(place, SERVER_USER, pwd.getpwnam(SERVER_USER).pw_gid)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
