"""The store fails, and that is when alerts matter: none is lost and none is sent twice because of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from tmi_ops.alerts import book
from tmi_ops.alerts.record import DeliveryState, NoticeKind
from tmi_ops.alerts.service import AlertService
from tmi_ops.checks.finding import Severity
from tmi_ops.settings import AlertSettings, Settings
from tmi_ops_tests.alerts.conftest import Clock, address, alert
from tmi_ops_tests.raw_s3 import stored_keys, write_raw
from tmi_ops_tests.tcp_relay import TcpRelay, tcp_relay
from tmi_ops_tests.webhook import Webhook


@pytest.fixture
def wire(alert_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[TcpRelay]:
    """The network between the desks and the store."""
    monkeypatch.setattr(book, "STORE_PAUSE_S", 0.0)
    port = int(str(alert_settings.store.endpoint_url).rpartition(":")[2])
    with tcp_relay(port) as relay:
        yield relay


@pytest.fixture
def far_settings(alert_settings: Settings, wire: TcpRelay) -> Settings:
    store = alert_settings.store.model_copy(update={"endpoint_url": f"http://127.0.0.1:{wire.port}"})
    return alert_settings.model_copy(update={"store": store})


@pytest.mark.slow
def test_an_alert_goes_out_without_the_store_once_and_is_in_the_store_when_it_is_back(
    far_settings: Settings, alert_settings: Settings, wire: TcpRelay, hook: Webhook, clock: Clock, tmp_path: Path
) -> None:
    wire.cut()
    AlertService(far_settings, clock).raise_alert(alert(key="store-unreachable"))
    AlertService(far_settings, clock).raise_alert(alert(key="store-unreachable"))
    assert len(hook.requests) == 1
    assert stored_keys(alert_settings.store) == []
    wire.mend()
    service = AlertService(far_settings, clock)
    assert service.raise_alert(alert(key="store-unreachable")).sent is None
    elsewhere = AlertService(alert_settings.model_copy(update={"home": tmp_path / "another"}), clock)
    (record,) = elsewhere.records()
    assert record.notices[0].deliveries[0].state is DeliveryState.DELIVERED
    elsewhere.resolve("store-unreachable", "The store is back.")
    assert len(hook.requests) == 2


@pytest.mark.slow
def test_an_alert_that_was_told_before_the_store_failed_is_not_told_again(
    far_settings: Settings, wire: TcpRelay, hook: Webhook, clock: Clock
) -> None:
    service = AlertService(far_settings, clock)
    service.raise_alert(alert())
    wire.cut()
    assert service.raise_alert(alert()).sent is None
    assert service.raise_alert(alert(Severity.CRITICAL)).sent is NoticeKind.ESCALATED
    assert service.book.problem is not None
    clock.forward(minutes=1)
    assert service.resolve("rpo", "It passed.").sent is NoticeKind.RESOLVED
    wire.mend()
    assert service.resolve("rpo", "It passed.").sent is None
    assert service.book.problem is None
    (record,) = service.records()
    assert not record.is_open
    assert [notice.kind for notice in record.notices] == ["opened", "escalated", "resolved"]
    assert len(hook.requests) == 3


def test_the_store_fails_between_the_claim_and_the_outcome(
    far_settings: Settings, wire: TcpRelay, hook: Webhook, clock: Clock
) -> None:
    service = AlertService(far_settings, clock)
    (channel,) = service.channels

    def cut_then_send(message: object) -> str:
        wire.cut()
        return channel.send(message)  # type: ignore[arg-type]

    service.channels[0] = type(channel)(channel.name, channel.hears, cut_then_send)
    service.raise_alert(alert())
    wire.mend()
    clock.forward(minutes=10)
    assert AlertService(far_settings, clock).raise_alert(alert()).sent is None
    assert len(hook.requests) == 1


def test_a_store_that_is_not_asked_for_a_while_costs_no_second_wait(
    far_settings: Settings, wire: TcpRelay, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "STORE_PAUSE_S", 3600.0)
    service = AlertService(far_settings, clock)
    wire.cut()
    service.raise_alert(alert())
    wire.mend()
    service.raise_alert(alert(key="another"))
    assert service.book.problem is not None
    assert {record.alert.key for record in service.records()} == {"rpo", "another"}


def test_neither_the_store_nor_the_disk_takes_it_and_it_is_sent_nevertheless(
    alert_settings: Settings, hook: Webhook, clock: Clock, tmp_path: Path
) -> None:
    (tmp_path / "a-file").write_text("")
    nowhere = alert_settings.store.model_copy(update={"bucket": None})
    service = AlertService(alert_settings.model_copy(update={"store": nowhere, "home": tmp_path / "a-file"}), clock)
    assert service.raise_alert(alert()).sent is NoticeKind.OPENED
    assert len(hook.requests) == 1


def test_a_record_that_cannot_be_read_is_replaced(
    alert_settings: Settings, service: AlertService, hook: Webhook, tmp_path: Path
) -> None:
    store = alert_settings.store
    write_raw(store, f"{store.prefix}/production/alerts/rpo.json", b"{ half a rec")
    assert service.raise_alert(alert()).sent is NoticeKind.OPENED
    assert len(service.records()) == 1


def test_a_channel_whose_address_makes_no_sense_fails_alone(
    alert_settings: Settings, hook: Webhook, clock: Clock
) -> None:
    told = AlertSettings(urls=(SecretStr("nonsense://x"), address(hook)))
    outcome = AlertService(alert_settings.model_copy(update={"alerts": told}), clock).raise_alert(alert())
    assert sorted(bool(problem) for problem in outcome.problems.values()) == [False, True]
    assert len(hook.requests) == 1
