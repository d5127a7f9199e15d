"""Complete failure, with the application at work: from nothing but the store to an application that serves again."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tmi_ops.backup.logical import back_up_logical
from tmi_ops.cache.connection import connected
from tmi_ops.cli.recover_view import show_run
from tmi_ops.drill.evidence import TITLES
from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError, RecoveryError
from tmi_ops.postgres.cluster import free_port
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.runbooks.application import HEALTH_URL
from tmi_ops.runbooks.everything.planning import EverythingRequest, prepare_everything
from tmi_ops.runbooks.execution import RunbookError
from tmi_ops.runbooks.logbook import find_run
from tmi_ops.runbooks.serving.cluster import stop_server
from tmi_ops.runbooks.serving.connection import read_connection
from tmi_ops.runbooks.serving.steps import ServeRequest
from tmi_ops.runbooks.steps.place import running_server
from tmi_ops.runbooks.steps.recover import REACH
from tmi_ops.settings import PostgresSettings, Settings, StoreSettings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops_tests.commands import command
from tmi_ops_tests.physical import kill
from tmi_ops_tests.recovery.point_in_time.conftest import own_store
from tmi_ops_tests.runbooks.crashes import Crash, crash_at
from tmi_ops_tests.runbooks.disasters import DATABASE, NO_HOOKS, REPORT, Run, Tmi, at_work, hooks_of

pytestmark = pytest.mark.slow


@pytest.fixture
def ground(tmi: Tmi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: Programs) -> Iterator[Path]:
    """A new machine: a place for the data directory, and no variable that tells of a server or an application."""
    monkeypatch.chdir(tmp_path)
    for name, value in NO_HOOKS.items():
        monkeypatch.setenv(name, value)
    ground = tmi.settings.home.parent / tmp_path.name
    ground.mkdir(mode=0o755)
    yield ground
    stop_server(ground / "data", programs)
    shutil.rmtree(ground)


def knowing_the_store_only(tmi: Tmi, ground: Path, store: StoreSettings | None = None) -> tuple[Settings, ObjectStore]:
    settings = tmi.settings.model_copy(
        update={"postgres": PostgresSettings(), "home": ground / "home", "store": store or tmi.settings.store}
    )
    return settings, open_store(settings.store, settings.environment)


def run_of(settings: Settings, store: ObjectStore, wanted: EverythingRequest) -> Run:
    return Run.of(settings, store, prepare_everything(settings, store, wanted, REPORT))


def test_begun_on_a_machine_that_is_lost_it_is_ended_on_another_from_a_backup_of_rows_alone(
    tmi: Tmi,
    ground: Path,
    s3: StoreSettings,
    shared_bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    programs: Programs,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings, store = knowing_the_store_only(tmi, ground, own_store(s3, shared_bucket))
    data, serve = ground / "data", ServeRequest(port=free_port())
    with pytest.raises(RecoveryError, match="There is no backup"):
        run_of(settings, store, EverythingRequest(data, serve))
    back_up_logical(settings.model_copy(update={"postgres": tmi.settings.postgres}), store, "custom", REPORT)
    with connected(settings.redis) as cache:
        cache.flushdb()  # lost as well
    monkeypatch.setenv(HEALTH_URL, "http://127.0.0.1:9/")
    run = run_of(settings, store, EverythingRequest(data, serve))
    assert any("has no base backup" in note for note in run.plan.notes)
    assert any("change TMI's signing key" in note for note in run.plan.notes)
    with pytest.raises(Crash):
        run.go(fault=crash_at("serve", "recorded"))

    stop_server(data, programs)
    move_machine(ground, ground / "lost-machine")
    data.mkdir()
    (data / "precious").write_text("data")
    other = on_machine(run, ground / "other")
    with pytest.raises(RunbookError, match="is not empty"):
        other.go()
    assert (data / "precious").read_text() == "data"
    shutil.rmtree(data)
    with pytest.raises(Crash):
        other.go(fault=crash_at("connect", "recorded"))

    move_machine(ground, ground / "other-machine")
    with pytest.raises(RecoveryError) as elsewhere:
        on_machine(run, ground / "third").go()
    assert elsewhere.value.code is Code.RUN_ELSEWHERE
    move_machine(ground / "other-machine", ground)
    monkeypatch.setenv(HEALTH_URL, "")
    done = on_machine(run, ground / "other").go()
    assert done.state == "done"
    assert {one.title: one.outcome for one in done.answers}["Backup fingerprints"] == "passed"
    recovered = read_connection(other.logbook.directory / "connection.env")
    assert recovered is not None
    with connect(recovered) as connection:
        assert connection.execute("SELECT count(*) > 0 FROM groups").fetchone() == (True,)
    show_run(done, settings, store)
    closing = " ".join(capsys.readouterr().out.split())
    assert "change TMI's signing key" in closing[closing.index("Left to do:") :]


def move_machine(disk: Path, to: Path) -> None:
    """Have the data directory, and what lies beside it, elsewhere."""
    to.mkdir(exist_ok=True)
    for path in [path for path in disk.iterdir() if path.name.lstrip(".").startswith("data")]:
        path.rename(to / path.name)


def on_machine(run: Run, home: Path) -> Run:
    """The run as a machine sees it that has nothing of it yet, or what it did itself."""
    settings = run.settings.model_copy(update={"home": home})
    return replace(run, settings=settings, logbook=find_run(settings, run.store, run.logbook.run_id)[0])


def test_a_directory_that_holds_anything_is_refused_and_left(tmi: Tmi, ground: Path) -> None:
    settings, store = knowing_the_store_only(tmi, ground)
    (ground / "data").mkdir()
    (ground / "data" / "precious").write_text("data")
    with pytest.raises(RecoveryError, match="is not empty"):
        run_of(settings, store, EverythingRequest(ground / "data", ServeRequest(port=free_port())))
    assert (ground / "data" / "precious").read_text() == "data"
    shutil.rmtree(ground / "data")


def test_by_hand_with_the_stores_variables_alone_a_no_waits_and_all_is_taken_back(tmi: Tmi, ground: Path) -> None:
    store = tmi.settings.store
    assert store.access_key_id is not None
    assert store.secret_access_key is not None
    environment = {
        "PATH": "/usr/bin:/bin",
        "COLUMNS": "100",
        "TMI_OPS_HOME": str(ground / "home"),
        "TMI_OPS_S3_BUCKET": store.bucket or "",
        "TMI_OPS_S3_PREFIX": store.prefix,
        "TMI_OPS_S3_ENDPOINT_URL": store.endpoint_url or "",
        "TMI_OPS_S3_ACCESS_KEY_ID": store.access_key_id.get_secret_value(),
        "TMI_OPS_S3_SECRET_ACCESS_KEY": store.secret_access_key.get_secret_value(),
    }

    def told(*words: str) -> subprocess.CompletedProcess[str]:
        return command("recover", *words, env=environment, cwd=ground)

    env_file = ground / ".env"
    env_file.write_text("POSTGRES_HOST=old\n")
    wanted = ["everything", "--into", str(ground / "data"), "--port", str(free_port()), "--env-file", str(env_file)]
    impossible = told(*wanted, "--owner", "nobody-of-that-name", "--plan")
    assert impossible.returncode == 2
    assert "1.  recover" in impossible.stdout, "the plan is shown all the same"
    assert "Blocked: This machine has no account nobody-of-that-name." in impossible.stdout
    wanted += ["--owner", "nobody"] if os.geteuid() == 0 else []
    planned = told(*wanted, "--plan")
    assert planned.returncode == 0, planned.stderr
    assert "1.  recover" in planned.stdout
    assert "signing key" in planned.stdout, "nobody says where the cache is"
    assert not (ground / "data").exists()
    waiting = told(*wanted, "--quiet")
    assert waiting.returncode == 2
    assert "stopped before step connect" in waiting.stderr
    assert "tmi-ops recover resume" in waiting.stderr
    assert running_server(ground / "data") is not None
    if os.geteuid() == 0:
        assert (ground / "data" / "PG_VERSION").owner() == "nobody"
        assert "at boot, as nobody, who owns its files" in told("show", "--json").stdout
    assert env_file.read_text() == "POSTGRES_HOST=old\n"
    taken_back = told("back", "--yes", "--quiet")
    assert taken_back.returncode == 0, taken_back.stderr
    assert "UNDONE" in taken_back.stdout
    assert running_server(ground / "data") is None
    assert not (ground / "data").exists()


def test_crashed_at_every_step_the_application_serves_again_from_the_new_cluster(
    tmi: Tmi, ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one: the server is lost for good."""
    with at_work(tmi, ground / "app") as application:
        for name, value in hooks_of(application).items():
            monkeypatch.setenv(name, value)
        alice = application.sign_in()
        application.revoke(alice)
        safe = datetime.now(UTC)
        tmi.archive()
        application.wait_for_writes(10)
        kill(tmi.house.cluster)
        disaster = datetime.now(UTC)
        settings, store = knowing_the_store_only(tmi, ground)
        serve = ServeRequest(port=free_port(), env_file=str(application.env_file))
        run = run_of(settings, store, EverythingRequest(ground / "data", serve))
        assert run.crash_everywhere() == 3 * len(run.plan.steps)
        done = run.go()

        assert done.state == "done"
        outcomes = {one.title: one.outcome for one in done.answers}
        assert outcomes[TITLES["heartbeat"]] == outcomes[REACH] == "passed"
        recovered = read_connection(application.env_file)
        assert recovered is not None
        assert recovered.database == DATABASE
        assert application.is_healthy()
        application.wait_for_writes(10)
        assert application.missing(recovered, before=safe) == []
        assert not application.accepts(alice), "a revoked token was revived"
        assert not any("signing key" in sentence for sentence in (*run.plan.notes, *done.left))
        assert application.stale_reads(recovered) == []
        assert safe < disaster
        wrong = recovered.model_copy(update={"user": "postgres"})
        with pytest.raises(DatabaseError, match="password authentication failed"), connect(wrong):
            pass
    journal = (run.logbook.directory / "journal.json").read_text()
    evidence = (run.logbook.directory / "evidence.html").read_text()
    assert recovered.password is not None
    assert recovered.password.get_secret_value() not in journal + evidence
