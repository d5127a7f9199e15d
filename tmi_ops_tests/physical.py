"""Clusters whose files are backed up: throw-away servers with what physical backups need switched on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tmi_ops.postgres.cluster import RunningCluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import Phase, SilentReport, Unit
from tmi_ops.settings import OBJECTIVES, PostgresSettings, RedisSettings, Settings, StoreSettings
from tmi_ops.stack.postgresql import throwaway_server
from tmi_ops.store.catalogue import list_backups
from tmi_ops.store.objects import open_store
from tmi_ops_tests.raw_s3 import stored_keys

PHYSICAL_PARAMETERS: Mapping[str, str] = {
    "wal_level": "replica",
    "max_wal_senders": "8",
    "full_page_writes": "on",
    "shared_buffers": "64MB",
    "min_wal_size": "32MB",
}
FIRST_TO_SUMMARIZE = 17  # and so the first whose base backups may be incremental
RELOAD_TIMEOUT_S = 10.0


class Notes(SilentReport):
    """Keeps what was noted."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    def note(self, message: str) -> None:
        self.noted.append(message)


class Progress(Notes):
    """Keeps what was noted, and counts phases; `then` is called once, when a phase (`of`, or any) reports `after`."""

    def __init__(self, after: float = 0, then: Callable[[], object] | None = None, of: str | None = None) -> None:
        super().__init__()
        self._of = of
        self.totals: dict[str, float | None] = {}
        self.done: dict[str, float] = {}
        self._after = after
        self._then = then

    @contextmanager
    def phase(self, name: str, *, total: float | None = None, unit: Unit = "bytes") -> Iterator[Phase]:
        self.totals[name] = total
        self.done[name] = 0
        yield _Counted(self, name)

    def advance(self, name: str, amount: float) -> None:
        self.done[name] += amount
        if self._then is not None and self._of in (None, name) and self.done[name] >= self._after:
            then, self._then = self._then, None
            then()


class _Counted:
    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._name = name

    def advance(self, amount: float) -> None:
        self._progress.advance(self._name, amount)


@contextmanager
def physical_cluster(
    programs: Programs, root: Path, parameters: Mapping[str, str] | None = None
) -> Iterator[RunningCluster]:
    """A running cluster that can be backed up; WAL is summarized from 17 on, unless `wal_level` forbids it."""
    wanted = {**PHYSICAL_PARAMETERS, **(parameters or {})}
    with throwaway_server(programs, root, parameters=wanted) as cluster:
        if programs.major >= FIRST_TO_SUMMARIZE and wanted["wal_level"] != "minimal":
            set_parameter(cluster.address, "summarize_wal", "on")
        yield cluster


def set_parameter(postgres: PostgresSettings, name: str, value: str) -> None:
    """Change a setting that a reload is enough for, and wait until it is in force."""
    with connect(postgres) as connection:
        connection.execute(f"ALTER SYSTEM SET {name} = {value}")
        reload_configuration(postgres)
    deadline = time.monotonic() + RELOAD_TIMEOUT_S
    while time.monotonic() < deadline:
        with connect(postgres) as connection:
            row = connection.execute(f"SHOW {name}").fetchone()
        if row is not None and row[0] == value.strip("'"):
            return
        time.sleep(0.05)
    raise AssertionError(f"{name} did not become {value}")


def reload_configuration(postgres: PostgresSettings) -> None:
    """Have the server read its files again, and wait until it has."""
    with connect(postgres) as connection:
        before = connection.execute("SELECT pg_conf_load_time()").fetchone()
        connection.execute("SELECT pg_reload_conf()")
    deadline = time.monotonic() + RELOAD_TIMEOUT_S
    while time.monotonic() < deadline:
        with connect(postgres) as connection:
            if connection.execute("SELECT pg_conf_load_time()").fetchone() != before:
                return
        time.sleep(0.05)
    raise AssertionError("the server did not reload its configuration")


def settings_for(postgres: PostgresSettings, store: StoreSettings, home: Path) -> Settings:
    """Settings of a development environment for this server and bucket."""
    return Settings(
        environment="development",
        postgres=postgres,
        redis=RedisSettings(),
        store=store,
        objectives=OBJECTIVES["development"],
        home=home,
    )


def make_noise_table(postgres: PostgresSettings, name: str, *, rows: int) -> None:
    """A table `name (i, noise)` of about 1 kB a row, incompressible, with nothing for autovacuum to do."""
    with connect(postgres) as connection:
        connection.execute(
            f"CREATE TABLE {name} AS SELECT i, string_agg(md5(random()::text), '') AS noise "
            f"FROM generate_series(1, {rows}) i, generate_series(1, 30) GROUP BY i"
        )
        connection.execute(f"VACUUM (FREEZE, ANALYZE) {name}")


def make_place(place: Path, cluster: RunningCluster) -> Path:
    """A directory that belongs to the cluster's server."""
    place.mkdir()
    owner = cluster.directory.stat()
    os.chown(place, owner.st_uid, owner.st_gid)
    return place


def kill(cluster: RunningCluster) -> None:
    """kill -9 of the server and of all its children, which are process groups of their own."""
    server = cluster.process.pid
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    for process in (server, *map(int, children)):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def slots(postgres: PostgresSettings) -> list[str]:
    """The names of the server's replication slots."""
    with connect(postgres) as connection:
        return [row[0] for row in connection.execute("SELECT slot_name FROM pg_replication_slots")]


def nothing_is_left(settings: Settings) -> bool:
    """Whether the store holds no backup, whole or half-made, and no object of one."""
    store = open_store(settings.store, settings.environment)
    left = [key for key in stored_keys(settings.store) if not key.endswith(("RESTORE.md", ".conditional-put"))]
    assert (list_backups(store), left) == ([], [])
    return True
