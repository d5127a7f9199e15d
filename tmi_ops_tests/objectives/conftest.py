"""One small cluster's way from nothing to a proven archive, read at each step: the tests look at what was read."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import pytest

from tmi_ops.backup.base import back_up_base
from tmi_ops.drill.evidence import Evidence
from tmi_ops.drill.execution import run_drill
from tmi_ops.drill.planning import prepare_drill
from tmi_ops.objectives.facts import RecoverabilityFacts
from tmi_ops.objectives.reading import read_recoverability
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.settings import Settings, StoreSettings
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.wal.lease import hold_lease
from tmi_ops.wal.receiver import StreamOptions, catch_up_wal
from tmi_ops_tests.physical import make_noise_table, physical_cluster, settings_for

QUIET = SilentReport()


@dataclass
class Told:
    """What was read at each step; `settings` and `store` remain, the server is gone in the end."""

    settings: Settings
    store: ObjectStore
    base: BaseManifest | None = None
    evidence: Evidence | None = None
    written_at: datetime | None = None
    facts: dict[str, RecoverabilityFacts] = field(default_factory=dict)

    def read(self, step: str) -> None:
        self.facts[step] = read_recoverability(self.settings, self.store)

    def read_beside_a_receiver(self, step: str) -> None:
        server = self.facts["nothing"].server
        assert server is not None
        with hold_lease(self.store, server.system_identifier, "tmi_ops", dict, stop=Event(), note=print):
            self.read(step)


def write_something(settings: Settings) -> datetime:
    """Commits, durably, and says when."""
    with connect(settings.postgres) as connection:
        connection.execute("SET synchronous_commit = on")
        connection.execute("CREATE TABLE IF NOT EXISTS written (at timestamptz)")
        connection.execute("INSERT INTO written VALUES (clock_timestamp())")
        row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    return row[0].astimezone(UTC)  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def told(
    tmp_path_factory: pytest.TempPathFactory, programs: Programs, s3: StoreSettings, shared_bucket: str
) -> Iterator[Told]:
    root: Path = tmp_path_factory.mktemp("told")
    own = s3.model_copy(update={"bucket": shared_bucket, "prefix": f"told-{secrets.token_hex(6)}"})
    with physical_cluster(programs, root) as cluster:
        settings = settings_for(cluster.address, own, root / "home")
        told = Told(settings, open_store(own, settings.environment))
        told.read("nothing")
        told.read_beside_a_receiver("a receiver, but no base")
        make_noise_table(cluster.address, "noise", rows=500)
        told.base = back_up_base(settings, told.store, QUIET)
        told.read("a base")
        write_something(settings)
        catch_up_wal(settings, told.store, QUIET, StreamOptions())
        told.read("caught up")
        plan = prepare_drill(settings, told.store, QUIET, target=Target())
        told.evidence = run_drill(settings, told.store, plan, QUIET).evidence
        told.read("drilled")
        told.written_at = write_something(settings)
        told.read("written since")
    told.read("the server is gone")
    yield told
