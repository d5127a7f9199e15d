"""Two processes find the same trouble at the same instant."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tmi_ops.alerts.service import AlertService
from tmi_ops.settings import Settings
from tmi_ops_tests.alerts.conftest import Clock, alert
from tmi_ops_tests.webhook import Webhook

MACHINES = 6


@pytest.mark.slow
def test_of_many_machines_that_raise_and_end_an_alert_at_once_one_tells(
    alert_settings: Settings, hook: Webhook, clock: Clock, tmp_path: Path
) -> None:
    desks = [
        AlertService(alert_settings.model_copy(update={"home": tmp_path / str(number)}), clock)
        for number in range(MACHINES)
    ]
    _at_once([lambda service=service: service.raise_alert(alert()) for service in desks])  # type: ignore[misc]
    assert len(hook.requests) == 1
    clock.forward(minutes=1)
    _at_once([lambda service=service: service.resolve("rpo", "It passed.") for service in desks])  # type: ignore[misc]
    assert len(hook.requests) == 2


def test_of_many_threads_and_processes_of_one_machine_one_tells_though_there_is_no_store(
    alert_settings: Settings, hook: Webhook, clock: Clock
) -> None:
    nowhere = alert_settings.model_copy(update={"store": alert_settings.store.model_copy(update={"bucket": None})})
    desks = [AlertService(nowhere, clock) for _ in range(3)]
    _at_once([lambda service=service: service.raise_alert(alert()) for service in desks * 2])  # type: ignore[misc]
    assert len(hook.requests) == 1


def _at_once(actions: list) -> None:  # type: ignore[type-arg]
    barrier = threading.Barrier(len(actions))

    def run(action) -> None:  # type: ignore[no-untyped-def]
        barrier.wait()
        action()

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
