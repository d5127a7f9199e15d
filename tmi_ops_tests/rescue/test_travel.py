"""A past stays open and read-only, is moved on without being restored again, and back from its twin."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tmi_ops.backup.base import back_up_base
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.point_in_time.planning import RecoveryPlan
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.rescue.travel import open_past
from tmi_ops.rescue.travel.replaying import Standing, standing_at
from tmi_ops.rescue.travel.state import OpenPast, Wanted, ask
from tmi_ops.settings import Settings, StoreSettings
from tmi_ops.store.objects import open_store
from tmi_ops_tests.archiving import archive_wal
from tmi_ops_tests.commands import command
from tmi_ops_tests.physical import physical_cluster, settings_for
from tmi_ops_tests.rescue.databases import run
from tmi_ops_tests.variables import variables_of

pytestmark = pytest.mark.slow
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Past:
    settings: Settings
    moments: list[datetime]  # after the row of the same place was committed, and before the next
    named_at: datetime  # when the restore point "noon" was made, right after the second moment

    def call(self, directory: Path, *words: str, code: int = 0) -> str:
        done = command(*words, env=self.environment, cwd=directory)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    @property
    def environment(self) -> dict[str, str]:
        return {**variables_of(self.settings), "COLUMNS": "80", "TZ": "UTC"}


@pytest.fixture(scope="module")
def past(
    tmp_path_factory: pytest.TempPathFactory, programs: Programs, s3: StoreSettings, shared_bucket: str
) -> Iterator[Past]:
    root = tmp_path_factory.mktemp("travel")
    with physical_cluster(programs, root, {"wal_keep_size": "512MB"}) as cluster:
        store = s3.model_copy(update={"bucket": shared_bucket, "prefix": f"travel-{secrets.token_hex(6)}"})
        settings = settings_for(cluster.address, store, root / "h").model_copy(update={"redis": None})
        run(cluster.address, "CREATE TABLE t (n integer PRIMARY KEY)")
        opened = open_store(settings.store, settings.environment)
        back_up_base(settings, opened, SilentReport())
        moments = []
        for number in range(4):
            run(cluster.address, f"INSERT INTO t VALUES ({number})")
            time.sleep(0.2)
            with connect(cluster.address) as connection:
                moments.append(connection.execute("SELECT clock_timestamp()").fetchone()[0])
                if number == 1:
                    connection.execute("SELECT pg_create_restore_point('noon')")
                    named_at = connection.execute("SELECT clock_timestamp()").fetchone()[0]
            time.sleep(0.2)
        archive_wal(cluster, opened, close_segment=False)
        yield Past(settings, moments, named_at)


def connection_string(said: str) -> str:
    return next(line for line in said.splitlines() if line.startswith("psql '"))[6:-1]


def rows(uri: str) -> list[int]:
    with psycopg.connect(uri) as connection:
        return [n for (n,) in connection.execute("SELECT n FROM t ORDER BY n").fetchall()]


def iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def test_it_is_opened_moved_on_and_back_compared_and_closed(past: Past, tmp_path: Path) -> None:
    assert "No past is open" in past.call(tmp_path, "travel", code=2)
    argv = [sys.executable, "-m", "tmi_ops.cli.main", "travel", "--to-time", iso(past.moments[1]), "--quiet"]
    output = (tmp_path / "said").open("w")
    process = subprocess.Popen(argv, cwd=tmp_path, env=past.environment, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while "psql '" not in (tmp_path / "said").read_text():
            assert process.poll() is None, (tmp_path / "said").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        uri = connection_string(past.call(tmp_path, "travel"))
        assert rows(uri) == [0, 1]
        with psycopg.connect(uri) as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("DELETE FROM t")

        on = past.call(tmp_path, "travel", "--to-time", iso(past.moments[2]))
        assert connection_string(on) == uri, "it is reached as before"
        assert rows(uri) == [0, 1, 2]
        past.call(tmp_path, "travel", "--back", f"{(past.moments[2] - past.moments[0]).total_seconds()}s")
        assert rows(uri) == [0]
        past.call(tmp_path, "travel", "--forward", f"{(past.moments[1] - past.moments[0]).total_seconds()}s")
        assert rows(uri) == [0, 1]

        past.call(tmp_path, "travel", "--to-name", "noon")
        assert rows(uri) == [0, 1]
        # So short of the next moment that, from the last transaction on, it would not reach the next row.
        step = past.moments[2] - past.named_at - timedelta(seconds=0.1)
        past.call(tmp_path, "travel", "--forward", f"{step.total_seconds()}s")
        assert rows(uri) == [0, 1, 2], "it counts from when the restore point was made"
        past.call(tmp_path, "travel", "--to-time", iso(past.moments[1]))

        early = past.call(tmp_path, "travel", "--to-time", "2020-01-01", code=2)
        assert "The past was not moved" in early
        assert rows(uri) == [0, 1]
        differs = past.call(tmp_path, "recover", "diff", "--travel", "--table", "t", "--quiet", code=1)
        assert "2" in differs
        run(past.settings.postgres, "DELETE FROM t WHERE n = 1")
        past.call(tmp_path, "recover", "rows", "--travel", "--table", "t", "--yes", "--quiet")
        with connect(past.settings.postgres) as connection:
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (4,)

        past.call(tmp_path, "travel", "--end")
        assert process.wait(PATIENCE_S) == 0, (tmp_path / "said").read_text()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE_S)
    travelling = past.settings.home / "travel"
    assert [path.name for path in travelling.iterdir()] == ["lock"], "nothing of it stays"


def test_a_moment_behind_all_that_is_archived_is_refused_before_anything_is_fetched(past: Past, tmp_path: Path) -> None:
    said = past.call(tmp_path, "travel", "--to-time", "0s ago", code=2)
    assert "next:" in said.lower() or "hint" in said.lower()
    assert "TMI-3150" in past.call(tmp_path, "travel", "--forward", "5m", code=2)


def test_a_moment_that_turns_out_to_be_out_of_reach_leaves_the_past_where_it_was(
    past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was planned need not be reached: the archive may lose WAL meanwhile."""
    seen: list[tuple[datetime | None, tuple[str, str]]] = []
    wanted = [Wanted.of(Target(time=past.moments[2])), None]

    def opened(found: OpenPast) -> None:
        seen.append((found.wanted.time, found.refused))
        ask(past.settings, wanted.pop(0))

    def gone(plan: RecoveryPlan, *rest: object, **more: object) -> AbstractContextManager[Standing]:
        if plan.target.time == past.moments[2]:
            raise RecoveryError("The WAL is gone.", hint="look for it")
        return standing_at(plan, *rest, **more)

    monkeypatch.setattr(open_past, "standing_at", gone)
    store = open_store(past.settings.store, past.settings.environment)
    target = Target(time=past.moments[1])
    open_past.travel(past.settings, store, target, timedelta(minutes=5), SilentReport(), opened)
    assert seen == [(past.moments[1], ("", "")), (past.moments[1], ("The WAL is gone.", "look for it"))]
