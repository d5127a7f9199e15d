"""`tmi-ops alerts`, `alert test` and `alert resolve`, as a person calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tmi_ops.alerts.service import AlertService
from tmi_ops.checks.finding import Severity
from tmi_ops.cli.main import main
from tmi_ops.settings import Settings, load_settings
from tmi_ops_tests.alerts.conftest import PASSWORD, Clock, address, alert
from tmi_ops_tests.variables import variables_of
from tmi_ops_tests.webhook import Webhook

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def settings_in_process(
    alert_settings: Settings, monkeypatch: pytest.MonkeyPatch, hook: Webhook, tmp_path: Path
) -> Settings:
    addressed = alert_settings.postgres.model_copy(update={"password": alert_settings.store.secret_access_key})
    for name, value in variables_of(alert_settings.model_copy(update={"postgres": addressed})).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("POSTGRES_SSLMODE", "require")
    monkeypatch.setenv("TMI_OPS_ALERT_URLS", address(hook).get_secret_value())
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    return load_settings()


@pytest.fixture
def tmi_ops(settings_in_process: Settings, capsys: pytest.CaptureFixture[str]) -> Command:
    """Exit code, stdout and stderr of a command line run in this process."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        printed = capsys.readouterr()
        assert PASSWORD not in printed.out + printed.err
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def test_open_alerts_are_shown_worst_first_with_what_to_do_and_who_was_told(
    tmi_ops: Command, service: AlertService, hook: Webhook
) -> None:
    assert tmi_ops("alerts")[:2] == (0, "No alert is open in production.\n")
    service.raise_alert(alert(Severity.CRITICAL))
    hook.status = 500
    service.raise_alert(alert(key="slot-lag"))
    service.raise_alert(alert(key="past"))
    service.resolve("past", "It passed.")
    code, said, _ = tmi_ops("alerts")
    assert code == 0
    assert said.index("CRITICAL") < said.index("WARNING")
    assert "to do     Start the receiver: `tmi-ops wal stream`." in said
    assert "delivered: JSON 127.0.0.1 (TMI_OPS_ALERT_URLS no. 1)" in said
    assert "not delivered: JSON 127.0.0.1" in said
    assert "1 is resolved" in said
    assert "lasted" in tmi_ops("alerts", "--all")[1]
    history = tmi_ops("alerts", "past")[1]
    assert "opened" in history
    assert "Resolution: It passed." in history
    code, _, complaint = tmi_ops("alerts", "unheard-of")
    assert code == 2
    assert "past, rpo, slot-lag" in complaint


def test_json_carries_every_alert_with_its_history(tmi_ops: Command, service: AlertService) -> None:
    service.raise_alert(alert())
    (record,) = json.loads(tmi_ops("alerts", "--json")[1])
    assert record["alert"]["key"] == "rpo"
    assert record["notices"][0]["deliveries"][0]["state"] == "delivered"


def test_a_test_goes_to_those_who_hear_of_the_severity_and_is_remembered_nowhere(
    tmi_ops: Command, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said, _ = tmi_ops("alert", "test", "--severity", "notice")
    assert (code, said) == (0, "sent  JSON 127.0.0.1 (TMI_OPS_ALERT_URLS no. 1)\n")
    assert hook.titles == ["[production] TEST of notice alerts"]
    assert tmi_ops("alerts")[1] == "No alert is open in production.\n"
    hook.status = 403
    code, said, _ = tmi_ops("alert", "test")
    assert code == 1
    assert "not delivered" in said
    monkeypatch.delenv("TMI_OPS_ALERT_URLS")
    code, _, complaint = tmi_ops("alert", "test")
    assert code == 2
    assert "TMI_OPS_ALERT_URLS_CRITICAL" in complaint


def test_an_alert_is_ended_by_hand_and_those_who_were_told_hear_why(
    tmi_ops: Command, service: AlertService, hook: Webhook, clock: Clock
) -> None:
    assert tmi_ops("alert", "resolve", "rpo", "--reason", "x")[0] == 1
    service.raise_alert(alert())
    assert tmi_ops("alert", "resolve", "rpo", "--reason", " ")[0] == 2
    assert tmi_ops("alert", "resolve", "rpo", "--reason", "The disk was enlarged.")[0] == 0
    assert "What helped: The disk was enlarged." in hook.requests[-1].message["message"]


def test_without_the_store_this_machines_memory_is_shown_and_said_to_be_that(
    tmi_ops: Command, service: AlertService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.raise_alert(alert())
    monkeypatch.setenv("TMI_OPS_S3_ENDPOINT_URL", "http://127.0.0.1:1")
    code, said, complaint = tmi_ops("alerts")
    assert code == 2
    assert "Recovery point objective breached" in said
    assert "this machine's own record" in complaint
