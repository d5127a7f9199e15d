"""The whole promise with nobody watching, by the real daemon: what runs beside what, and a receiver that stops."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tmi_ops.objectives.reading import read_recoverability
from tmi_ops.objectives.rpo import judge_rpo
from tmi_ops.objectives.standing import Standing
from tmi_ops.postgres.connections import connect
from tmi_ops.settings import Settings, load_settings
from tmi_ops.stack.state import stack_is_running
from tmi_ops.store.catalogue import list_backups
from tmi_ops.store.objects import open_store
from tmi_ops_tests.orchestration.daemon import Daemon, Step, Tick
from tmi_ops_tests.stack.conftest import CommandLine, await_, command_line
from tmi_ops_tests.webhook import Webhook, webhook

# On a busy machine a stack, its daemon and the runs take their time.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SENSOR = "rpo_guard"
BACKUP = ("base_backup", "development__backup__base")
# So short that the look after the one that saw all well, ten seconds later, finds the promise broken.
RPO_S = 8


@contextmanager
def writing(settings: Settings) -> Iterator[threading.Event]:
    """A database that is at work until the event is set."""
    stop = threading.Event()

    def write() -> None:
        with connect(settings.postgres) as connection:
            connection.execute("CREATE TABLE at_work (at timestamptz)")
            while not stop.wait(0.2):
                connection.execute("INSERT INTO at_work VALUES (clock_timestamp())")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()


def newest(daemon: Daemon) -> Tick | None:
    return next(iter(daemon.ticks(SENSOR)), None)


def is_verified(settings: Settings) -> bool:
    return any(entry.verification for entry in list_backups(open_store(settings.store, settings.environment)))


def all_is_well(settings: Settings) -> bool:
    facts = read_recoverability(settings, open_store(settings.store, settings.environment))
    return judge_rpo(facts, settings.objectives).standing is Standing.MET


def saw_all_well(daemon: Daemon) -> Tick | None:
    tick = newest(daemon)
    return tick if tick and tick.said.startswith("Latest verified recovery point") else None


def told(hook: Webhook, words: str) -> str | None:
    return next((request.message["message"] for request in hook.requests if words in request.message["title"]), None)


@dataclass(frozen=True)
class Protected:
    """A stack with its daemon, at work for a database that has a base backup. No sensor is on yet."""

    commands: CommandLine
    variables: Mapping[str, str]
    settings: Settings
    daemon: Daemon
    hook: Webhook


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Protected]:
    with command_line(tmp_path_factory.mktemp("protected")) as commands, webhook() as hook:
        variables = {
            "TMI_OPS_RPO": f"{RPO_S}s",
            "TMI_OPS_ALERT_URLS": f"json://127.0.0.1:{hook.port}/hook",
        }
        # The slot is there before the backup, so that WAL continues it without a hole.
        catch_up = ("wal", "stream", "--catch-up", "--quiet")
        for command in (("up", "--detach"), ("migrate",), catch_up, ("backup", "base", "--quiet"), ("heartbeat",)):
            done = commands.run(*command, variables=variables)
            assert done.returncode == 0, (command, done.stdout, done.stderr)
        settings = load_settings(variables | {"TMI_OPS_HOME": str(commands.home)}, commands.directory)
        yield Protected(commands, variables, settings, Daemon(await_stack(commands)), hook)


@contextmanager
def beats_held(settings: Settings) -> Iterator[None]:
    """Nobody can read them meanwhile: a drill waits before its last question, for as long as it takes."""
    with connect(settings.postgres, autocommit=False) as connection:
        connection.execute("LOCK TABLE tmi_ops.heartbeat IN ACCESS EXCLUSIVE MODE")
        yield


def test_two_backups_begun_at_once_take_turns_and_neither_waits_for_a_drill_that_takes_long(
    protected: Protected,
) -> None:
    daemon = protected.daemon
    with beats_held(protected.settings):
        drill = daemon.launch("recovery_drill", "development__recovery__drill", latest=True)
        # So slow that they would be at work at the same time, were they let.
        slow = {"max_rate_mb": 1}
        backups = [daemon.launch("base_backup", "development__backup__base", **slow) for _ in range(2)]
        first, second = sorted((finished(daemon, run) for run in backups), key=lambda step: step.ended)
        beside = daemon.step(drill)
    assert first.ended <= second.began
    # Neither was refused by the other's lock and tried again: it waited for its turn.
    assert [first.attempts, second.attempts] == [1, 1]
    drilled = finished(daemon, drill)
    assert beside.run_status == "STARTED"
    assert drilled.began < second.ended < drilled.ended


def test_a_backup_that_somebody_cancels_is_cancelled_and_not_tried_again(protected: Protected) -> None:
    daemon = protected.daemon
    cancelled = daemon.launch(*BACKUP, max_rate_mb=1)
    await_(lambda: daemon.step(cancelled).began, "the backup is at work", lambda: daemon.step(cancelled))
    daemon.cancel(cancelled)
    await_(lambda: daemon.step(cancelled).run_status == "CANCELED", "it is cancelled", lambda: daemon.step(cancelled))
    assert daemon.step(cancelled).attempts == 1


def finished(daemon: Daemon, run_id: str) -> Step:
    """The step of a run, once it has succeeded."""

    def over() -> Step | None:
        step = daemon.step(run_id)
        return step if step.run_status in ("SUCCESS", "FAILURE", "CANCELED") else None

    step = await_(over, "the run is over", lambda: daemon.step(run_id))
    assert step.run_status == "SUCCESS", step
    return step


def test_a_receiver_that_stops_is_noticed_at_the_next_look_cured_and_its_end_is_told(protected: Protected) -> None:
    commands, settings, daemon, hook = protected.commands, protected.settings, protected.daemon, protected.hook
    if not is_verified(settings):
        drilled = commands.run("drill", "--latest", variables=protected.variables)
        assert drilled.returncode in (0, 1), drilled.stderr  # 1: a drill misses so short an RPO
    receiver = commands.start("wal", "stream", "--quiet", "--partial-every", "0.5", variables=protected.variables)
    with writing(settings) as stop_writing:
        await_(lambda: all_is_well(settings), "the receiver has caught up")
        daemon.start_sensor(SENSOR)
        well = await_(lambda: saw_all_well(daemon), "a look sees all well", lambda: daemon.ticks(SENSOR))
        hook.requests.clear()  # on a busy machine a look before that one may have seen the receiver begin
        receiver.terminate()
        receiver.wait()

        await_(lambda: hook.requests, "the breach is told", lambda: daemon.ticks(SENSOR))
        looks = [tick for tick in daemon.ticks(SENSOR) if tick.ended_at > well.ended_at]
        # Told by the first look that saw it, which may not have ended yet.
        assert not [look for look in looks[1:] if look.said.startswith("breached")]
        stop_writing.set()

    breach = told(hook, "CRITICAL: The recovery point objective is breached")
    assert breach is not None, hook.titles
    assert "catch up WAL" in breach.partition("Done:")[2].partition("To do:")[0]
    assert "tmi-ops wal stream" in breach.partition("To do:")[2]
    recovery = await_(lambda: told(hook, "RESOLVED"), "the recovery is told", lambda: daemon.ticks(SENSOR))
    assert "After: catch up WAL." in recovery
    # A receiver that has just begun may look slow beside so short an objective: that is another trouble, and over.
    cures = await_(lambda: ended_since(daemon, well), "the cures have ended")
    assert {(run["jobName"], run["status"]) for run in cures} == {("wal_catch_up", "SUCCESS")}
    assert all(tick.status != "FAILURE" for tick in daemon.ticks(SENSOR))


def ended_since(daemon: Daemon, well: Tick) -> list[Any]:
    """The cures that began since a look; none while one of them is at work."""
    runs = [run for run in daemon.runs(cures="rpo") if run["startTime"] is None or run["startTime"] > well.ended_at]
    return [] if any(run["status"] in ("QUEUED", "STARTING", "STARTED") for run in runs) else runs


def await_stack(commands: CommandLine) -> str:
    state = await_(lambda: stack_is_running(commands.home), "the stack is up")
    assert state.ui_url is not None
    return state.ui_url
