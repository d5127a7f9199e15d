"""Starting, stopping, dying and coming back: on real processes with real signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress

import boto3
import psycopg
import pytest
import redis

from tmi_ops.postgres.connections import connect
from tmi_ops.settings import Settings, load_settings
from tmi_ops.stack.background import stop_stack
from tmi_ops.stack.layout import StackLayout
from tmi_ops.stack.state import StackState, stack_is_running
from tmi_ops_tests.stack.conftest import CommandLine, await_

pytestmark = pytest.mark.slow
NO_DAGSTER = "--no-dagster"


def settings_of(commands: CommandLine) -> Settings:
    return load_settings({"TMI_OPS_HOME": str(commands.home)}, commands.directory)


def leave_marks(settings: Settings) -> None:
    """One row, one key and one object."""
    with connect(settings.postgres, "postgres") as connection:
        connection.execute("CREATE TABLE mark AS SELECT 42 AS value")
    cache(settings).set("mark", "kept")
    bucket(settings).put_object(Bucket=settings.store.bucket, Key="mark", Body=b"kept")


def kill_all(pids: Iterable[int]) -> None:
    """SIGKILL for each; one that its parent's end took along already is gone."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def assert_marks_are_there(settings: Settings) -> None:
    with connect(settings.postgres, "postgres") as connection:
        assert connection.execute("SELECT value FROM mark").fetchone() == (42,)
    assert cache(settings).get("mark") == b"kept"
    assert bucket(settings).get_object(Bucket=settings.store.bucket, Key="mark")["Body"].read() == b"kept"


def cache(settings: Settings) -> redis.Redis:
    assert settings.redis.password is not None
    return redis.Redis(
        host=settings.redis.host, port=settings.redis.port, password=settings.redis.password.get_secret_value()
    )


def bucket(settings: Settings):
    store = settings.store
    assert store.access_key_id is not None
    assert store.secret_access_key is not None
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint_url,
        region_name=store.region,
        aws_access_key_id=store.access_key_id.get_secret_value(),
        aws_secret_access_key=store.secret_access_key.get_secret_value(),
    )


def pid_of(state: StackState, name: str) -> int:
    pid = next(service.pid for service in state.services if service.name == name)
    assert pid is not None
    return pid


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=["Ctrl-C", "SIGTERM", "SIGHUP"])
def test_a_signal_stops_everything_in_order_and_leaves_no_process(commands: CommandLine, number: int) -> None:
    supervisor, _ = commands.up(NO_DAGSTER)
    supervisor.send_signal(number)
    said, _ = supervisor.communicate(timeout=30)
    assert supervisor.returncode == 0, said
    assert commands.processes() == {}
    log = StackLayout(commands.home).log("postgres").read_text()
    assert "database system is shut down" in log
    assert "error" not in said


def test_a_signal_while_it_is_starting_stops_what_has_started(commands: CommandLine) -> None:
    supervisor = commands.start("up", NO_DAGSTER)
    await_(lambda: stack_is_running(commands.home), "the supervisor has begun")
    supervisor.send_signal(signal.SIGINT)
    supervisor.communicate(timeout=60)
    assert supervisor.returncode == 0
    assert commands.processes() == {}


def test_data_survives_down_and_up_on_the_same_ports(commands: CommandLine) -> None:
    assert commands.run("up", "--detach", NO_DAGSTER).returncode == 0
    leave_marks(settings_of(commands))
    before = stack_is_running(commands.home)
    assert commands.run("down").returncode == 0
    assert commands.processes() == {}
    assert commands.run("stack", "status").returncode == 1
    assert commands.run("up", "--detach", NO_DAGSTER).returncode == 0
    after = stack_is_running(commands.home)
    assert before is not None
    assert after is not None
    assert after.ports == before.ports
    assert_marks_are_there(settings_of(commands))


def test_no_process_outlives_a_supervisor_killed_with_sigkill_and_the_next_up_goes_on(commands: CommandLine) -> None:
    supervisor, _ = commands.up(NO_DAGSTER)
    leave_marks(settings_of(commands))
    supervisor.kill()
    supervisor.wait()
    # At once, while the servers of the dead supervisor are still being stopped.
    commands.up(NO_DAGSTER)
    assert_marks_are_there(settings_of(commands))
    commands.started[-1].kill()
    commands.await_silence()


def test_up_recovers_when_everything_was_killed_with_sigkill(commands: CommandLine) -> None:
    commands.up(NO_DAGSTER)
    leave_marks(settings_of(commands))
    kill_all(commands.processes())
    commands.started[0].communicate()
    assert StackLayout(commands.home).data("postgres").joinpath("data", "postmaster.pid").exists()
    assert stack_is_running(commands.home) is None
    commands.up(NO_DAGSTER)
    assert_marks_are_there(settings_of(commands))


