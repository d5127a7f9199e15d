"""Restores a cluster and starts it as a user would, for all tests."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tmi_ops.postgres.cluster import RunningCluster, free_port, start_cluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import server_programs
from tmi_ops.progress import Report, SilentReport
from tmi_ops.recovery.point_in_time.clock import with_times
from tmi_ops.recovery.point_in_time.destination import Destination
from tmi_ops.recovery.point_in_time.execution import Finish, Recovered, execute_recovery
from tmi_ops.recovery.point_in_time.facts import read_facts
from tmi_ops.recovery.point_in_time.planning import RecoveryPlan, plan_recovery
from tmi_ops.recovery.point_in_time.server import owner_of
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.settings import PostgresSettings, Settings, StoreSettings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops_tests.physical import FIRST_TO_SUMMARIZE, PHYSICAL_PARAMETERS
from tmi_ops_tests.raw_s3 import raw_client, stored_keys
from tmi_ops_tests.recovery.point_in_time.conftest import Past


def plan_to(
    store: ObjectStore, target: Target, scratch: Path, *, timeline: int | None = None, base: str | None = None
) -> RecoveryPlan:
    """The plan, made as the command line makes it."""
    facts = read_facts(store)
    programs = server_programs(facts.server_major)
    facts = with_times(store, facts, target, programs, scratch, SilentReport(), timeline=timeline)
    return plan_recovery(facts, target, timeline=timeline, base=base)


def restore(
    settings: Settings,
    target: Target,
    destination: Destination | Path,
    *,
    finish: Finish = "promote",
    timeline: int | None = None,
    base: str | None = None,
    report: Report | None = None,
) -> Recovered:
    """Restore from the settings' store into a directory."""
    store = open_store(settings.store, settings.environment)
    plan = plan_to(store, target, settings.home / "scratch", timeline=timeline, base=base)
    if isinstance(destination, Path):
        destination = Destination(destination)
    return execute_recovery(settings, store, plan, destination, report or SilentReport(), finish=finish)


@contextmanager
def started(
    directory: Path, source: PostgresSettings, parameters: Mapping[str, str] | None = None, *, bare: bool = False
) -> Iterator[RunningCluster]:
    """The restored cluster, started with its own files and what `physical_cluster` gives on the command line, for the
    length of a `with` block; `bare`: with its own files only."""
    programs = server_programs(int((directory / "PG_VERSION").read_text()))
    address = source.model_copy(update={"port": free_port()})
    summarizing = {"summarize_wal": "on"} if programs.major >= FIRST_TO_SUMMARIZE else {}
    cluster = start_cluster(
        programs,
        directory,
        owner_of(directory, programs),
        address,
        parameters={"fsync": "off"}
        if bare
        else {**PHYSICAL_PARAMETERS, "fsync": "off", **summarizing, **(parameters or {})},
        log=directory.parent / f"{directory.name}.log",
    )
    try:
        yield cluster
    finally:
        cluster.stop()


def copy_of_store(past: Past) -> Settings:
    """The past's settings with a separate copy of the store, to be damaged."""
    source = past.settings.store
    copy = source.model_copy(update={"prefix": f"pitr-{secrets.token_hex(6)}"})
    client = raw_client(source)
    for key in stored_keys(source):
        target = copy.prefix + key.removeprefix(source.prefix)
        client.copy_object(Bucket=copy.bucket, Key=target, CopySource={"Bucket": source.bucket, "Key": key})
    return past.settings.model_copy(update={"store": copy})


def wal_keys(store: StoreSettings) -> list[str]:
    """Keys of the archived segments, in WAL order."""
    return [key for key in stored_keys(store) if "/wal/" in key and key.endswith(".zst") and ".history" not in key]


def rows(postgres: PostgresSettings) -> int:
    """How many rows the ledger has."""
    with connect(postgres) as connection:
        row = connection.execute("SELECT count(*) FROM ledger").fetchone()
    assert row is not None
    return int(row[0])


def value(postgres: PostgresSettings, query: str) -> object:
    """The one value of a query."""
    with connect(postgres) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]
