"""The whole promise with nobody watching: the real daemon, on a stack of its own, and a receiver that stops."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tmi_ops.objectives.reading import read_recoverability
from tmi_ops.objectives.rpo import judge_rpo
from tmi_ops.objectives.standing import Standing
from tmi_ops.postgres.connections import connect
from tmi_ops.settings import Settings, load_settings
from tmi_ops.stack.state import stack_is_running
from tmi_ops.store.objects import open_store
from tmi_ops_tests.orchestration.daemon import Daemon, Tick
from tmi_ops_tests.stack.conftest import CommandLine, await_, commands  # noqa: F401 a fixture
from tmi_ops_tests.webhook import Webhook, webhook

# On a busy machine a stack, its daemon and the runs take their time.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SENSOR = "rpo_guard"
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


def all_is_well(settings: Settings) -> bool:
    facts = read_recoverability(settings, open_store(settings.store, settings.environment))
    return judge_rpo(facts, settings.objectives).standing is Standing.MET


def saw_all_well(daemon: Daemon) -> Tick | None:
    tick = newest(daemon)
    return tick if tick and tick.said.startswith("Proven to be recoverable") else None


def told(hook: Webhook, words: str) -> str | None:
    return next((request.message["message"] for request in hook.requests if words in request.message["title"]), None)


def test_a_receiver_that_stops_is_noticed_at_the_next_look_cured_and_its_end_is_told(
    commands: CommandLine,  # noqa: F811
) -> None:
    with webhook() as hook:
        variables = {
            "TMI_OPS_RPO": f"{RPO_S}s",
            "TMI_OPS_ALERT_URLS": f"json://127.0.0.1:{hook.port}/hook",
        }
        for command in (("up", "--detach"), ("migrate",), ("backup", "base", "--quiet"), ("drill", "--latest")):
            done = commands.run(*command, variables=variables)
            assert done.returncode in (0, 1), (command, done.stdout, done.stderr)  # 1: a drill misses so short an RPO
        daemon = Daemon(await_stack(commands))
        settings = load_settings(variables | {"TMI_OPS_HOME": str(commands.home)}, commands.directory)
        receiver = commands.start("wal", "stream", "--quiet", "--partial-every", "0.5", variables=variables)
        with writing(settings) as stop_writing:
            await_(lambda: all_is_well(settings), "the receiver has caught up")
            daemon.start_sensor(SENSOR)
            well = await_(lambda: saw_all_well(daemon), "a look sees all well", lambda: daemon.ticks(SENSOR))
            receiver.terminate()
            receiver.wait()
            assert not hook.requests

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
        cures = [run for run in daemon.runs(cures="rpo") if run["startTime"] > well.ended_at]
        assert {(run["jobName"], run["status"]) for run in cures} == {("wal_catch_up", "SUCCESS")}
        assert all(tick.status != "FAILURE" for tick in daemon.ticks(SENSOR))


def await_stack(commands: CommandLine) -> str:  # noqa: F811
    state = await_(lambda: stack_is_running(commands.home), "the stack is up")
    assert state.ui_url is not None
    return state.ui_url
