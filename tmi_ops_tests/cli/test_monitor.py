"""What is done by hand pings the outside monitor once it has made something recoverable, and not before."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from tmi_ops.cli import wal_stream
from tmi_ops.cli.main import tmi_ops
from tmi_ops.postgres.connections import connect
from tmi_ops.settings import Settings
from tmi_ops_tests.variables import variables_of
from tmi_ops_tests.webhook import Webhook, webhook


@pytest.fixture
def monitor(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    """Watches the environment that the commands act on. Their signals are not for this process."""
    monkeypatch.setattr(wal_stream, "stop_on_signals", threading.Event)
    with webhook() as heard:
        given = variables_of(settings) | {"TMI_OPS_HEARTBEAT_URL": f"http://127.0.0.1:{heard.port}/alive"}
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        yield heard
    with connect(settings.postgres) as connection:  # other tests' server too
        connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


def run(*words: str) -> None:
    done = CliRunner().invoke(tmi_ops, [*words, "--quiet"], standalone_mode=False)
    assert done.exception is None, done.exception
    assert done.return_value == 0, done.output


@pytest.mark.slow
def test_backups_and_a_catch_up_by_hand_ping_the_monitor_and_wal_that_no_backup_leads_to_does_not(
    monitor: Webhook,
) -> None:
    run("wal", "stream", "--catch-up")
    assert monitor.requests == []
    for command, said in (
        (("backup", "base"), "base backup"),
        (("wal", "stream", "--catch-up"), "WAL is archived up to date"),
        (("backup", "logical"), "logical backup"),
    ):
        run(*command)
        newest = monitor.requests.pop()
        assert monitor.requests == []
        assert (newest.path, newest.body.startswith(f"development: {said}")) == ("/alive", True), newest
