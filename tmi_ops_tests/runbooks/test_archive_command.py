"""Corruption of a server that archives with archive_command alone, and keeps a table in a tablespace."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tmi_ops.backup.base import back_up_base
from tmi_ops.errors import DatabaseError, RecoveryError
from tmi_ops.postgres.cluster import free_port
from tmi_ops.postgres.connections import connect, connection_parameters
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.replication import ReplicationError
from tmi_ops.runbooks.corruption.lost import TITLE as LOST
from tmi_ops.runbooks.corruption.planning import CorruptionRequest, prepare_corruption
from tmi_ops.runbooks.journal import Answer, Journal
from tmi_ops.runbooks.serving.cluster import stop_server
from tmi_ops.runbooks.serving.connection import read_connection
from tmi_ops.runbooks.serving.steps import ServeRequest
from tmi_ops.runbooks.steps.archive import TITLE as ARCHIVED
from tmi_ops.runbooks.steps.recover import Moment
from tmi_ops.settings import RedisSettings, StoreSettings
from tmi_ops_tests.physical import make_place
from tmi_ops_tests.raw_s3 import raw_client, stored_keys
from tmi_ops_tests.recovery.point_in_time.conftest import own_store
from tmi_ops_tests.runbooks.crashes import Crash, crash_at
from tmi_ops_tests.runbooks.disasters import APP_ROLE, DATABASE, NO_HOOKS, REPORT, Run, Tmi, a_tmi

pytestmark = pytest.mark.slow
PATIENCE_S = 60.0
COUNT = "SELECT count(*) FROM ledger"
PATH = "SELECT pg_relation_filepath('ledger')"


@pytest.fixture(scope="module")
def tmi(
    tmp_path_factory: pytest.TempPathFactory,
    programs: Programs,
    s3: StoreSettings,
    shared_bucket: str,
    redis_server: RedisSettings,
) -> Iterator[Tmi]:
    root, store = tmp_path_factory.mktemp("by-command") / "closed", own_store(s3, shared_bucket)
    root.mkdir()
    with a_tmi(root, programs, store, redis_server, by_archive_command=True) as tmi:
        space = make_place(root / "space", tmi.house.cluster)
        tmi.house.run(f"CREATE TABLESPACE roomy LOCATION '{space}'")
        tmi.house.run("CREATE TABLE ledger (i int PRIMARY KEY) TABLESPACE roomy", database=DATABASE)
        tmi.house.run(f"GRANT SELECT ON ledger TO {APP_ROLE}", database=DATABASE)
        yield tmi


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in NO_HOOKS.items():
        monkeypatch.setenv(name, value)


def run_of(tmi: Tmi, wanted: CorruptionRequest) -> Run:
    return Run.of(tmi.settings, tmi.store, prepare_corruption(tmi.settings, tmi.store, wanted, REPORT))


def answer(journal: Journal, title: str) -> Answer:
    return next(one for one in journal.answers if one.title == title)


def write(tmi: Tmi, rows: int) -> None:
    last = tmi.value("SELECT coalesce(max(i), 0) FROM ledger")
    tmi.house.run(f"INSERT INTO ledger SELECT {last} + g FROM generate_series(1, {rows}) g", database=DATABASE)


def end_segment(tmi: Tmi) -> str:
    """Returns the name of the segment that was open, once it is archived."""
    name = str(tmi.value("SELECT pg_walfile_name(pg_switch_wal())"))
    deadline = time.monotonic() + PATIENCE_S
    while not tmi.value(f"SELECT last_archived_wal >= '{name}' FROM pg_stat_archiver"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return name


def lose(tmi: Tmi, segment: str) -> None:
    (key,) = (key for key in stored_keys(tmi.settings.store) if segment in key)
    raw_client(tmi.settings.store).delete_object(Bucket=str(tmi.settings.store.bucket), Key=key)


def test_the_last_row_comes_back_and_the_damaged_tablespace_is_kept_aside(tmi: Tmi) -> None:
    write(tmi, 10)
    back_up_base(tmi.settings, tmi.store, REPORT)
    write(tmi, 5)
    had = tmi.value(COUNT)
    damaged = tmi.house.data / str(tmi.value(PATH))
    tmi.damage("ledger")
    content = damaged.read_bytes()
    run = run_of(tmi, CorruptionRequest())
    with pytest.raises(Crash):
        run.go(fault=crash_at("archive", "action done"))
    done = run.go()

    assert done.state == "done"
    assert answer(done, ARCHIVED).outcome == answer(done, LOST).outcome == "passed"
    assert tmi.value("SELECT count(*) FROM pg_replication_slots") == 0
    assert tmi.value(COUNT) == had
    assert damaged.read_bytes() == content
    restored = tmi.house.data / str(tmi.value(PATH))
    assert restored.parent.parent == damaged.parent.parent, "the restored table is in the same tablespace"
    assert restored.parent != damaged.parent
    aside = next(name for name in tmi.databases() if name.startswith(f"{DATABASE}_damaged_"))
    with pytest.raises(DatabaseError, match="invalid page"):
        tmi.value(COUNT, aside)
    with pytest.raises(ReplicationError, match="damaged pages"):
        back_up_base(tmi.settings, tmi.store, REPORT)
    assert any(f"DROP DATABASE {aside}" in left for left in done.left)
    tmi.house.run(f"DROP DATABASE {aside}")


def test_over_a_hole_in_the_wal_nothing_is_pretended_and_nothing_is_lost(
    tmi: Tmi, tmp_path: Path, programs: Programs
) -> None:
    back_up_base(tmi.settings, tmi.store, REPORT)
    write(tmi, 3)
    before_the_hole = tmi.value(COUNT)
    end_segment(tmi)
    write(tmi, 3)
    hole = end_segment(tmi)
    write(tmi, 3)
    had = tmi.value(COUNT)
    end_segment(tmi)
    lose(tmi, hole)

    with pytest.raises(RecoveryError, match=f"{hole} is missing from the archive.* can be replayed up to"):
        run_of(tmi, CorruptionRequest(moment=Moment()))
    psycopg.connect(**connection_parameters(tmi.app_address)).close()

    into = tmi.settings.home.parent / "up-to-the-hole"
    serve = ServeRequest(port=free_port(), env_file=str(tmp_path / ".env"))
    run = run_of(tmi, CorruptionRequest(into=into, serve=serve))
    assert any(hole in note for note in run.plan.notes)
    try:
        done = run.go()
        recovered = read_connection(tmp_path / ".env")
        assert recovered is not None
        with connect(recovered) as connection:
            assert connection.execute(COUNT).fetchone() == (before_the_hole,)
            path = connection.execute(PATH).fetchone()
        assert path is not None
        assert (into / path[0]).resolve().is_relative_to(into.with_name(f"{into.name}-tablespaces"))
        assert tmi.value(COUNT) == had, "the server's own data is as it was"
    finally:
        stop_server(into, programs)
        tmi.house.run(f"ALTER ROLE {APP_ROLE} LOGIN")
    lost = answer(done, LOST)
    assert lost.outcome == "failed"
    assert hole in lost.detail
