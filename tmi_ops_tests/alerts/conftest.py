"""A webhook, a clock that is set by hand, and desks that share both."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from tmi_ops.alerts.alert import Alert
from tmi_ops.alerts.service import AlertService
from tmi_ops.checks.finding import Severity
from tmi_ops.settings import OBJECTIVES, AlertSettings, PostgresSettings, RedisSettings, Settings, StoreSettings
from tmi_ops_tests.webhook import Webhook, webhook

PASSWORD = "hunter2-of-the-webhook"
START = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as heard:
        yield heard


def address(heard: Webhook) -> SecretStr:
    return SecretStr(f"json://alerts:{PASSWORD}@127.0.0.1:{heard.port}/hook")


@pytest.fixture
def alert_settings(store_settings: StoreSettings, hook: Webhook, tmp_path: Path) -> Settings:
    """Production on the real store; everything is told to the webhook."""
    return Settings(
        environment="production",
        postgres=PostgresSettings(),
        redis=RedisSettings(),
        store=store_settings,
        objectives=OBJECTIVES["production"],
        alerts=AlertSettings(urls=(address(hook),)),
        home=tmp_path / "home",
    )


@pytest.fixture
def service(alert_settings: Settings, clock: Clock) -> AlertService:
    return AlertService(alert_settings, clock)


def alert(severity: Severity = Severity.WARNING, key: str = "rpo", since: datetime = START) -> Alert:
    return Alert(
        key=key,
        severity=severity,
        summary="Recovery point objective breached",
        at_risk="The last 42 min of changes would be lost if the database were lost now (objective: 15 min).",
        since=since,
        done="A WAL catch-up was started.",
        to_do="Start the receiver: `tmi-ops wal stream`.",
    )