def test_down_ends_a_server_that_lost_both_supervisor_and_guard(commands: CommandLine) -> None:
    _, state = commands.up(NO_DAGSTER)
    kill_all(commands.processes().keys() - {pid_of(state, "valkey")})
    commands.started[0].communicate()
    assert commands.processes().keys() == {pid_of(state, "valkey")}
    assert commands.run("down").returncode == 0
    assert commands.processes() == {}


def test_two_ups_at_the_same_moment_make_one_stack_and_both_succeed(commands: CommandLine) -> None:
    both = [commands.start("up", "--detach", NO_DAGSTER) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    supervisors = [argv for argv in commands.processes().values() if "tmi_ops.stack.background" in argv]
    assert len(supervisors) == 1


@pytest.mark.parametrize("name", ["postgres", "seaweedfs", "valkey"])
def test_a_server_that_dies_is_started_again_with_its_data_and_it_is_said(commands: CommandLine, name: str) -> None:
    supervisor, state = commands.up(NO_DAGSTER)
    leave_marks(settings_of(commands))
    victim = pid_of(state, name)
    os.kill(victim, signal.SIGKILL)

    def restarted() -> bool:
        now = stack_is_running(commands.home)
        service = next(service for service in now.services if service.name == name) if now else None
        return service is not None and service.restarts == 1 and service.pid not in (None, victim)

    await_(restarted, f"{name} was restarted")
    assert_marks_are_there(settings_of(commands))
    assert "restarted 1x" in commands.run("stack", "status").stdout
    supervisor.terminate()
    said, _ = supervisor.communicate(timeout=30)
    assert f"{name} ended unexpectedly (killed by SIGKILL); restarting in 1 s" in said


def test_a_server_that_cannot_live_brings_the_stack_down_with_its_name_and_its_log(commands: CommandLine) -> None:
    supervisor, state = commands.up(NO_DAGSTER)
    layout = StackLayout(commands.home)
    configuration = layout.data("postgres") / "data" / "postgresql.conf"
    configuration.write_text(configuration.read_text() + "\nno_such_parameter = 1\n")
    os.kill(pid_of(state, "postgres"), signal.SIGKILL)
    said, _ = supervisor.communicate(timeout=100)
    assert supervisor.returncode == 2
    assert "postgres could not be restarted, for the 6th time" in " ".join(said.split())
    assert "DETAIL: The data of all servers is kept." in said
    assert str(layout.log("postgres")) in said
    commands.await_silence()


def test_a_server_that_does_not_start_is_an_error_that_stops_the_others(commands: CommandLine) -> None:
    assert commands.run("up", "--detach", NO_DAGSTER).returncode == 0
    stop_stack(commands.home)
    (StackLayout(commands.home).data("postgres") / "data" / "postgresql.conf").write_text("no_such_parameter = 1\n")
    for options in ((), ("--detach",)):
        failed = commands.run("up", NO_DAGSTER, *options)
        assert failed.returncode == 2
        assert "no_such_parameter" in failed.stderr
        assert "the stack is down" not in failed.stderr  # what a log says beside the error
        assert commands.processes() == {}


def test_an_interrupted_initdb_leaves_nothing_that_looks_like_a_cluster(commands: CommandLine) -> None:
    unfinished = StackLayout(commands.home).data("postgres") / "data.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("17\n")
    assert commands.run("up", "--detach", NO_DAGSTER).returncode == 0
    assert not unfinished.exists()


def test_resetting_the_database_keeps_the_backups_and_starts_the_stack_again(commands: CommandLine) -> None:
    assert commands.run("up", "--detach", NO_DAGSTER).returncode == 0
    leave_marks(settings_of(commands))
    done = commands.run("stack", "reset", "--database", "--yes")
    assert done.returncode == 0, done.stderr
    settings = settings_of(commands)
    assert bucket(settings).get_object(Bucket=settings.store.bucket, Key="mark")["Body"].read() == b"kept"
    with connect(settings.postgres, "postgres") as connection, pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("SELECT value FROM mark")


def test_resetting_the_stack_removes_all_of_it_and_it_starts_afresh(commands: CommandLine) -> None:
    assert commands.run("up", "--detach", NO_DAGSTER).returncode == 0
    stop_stack(commands.home)
    assert commands.run("stack", "reset", "--yes").returncode == 0
    assert not StackLayout(commands.home).root.exists()
    assert not (commands.home / "stack.env").exists()
    assert commands.run("up", "--detach", NO_DAGSTER).returncode == 0


def test_the_stack_refuses_to_serve_another_environment(commands: CommandLine) -> None:
    (commands.directory / ".env.staging").write_text("")
    refused = commands.run("up", variables={"TMI_ENV": "staging"})
    assert refused.returncode == 2
    assert "[TMI-1012]" in refused.stderr
    assert not commands.home.exists()
