"""Corruption, with the application at work: what it was told is done is there, and nothing of the lost time is left."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from tmi_ops.backup.base import back_up_base
from tmi_ops.drill.evidence import TITLES
from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError, RecoveryError
from tmi_ops.postgres.cluster import free_port
from tmi_ops.postgres.connections import connect, connection_parameters
from tmi_ops.postgres.programs import Programs
from tmi_ops.retention.holds import list_holds
from tmi_ops.runbooks.corruption.in_place import COMPARED
from tmi_ops.runbooks.corruption.lost import TITLE as LOST
from tmi_ops.runbooks.corruption.planning import CorruptionRequest, prepare_corruption
from tmi_ops.runbooks.execution import DeclinedError
from tmi_ops.runbooks.journal import Journal
from tmi_ops.runbooks.plan import Step
from tmi_ops.runbooks.serving.cluster import stop_server
from tmi_ops.runbooks.serving.connection import read_connection
from tmi_ops.runbooks.serving.steps import ServeRequest
from tmi_ops.runbooks.steps import cache
from tmi_ops.runbooks.steps.recover import Moment, RecoveredCluster, Trials
from tmi_ops_tests.raw_s3 import raw_client, stored_keys
from tmi_ops_tests.runbooks.crashes import Crash, crash_at
from tmi_ops_tests.runbooks.disasters import APP_ROLE, DATABASE, NO_HOOKS, REPORT, Run, Tmi, at_work, hooks_of
from tmi_ops_tests.runbooks.slow_cache import accepting
from tmi_ops_tests.variables import variables_of

pytestmark = pytest.mark.slow
PATIENCE_S = 120.0


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    tell(monkeypatch, NO_HOOKS)


def tell(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def run_of(tmi: Tmi, wanted: CorruptionRequest | None = None) -> Run:
    plan = prepare_corruption(tmi.settings, tmi.store, wanted or CorruptionRequest(), REPORT)
    return Run.of(tmi.settings, tmi.store, plan)


def answer(journal: Journal, title: str) -> str:
    return next(one.outcome for one in journal.answers if one.title == title)


def test_a_damaged_page_is_recovered_from_without_losing_anything_acknowledged(
    tmi: Tmi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with at_work(tmi, tmp_path / "app") as application:
        tell(monkeypatch, hooks_of(application))
        alice, bob = application.sign_in(), application.sign_in()
        application.revoke(alice)
        back_up_base(tmi.settings, tmi.store, REPORT)
        application.wait_for_writes(20)
        tmi.damage("audit_entries")
        with pytest.raises(DatabaseError, match="invalid page"):
            tmi.value("SELECT count(*) FROM audit_entries")
        run = run_of(tmi)
        done = run.go()

        assert done.state == "done"
        assert application.is_healthy()
        application.wait_for_writes(10)
        recovered = tmi.settings.postgres
        assert application.missing(recovered, before=datetime.now(UTC)) == []
        assert not application.accepts(alice), "a revoked token was revived"
        assert not application.refreshes(bob), "sessions are dropped by the default policy"
        assert application.stale_reads(recovered) == []
    aside = next(name for name in tmi.databases() if name.startswith(f"{DATABASE}_damaged_"))
    with pytest.raises(DatabaseError, match="invalid page"):
        tmi.value("SELECT count(*) FROM audit_entries", aside)
    assert answer(done, TITLES["amcheck"]) == answer(done, COMPARED) == "passed"
    assert answer(done, LOST) == "passed"
    lost = next(one for one in done.answers if one.title == LOST)
    assert any("public.audit_entries cannot be counted" in finding for finding in lost.findings)
    assert tmi.value("SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'") == 0
    assert not [path for path in (tmi.settings.home / "recovered").glob("*") if path.suffix != ".log"]
    tmi.house.run(f"DROP DATABASE {aside}")


def test_crashed_at_every_step_it_ends_as_if_it_had_not_been(
    tmi: Tmi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with at_work(tmi, tmp_path / "app") as application:
        tell(monkeypatch, hooks_of(application))
        alice = application.sign_in()
        application.revoke(alice)
        run = run_of(tmi, CorruptionRequest(moment=Moment()))
        places = 3 * len(run.plan.steps)
        assert run.crash_everywhere() == places
        done = run.go()

        assert done.state == "done"
        assert sum(one.outcome == "running" for one in done.attempts) == 2 * len(run.plan.steps)
        assert application.is_healthy()
        assert application.missing(tmi.settings.postgres, before=datetime.now(UTC)) == []
        assert not application.accepts(alice)
        assert application.stale_reads(tmi.settings.postgres) == []
    left = {name for name in tmi.databases() if name.startswith(f"{DATABASE}_")}
    assert len(left) == 1
    assert "damaged" in left.pop()


def test_killed_while_it_recovers_and_resumed_by_hand(tmi: Tmi, tmp_path: Path) -> None:
    environment = {**variables_of(tmi.settings), "TMI_OPS_APP_ROLE": APP_ROLE, "COLUMNS": "100"}
    environment |= {
        "REDIS_PORT": str(tmi.settings.redis.port),
        "REDIS_PASSWORD": tmi.settings.redis.password.get_secret_value() if tmi.settings.redis.password else "",
    }
    command = [sys.executable, "-m", "tmi_ops.cli.main", "recover"]
    began = subprocess.Popen(
        [*command, "corruption", "--latest", "--yes", "--quiet"],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    runs = tmi.settings.home / "runbooks"
    deadline = time.monotonic() + PATIENCE_S
    while not any('"name":"recover"' in _last_running(path) for path in runs.glob("*/journal.json")):
        assert time.monotonic() < deadline, began.stdout.read() if began.poll() is not None and began.stdout else ""
        time.sleep(0.02)
    time.sleep(0.3)
    began.kill()
    began.communicate()
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        psycopg.connect(**connection_parameters(tmi.app_address))
    with pytest.raises(RecoveryError) as unfinished:
        run_of(tmi)
    assert unfinished.value.code is Code.RUN_UNFINISHED

    def told(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *words], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    assert "crashed" in told("list").stdout
    assert "UNFINISHED" in told("show").stdout
    resumed = told("resume", "--yes", "--quiet")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "RECOVERED" in resumed.stdout
    closing = " ".join(resumed.stdout[resumed.stdout.index("Left to do:") :].split())
    assert "DROP DATABASE tmi_damaged_" in closing
    psycopg.connect(**connection_parameters(tmi.app_address)).close()


def _last_running(path: Path) -> str:
    journal = Journal.model_validate_json(path.read_bytes())
    last = journal.attempts[-1] if journal.attempts else None
    return f'"name":"{last.step}"' if last is not None and last.outcome == "running" else ""


def test_a_no_and_even_an_exchange_of_names_are_taken_back_whole(tmi: Tmi) -> None:
    def until_the_swap(_journal: Journal, step: Step) -> bool:
        return step.effect != "irreversible"

    def oid() -> object:
        return tmi.value(f"SELECT oid FROM pg_database WHERE datname = '{DATABASE}'")

    before, holds, was = tmi.databases(), len(list_holds(tmi.store)), oid()
    run = run_of(tmi, CorruptionRequest(moment=Moment()))
    with pytest.raises(DeclinedError, match="stopped before step swap"):
        run.go(until_the_swap)
    assert tmi.databases() > before
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        psycopg.connect(**connection_parameters(tmi.app_address))
    with pytest.raises(Crash):
        run.go(fault=crash_at("swap", "action done"))
    assert oid() != was
    assert run.back().state == "taken back"
    assert (oid(), tmi.databases(), len(list_holds(tmi.store))) == (was, before, holds)
    psycopg.connect(**connection_parameters(tmi.app_address)).close()


def test_where_the_application_uses_our_role_the_database_itself_is_shut_and_opened_again(tmi: Tmi) -> None:
    tmi.house.run(f"ALTER ROLE {APP_ROLE} RENAME TO somebody")
    try:
        without_cache = replace(tmi, settings=tmi.settings.model_copy(update={"redis": None}))
        searching = prepare_corruption(without_cache.settings, tmi.store, CorruptionRequest(), REPORT)
        assert not any("will be counted" in note for note in searching.notes), "it cannot be"
        run = run_of(without_cache, CorruptionRequest(moment=Moment()))
        assert any("closes tmi to everyone" in note for note in run.plan.notes)
        assert "cache" not in [step.name for step in run.plan.steps]
        assert "count" not in run.plan.step("validate").does
        with pytest.raises(Crash):
            run.go(fault=crash_at("lift", "begun"))
        with pytest.raises(DatabaseError, match="not currently accepting connections"), connect(tmi.settings.postgres):
            pass
        assert run.go().state == "done"
        assert tmi.value("SELECT count(*) > 0 FROM threat_models") in (True, False)
    finally:
        tmi.house.run(f"ALTER ROLE somebody RENAME TO {APP_ROLE}")


def test_a_new_cluster_takes_over_at_a_moment_and_nothing_later_is_there(
    tmi: Tmi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: Programs
) -> None:
    tmp_path.chmod(0o755)
    assert tmi.settings.redis is not None
    into = tmi.settings.home.parent / "taking-over"
    with at_work(tmi, tmp_path / "app") as application:
        tell(monkeypatch, hooks_of(application))
        moment = datetime.now(UTC)
        application.wait_for_writes(10)
        disaster = datetime.now(UTC)
        serve = ServeRequest(port=free_port(), env_file=str(application.env_file))
        run = run_of(tmi, CorruptionRequest(moment=Moment(time=moment), into=into, serve=serve))
        try:
            monkeypatch.setattr(cache, "WITHIN_S", 0.5)
            with accepting(0.3, tmi.settings.redis) as port:
                slow = tmi.settings.redis.model_copy(update={"host": "127.0.0.1", "port": port})
                done = replace(run, settings=tmi.settings.model_copy(update={"redis": slow})).go()
            assert (done.state, done.deferred) == ("done", ("cache",)), "a slow cache keeps nobody out"
            done = run.go()
            assert (done.state, done.deferred) == ("done", ())
            assert answer(done, "Login as the application") == "passed"
            recovered = read_connection(application.env_file)
            assert recovered is not None
            application.wait_for_writes(10)
            assert application.missing(recovered, before=moment) == []
            assert application.present(recovered, after=moment, until=disaster) == []
            assert application.stale_reads(recovered) == []
            with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
                psycopg.connect(**connection_parameters(tmi.app_address))
        finally:
            stop_server(into, programs)
            tmi.house.run(f"ALTER ROLE {APP_ROLE} LOGIN")


def test_a_moment_that_can_never_be_reached_is_refused_before_anything_is_fenced(tmi: Tmi) -> None:
    early = Moment(time=datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(RecoveryError, match="2020-01-01"):
        prepare_corruption(tmi.settings, tmi.store, CorruptionRequest(moment=early), REPORT)
    psycopg.connect(**connection_parameters(tmi.app_address)).close()


def test_the_search_goes_to_an_older_base_when_the_newest_is_damaged_and_no_dead_cache_stops_it(tmi: Tmi) -> None:
    damaged = back_up_base(tmi.settings, tmi.store, REPORT).backup_id
    client = raw_client(tmi.settings.store)
    (key,) = (key for key in stored_keys(tmi.settings.store) if key.endswith(f"{damaged}/base.tar.zst"))
    whole = client.get_object(Bucket=str(tmi.settings.store.bucket), Key=key)["Body"].read()
    client.put_object(Bucket=str(tmi.settings.store.bucket), Key=key, Body=whole[:-9] + b"x" + whole[-8:])
    assert tmi.settings.redis is not None
    dead = tmi.settings.model_copy(update={"redis": tmi.settings.redis.model_copy(update={"port": free_port()})})
    run = run_of(replace(tmi, settings=dead))
    assert any("does not answer now" in note for note in run.plan.notes)
    done = run.go()
    assert (done.state, done.deferred) == ("done", ("cache",))
    assert any("`tmi-ops cache reconcile`" in sentence for sentence in done.left)
    psycopg.connect(**connection_parameters(tmi.app_address)).close()
    assert replace(run, settings=tmi.settings).go().deferred == ()
    trials, cluster = done.known(Trials), done.known(RecoveredCluster)
    assert trials is not None
    assert cluster is not None
    assert "damaged" in trials.trials[0].why, trials
    assert [(trial.candidate.base == damaged, trial.outcome) for trial in trials.trials] == [
        (True, "unsound"),
        (False, "sound"),
    ]
    assert cluster.backup_id != damaged
    assert cluster.whole
