"""What each look costs: requests to the store by verb, and CPU seconds of the process.

    python -m benchmarks.cost.looking --backups 30 --backups 1000 --segments 1000

A real S3 server holds the history. The first look of a process, and the next one, as a guard looks; the peak memory is
that of both, in a process of its own.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import click

from benchmarks.cost.history import CLUSTER, write_backups, write_wal
from benchmarks.servers import servers
from tmi_ops.progress import SilentReport
from tmi_ops.settings import OBJECTIVES, PostgresSettings, Settings, StoreSettings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.store.s3.backend import S3Backend

ENVIRONMENT = "production"


@click.command()
@click.option("--backups", "sizes", multiple=True, type=int, default=(30,), show_default=True)
@click.option("--segments", default=1000, show_default=True)
def main(sizes: tuple[int, ...], segments: int) -> None:
    """Print a table for each size."""
    for size in sizes:
        with tempfile.TemporaryDirectory() as directory, servers(Path(directory)) as parts:
            settings = settings_of(parts.store, Path(directory))
            store = open_store(settings.store, ENVIRONMENT)
            write_backups(store, size, segments=segments)
            write_wal(store, segments)
            measure(settings, f"{size} + {size} backups, {segments:,} segments")


def settings_of(store: StoreSettings, home: Path) -> Settings:
    """Of an environment whose database is away: it costs the store nothing."""
    return Settings(
        environment=ENVIRONMENT,
        postgres=PostgresSettings(host="127.0.0.1", port=1, database="tmi", user="tmi", sslmode="disable"),
        store=store,
        objectives=OBJECTIVES[ENVIRONMENT],
        home=home,
    )


def measure(settings: Settings, title: str) -> None:
    """Each look twice, in a process of its own."""
    click.echo(f"\n| {title} | requests | of them LIST | CPU s | again: requests | CPU s | peak MB |")
    click.echo("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in LOOKS:
        with ProcessPoolExecutor(1, get_context("spawn")) as own:
            (first, cold), (second, warm), peak = own.submit(_twice, settings, name).result()
        lists = first["ListObjectsV2"]
        click.echo(f"| {name} | {first.total()} | {lists} | {cold:.2f} | {second.total()} | {warm:.2f} | {peak:.0f} |")


def _twice(settings: Settings, name: str) -> tuple[tuple[Counter[str], float], tuple[Counter[str], float], float]:
    first, second = (counted(settings, LOOKS[name]) for _ in range(2))
    status = Path("/proc/self/status").read_text()
    return first, second, int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1e3


def counted(settings: Settings, look: Callable[[Settings, ObjectStore], Any]) -> tuple[Counter[str], float]:
    """Requests by verb, and CPU seconds."""
    requests: Counter[str] = Counter()
    store = open_store(settings.store, ENVIRONMENT)
    events: Any = cast(S3Backend, store.backend).client.meta.events
    events.register("before-send.s3", lambda event_name, **_: requests.update([event_name.rpartition(".")[2]]))
    before = time.process_time()
    look(settings, store)
    return requests, time.process_time() - before


def _guard(settings: Settings, store: ObjectStore) -> None:
    from tmi_ops.objectives.history import record_reading
    from tmi_ops.objectives.reading import read_recoverability
    from tmi_ops.objectives.rpo import judge_rpo

    facts = read_recoverability(settings, store)
    judge_rpo(facts, settings.objectives)
    record_reading(store, facts, settings.objectives.rpo)


def _status(settings: Settings, store: ObjectStore) -> None:
    from tmi_ops.objectives.status import judge_all

    judge_all(settings, store)


def _backups(settings: Settings, store: ObjectStore) -> None:
    from tmi_ops.store.catalogue import list_backups

    list_backups(store)


def _prune(settings: Settings, store: ObjectStore) -> None:
    from datetime import UTC, datetime

    from tmi_ops.retention.planning import plan_retention
    from tmi_ops.retention.reading import read_facts

    since = datetime.now(UTC) - settings.retention.window
    plan_retention(read_facts(store, to_look=True, since=since), settings.retention, datetime.now(UTC))


def _restore(settings: Settings, store: ObjectStore) -> None:
    from tmi_ops.recovery.point_in_time.facts import read_facts
    from tmi_ops.recovery.point_in_time.planning import plan_recovery
    from tmi_ops.recovery.point_in_time.target import Target

    plan_recovery(read_facts(store), Target())


def _gaps(settings: Settings, store: ObjectStore) -> None:
    from tmi_ops.recovery.continuity.gaps import check_continuity
    from tmi_ops.recovery.continuity.reading import read_links
    from tmi_ops.recovery.point_in_time.facts import read_facts

    facts = read_facts(store, CLUSTER, whole=True)
    reading = read_links(store, facts.archive, SilentReport())
    assert check_continuity(facts, reading.damaged, reading.links).whole


LOOKS: dict[str, Callable[[Settings, ObjectStore], Any]] = {
    "one look of a guard": _guard,
    "`status`": _status,
    "`backups`": _backups,
    "`prune --dry-run`": _prune,
    "`restore --latest --dry-run`": _restore,
    "`wal gaps`": _gaps,
}

if __name__ == "__main__":
    main()
