"""What signing and checking cost, beside the backup that they belong to.

    python -m benchmarks.signing --size 100

A TMI database is backed up, in turn without keys and with pinned ones; then WAL is archived and read both ways. The
work of signing and checking is counted apart, on the CPU of this process; a whole deed by the wall clock.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import click

from benchmarks.servers import make_database, servers
from tmi_ops.backup.base import back_up_base
from tmi_ops.backup.logical import back_up_logical
from tmi_ops.postgres.wal_files import DEFAULT_SEGMENT_SIZE
from tmi_ops.progress import SilentReport
from tmi_ops.settings import Settings
from tmi_ops.store import trust
from tmi_ops.store.catalogue import list_backups
from tmi_ops.store.keys import make_keys
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.wal.stored_file import load, store_once

ENVIRONMENT = "measurement"
ROUNDS = 3
HEADER = (
    "| | without keys s | signed s | of it signing and checking, CPU s | share |\n| --- | ---: | ---: | ---: | ---: |"
)
SEGMENTS = 16
REPORT = SilentReport()


@click.command()
@click.option("--size", default=100, show_default=True, help="Of the database, in MB.")
def main(size: int) -> None:
    """Print a row for each kind of work."""
    with tempfile.TemporaryDirectory() as directory, servers(Path(directory)) as parts:
        make_database(parts.postgres, size * 1_000_000)
        keys = make_keys(Path(directory) / "keys", ENVIRONMENT, (), datetime.now(UTC))
        plain = parts.settings(ENVIRONMENT, Path(directory) / "home")
        signing = plain.model_copy(
            update={
                "store": parts.store.model_copy(
                    update={
                        "prefix": "signed",
                        "signing_key_file": keys.signing[0][1],
                        "trusted_keys": (str(keys.trusted_file),),
                        "seen_file": Path(directory) / "seen.json",
                    }
                )
            }
        )
        click.echo(HEADER)
        for name, work in _works():
            _measure(name, work, plain, signing)


Work = Callable[[Settings, ObjectStore], None]


def _works() -> Iterator[tuple[str, Work]]:
    segment = bytes(range(256)) * (DEFAULT_SEGMENT_SIZE // 256)

    def archive(settings: Settings, store: ObjectStore) -> None:
        for number in range(SEGMENTS):
            name = f"00000001{time.monotonic_ns() % (1 << 32):08X}{number:08X}"
            store_once(store, "7", name, segment, None, {"chain": "0" * 64})
            load(store, "7", name)

    yield "logical backup", lambda settings, store: _ignored(back_up_logical(settings, store, "custom", REPORT))
    yield "base backup", lambda settings, store: _ignored(back_up_base(settings, store, REPORT))
    yield f"{SEGMENTS} segments of WAL, archived and read", archive
    yield "the catalogue", lambda settings, store: _ignored(list_backups(store))


def _measure(name: str, work: Work, plain: Settings, signing: Settings) -> None:
    times: dict[str, list[float]] = {"plain": [], "signed": []}
    spent: list[float] = []
    for _ in range(ROUNDS):
        for kind, settings in (("plain", plain), ("signed", signing)):
            store = open_store(settings.store, ENVIRONMENT)
            with _counting() as cost:
                begun = time.monotonic()
                work(settings, store)
                times[kind].append(time.monotonic() - begun)
            if kind == "signed":
                spent.append(cost[0])
    without, with_keys, of_it = (statistics.median(one) for one in (times["plain"], times["signed"], spent))
    click.echo(f"| {name} | {without:.2f} | {with_keys:.2f} | {of_it:.4f} | {of_it / with_keys:.2%} |")


@contextmanager
def _counting() -> Iterator[list[float]]:
    """CPU seconds spent in signing and in checking, of whatever thread."""
    cost = [0.0]

    def counted(action: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **words: Any) -> Any:
            begun = time.thread_time()
            try:
                return action(*args, **words)
            finally:
                cost[0] += time.thread_time() - begun

        return run

    with (
        mock.patch.object(trust.Trust, "sign", counted(trust.Trust.sign)),
        mock.patch.object(trust.Trust, "check", counted(trust.Trust.check)),
    ):
        yield cost


def _ignored(_: object) -> None:
    pass


if __name__ == "__main__":
    main()
