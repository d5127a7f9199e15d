"""The second part of the demo: a table is dropped under load, and recovered as of one second before.

Nothing is simulated: a receiver streams WAL into the store, a session writes, DROP TABLE is committed, and a second
cluster is recovered to one second before, queried, and removed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tmi_ops.backup.base import back_up_base
from tmi_ops.backup.one_at_a_time import when_none_runs
from tmi_ops.errors import OpsError, RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import server_programs
from tmi_ops.progress import Report
from tmi_ops.recovery.point_in_time.confirmed import confirmed_plan
from tmi_ops.recovery.point_in_time.destination import Destination
from tmi_ops.recovery.point_in_time.execution import PLAN, recovered_cluster
from tmi_ops.recovery.point_in_time.facts import read_facts
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.store.small_objects import look
from tmi_ops.wal.archive import list_wal
from tmi_ops.wal.receiver import ReceivedWal, StreamOptions, stream_wal

TABLE = "demo_ledger"
LOAD_S = 4.0
OTHER_BACKUP_S = 300.0  # Dagster may be taking one
BEFORE = timedelta(seconds=1)
_PARTIAL_EVERY_S = 1.0


@dataclass(frozen=True)
class Accident:
    """What was lost and what was recovered. `expected`: rows committed before the target, minimum and maximum.

    `phases`: seconds of the recovery by phase. `behind`: seconds of work that were not archived yet when the table was
    dropped.
    """

    table: str
    dropped_at: datetime
    target: datetime
    rows_when_dropped: int
    rows_recovered: int
    expected: tuple[int, int]
    behind: float
    phases: Mapping[str, float]
    backup_id: str

    @property
    def is_undone(self) -> bool:
        return self.expected[0] <= self.rows_recovered <= self.expected[1]


@dataclass
class _Load:
    """One session that writes numbered rows and records when each was started and acknowledged."""

    postgres: PostgresSettings
    began: list[datetime] = field(default_factory=list)
    acknowledged: list[datetime] = field(default_factory=list)
    enough: threading.Event = field(default_factory=threading.Event)

    def write(self) -> None:
        with connect(self.postgres) as connection:
            while not self.enough.is_set():
                self.began.append(datetime.now(UTC))
                connection.execute("INSERT INTO demo_ledger (n) VALUES (%s)", [len(self.began)])
                self.acknowledged.append(datetime.now(UTC))
                time.sleep(0.002)


def drop_a_table_and_bring_it_back(settings: Settings, report: Report) -> Accident:
    """Run the demo on the embedded stack.

    Raises:
        OpsError: the base backup, the receiver or the recovery failed.
    """
    store = open_store(settings.store, settings.environment)
    with _receiving(settings, store, report):
        manifest = when_none_runs(lambda: back_up_base(settings, store, report, incremental=True), OTHER_BACKUP_S)
        load, dropped_at, behind = _drop_under_load(settings, store, report, manifest.system_identifier)
    target = dropped_at - BEFORE
    with report.phase("Recovering to one second before", unit="steps"):
        rows, phases = _look_at_the_past(settings, store, report, target)
    return Accident(
        table=TABLE,
        dropped_at=dropped_at,
        target=target,
        rows_when_dropped=len(load.acknowledged),
        rows_recovered=rows,
        expected=(
            sum(moment <= target for moment in load.acknowledged),
            sum(moment <= target for moment in load.began),
        ),
        behind=behind,
        phases=phases,
        backup_id=manifest.backup_id,
    )


@contextmanager
def _receiving(settings: Settings, store: ObjectStore, report: Report) -> Iterator[None]:
    """`tmi-ops wal stream` in a thread; stopped cleanly, so that everything written before is archived."""
    stop, ended = threading.Event(), _Ended()

    def receive() -> None:
        try:
            ended.result = stream_wal(
                settings, store, report, StreamOptions(partial_every=_PARTIAL_EVERY_S, wait=True), stop
            )
        except OpsError as error:
            ended.error = error

    receiver = threading.Thread(target=receive, name="wal-receiver")
    receiver.start()
    try:
        yield
    finally:
        stop.set()
        receiver.join()
    if ended.error is not None:
        raise ended.error


@dataclass
class _Ended:
    result: ReceivedWal | None = None
    error: OpsError | None = None


def _drop_under_load(
    settings: Settings, store: ObjectStore, report: Report, system_identifier: str
) -> tuple[_Load, datetime, float]:
    with connect(settings.postgres) as connection:
        connection.execute("DROP TABLE IF EXISTS demo_ledger")
        connection.execute("CREATE TABLE demo_ledger (n integer PRIMARY KEY, written_at timestamptz DEFAULT now())")
        load = _Load(settings.postgres)
        writer = threading.Thread(target=load.write, name="load")
        writer.start()
        with report.phase(f"Writing to {TABLE}", total=LOAD_S, unit="steps") as phase:
            for _ in range(int(LOAD_S)):
                time.sleep(1)
                phase.advance(1)
        behind = _seconds_behind(store, system_identifier)
        load.enough.set()
        writer.join()
        connection.execute("DROP TABLE demo_ledger")
        dropped_at = datetime.now(UTC)
    report.note(f"DROP TABLE {TABLE}: {len(load.acknowledged):,} committed rows are lost in the running database")
    return load, dropped_at, behind


def _seconds_behind(store: ObjectStore, system_identifier: str) -> float:
    """The age of the newest partial in the store, up to which everything is archived."""
    archive = list_wal(store, system_identifier)
    partials = [item.key for group in archive.partials.values() for item in group]
    head = look(store, partials[-1]) if partials else None
    return LOAD_S if head is None else head.age_s


def _look_at_the_past(
    settings: Settings, store: ObjectStore, report: Report, target: datetime
) -> tuple[int, Mapping[str, float]]:
    begun = time.monotonic()
    facts = read_facts(store)
    programs = server_programs(facts.server_major, settings.pg_bindir, settings.copy_libraries)
    scratch = settings.home / "scratch"
    wanted = Target(time=target)
    plan = confirmed_plan(store, facts, wanted, programs, scratch, report)
    planned = time.monotonic() - begun
    destination = Destination(scratch / f"accident-{target:%Y%m%dT%H%M%S}", {}, scratch / "accident-tablespaces")
    with recovered_cluster(settings, store, plan, destination, report) as cluster:
        past = cluster.address.model_copy(update={"database": settings.postgres.database})
        with connect(past) as connection:
            row = connection.execute("SELECT count(*) FROM demo_ledger").fetchone()
        if row is None:  # an aggregate has its row
            raise RecoveryError("The recovered cluster returned no row count.")
        return int(row[0]), {PLAN: planned, **cluster.recovered.phases}
