"""Uses of a shadow: rows of an hour ago from a delayed one, and a server from a promoted one."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from tmi_ops.backup.base import back_up_base
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.cluster import free_port
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs, server_programs
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.rescue.past import Moment
from tmi_ops.runbooks.everything.planning import EverythingRequest, prepare_everything
from tmi_ops.runbooks.serving.cluster import stop_server
from tmi_ops.runbooks.serving.connection import read_connection
from tmi_ops.runbooks.serving.steps import ServeRequest
from tmi_ops.runbooks.steps.recover import REACH
from tmi_ops.settings import PostgresSettings, Settings, StoreSettings
from tmi_ops.shadow.life import ShadowOptions
from tmi_ops.shadow.past import past_of
from tmi_ops.shadow.practice import practise
from tmi_ops.shadow.reading import known_shadows
from tmi_ops.store.objects import open_store
from tmi_ops_tests.physical import kill, physical_cluster, set_parameter, settings_for
from tmi_ops_tests.recovery.point_in_time.restoring import started
from tmi_ops_tests.runbooks.disasters import NO_HOOKS, Run
from tmi_ops_tests.shadow.shadowing import Shadow, shadowing
from tmi_ops_tests.variables import variables_of
from tmi_ops_tests.wal.receiving.receivers import receiving, until
from tmi_ops_tests.wal.receiving.test_synchronous import DURABLE, ENOUGH, WRITERS, Writers

pytestmark = pytest.mark.slow
REPORT = SilentReport()
ALL = "SELECT n FROM ledger ORDER BY n"


def test_rows_come_from_a_delayed_shadow_and_one_that_is_promoted_under_load_lacks_no_acknowledged_commit(
    programs: Programs, store_settings: StoreSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in NO_HOOKS.items():
        monkeypatch.setenv(name, value)
    with physical_cluster(programs, tmp_path / "server", DURABLE) as cluster:
        settings = settings_for(cluster.address, store_settings, tmp_path / "late").model_copy(update={"redis": None})
        store = open_store(settings.store, settings.environment)
        with connect(cluster.address) as connection:
            connection.execute("CREATE TABLE ledger (n int PRIMARY KEY)")
        back_up_base(settings, store, REPORT)
        with receiving(settings, slot="shadowed") as receiver:
            late = ShadowOptions(name="late", delay=timedelta(hours=1), report_every=2, checks=False)
            with shadowing(settings, late) as shadow:
                _rows_come_back_from(shadow, settings, tmp_path)
            own = settings.model_copy(
                update={"home": tmp_path / "home", "postgres": PostgresSettings(database="postgres")}
            )
            set_parameter(cluster.address, "synchronous_standby_names", "'tmi_ops'")
            with shadowing(own, ShadowOptions(name="own", report_every=2, checks=False)) as shadow:
                shadow.until(lambda report: report.has_been_level, "it is level once")
                practised = practise(own, REPORT)
                assert practised.practice.answered_s >= practised.practice.promote_s
                shadow.until(lambda report: report.promote_s is not None, "it tells what was practised")
                writers = Writers(cluster.address)
                until(lambda: len(writers.acknowledged) >= ENOUGH, "commits are acknowledged")
                kill(cluster)
                cluster.process.wait(30)  # else its files count as in use
                writers.join()
                _promoted_it_has_all(shadow, own, writers, tmp_path / "data", cluster.directory, cluster.address)
        assert receiver.error is None


def _rows_come_back_from(shadow: Shadow, settings: Settings, directory: Path) -> None:
    """Rows are deleted by accident, read before the shadow replays the deletion, and restored by the command."""
    store = open_store(settings.store, settings.environment)
    with connect(settings.postgres) as connection:
        connection.execute("INSERT INTO ledger SELECT generate_series(-50, -1)")
        time.sleep(0.2)
        row = connection.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        time.sleep(0.2)
        connection.execute("DELETE FROM ledger")
    shadow.until(lambda report: report.behind > 0, "it waits with what it has")
    assert shadow.rows() == 0
    words = ["recover", "rows", "--from-shadow", "--to-time", row[0].isoformat(), "--table", "ledger", "--yes"]
    done = subprocess.run(
        [sys.executable, "-m", "tmi_ops.cli.main", *words, "--quiet"],
        cwd=directory,
        env=variables_of(settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with connect(settings.postgres) as connection:
        assert connection.execute("SELECT count(*) FROM ledger").fetchone() == (50,)
    assert shadow.rows() == 0, "it goes on as before"
    long_ago = Moment(Target(lsn=1 << 24), shadow=True)
    with pytest.raises(RecoveryError, match="has already replayed past"), past_of(settings, store, long_ago, REPORT):
        raise AssertionError
    counted = [known for known in known_shadows(settings, store) if known.report.delay_s]
    assert [known.report.name for known in counted] == ["late"]


def _promoted_it_has_all(
    shadow: Shadow,
    settings: Settings,
    writers: Writers,
    data: Path,
    source: Path,
    source_address: PostgresSettings,
) -> None:
    store = open_store(settings.store, settings.environment)
    action = EverythingRequest(data, ServeRequest(port=free_port()), from_shadow=True, with_cache=False)
    run = Run.of(settings, store, prepare_everything(settings, store, action, REPORT))
    assert any("the shadow" in step.does for step in run.plan.steps)
    try:
        done = run.go()
        assert done.state == "done"
        answers = {one.title: one.outcome for one in done.answers}
        assert answers[REACH] == "passed"
        recovered = read_connection(run.logbook.directory / "connection.env")
        assert recovered is not None
        with connect(recovered) as connection:
            found = [n for (n,) in connection.execute(ALL).fetchall()]
            connection.execute("INSERT INTO ledger VALUES (1000000000)")
    finally:
        stop_server(data, server_of(data))
    assert writers.acknowledged <= set(found), "nothing that was acknowledged is lost"
    with started(source, source_address, {"synchronous_standby_names": ""}) as cluster, connect(cluster.address) as was:
        rows = [n for (n,) in was.execute(ALL).fetchall()]
    assert [n for n in rows if n in set(found)] == found, "row by row what the source had"
    assert len(rows) - len(found) <= WRITERS, "beyond it at most the one in hand of each writer"
    until(lambda: shadow.handed_over is not None, "the process that ran the shadow ends")


def server_of(data: Path) -> Programs:
    return server_programs(int((data / "PG_VERSION").read_text()))
