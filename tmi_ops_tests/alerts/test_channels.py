"""What a channel is given, and what it may do to us: nothing."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from pydantic import SecretStr

from tmi_ops.alerts.service import Channel, deliver, open_channels, without_secrets
from tmi_ops.alerts.wording import Message, trial_message
from tmi_ops.checks.finding import Severity
from tmi_ops.settings import AlertSettings
from tmi_ops_tests.alerts.conftest import PASSWORD, START, address
from tmi_ops_tests.webhook import Webhook

MESSAGE = trial_message("staging", Severity.CRITICAL, START)


def channels_of(*urls: str) -> list[Channel]:
    return open_channels(AlertSettings(urls=tuple(map(SecretStr, urls))))


class Postbox(socketserver.ThreadingTCPServer):
    """A mail server of the few words that a delivery needs (RFC 5321)."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        self.letters: list[EmailMessage] = []
        super().__init__(("127.0.0.1", 0), _Conversation)


class _Conversation(socketserver.StreamRequestHandler):
    server: Postbox

    def handle(self) -> None:
        self.say("220 postbox")
        while line := self.rfile.readline():
            verb = line.split()[0].upper()
            if verb == b"DATA":
                self.say("354 go on")
                content = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.server.letters.append(message_from_bytes(content, policy=policy.default))  # type: ignore[arg-type]
            self.say("221 bye" if verb == b"QUIT" else "250 well")

    def say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@pytest.fixture
def postbox() -> Iterator[Postbox]:
    with Postbox() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_letter_arrives_by_smtp_with_every_line(postbox: Postbox) -> None:
    port = postbox.server_address[1]
    (channel,) = channels_of(
        f"mailto://127.0.0.1:{port}?smtp=127.0.0.1&mode=insecure&from=tmi_ops@example.com&to=oncall@example.com"
    )
    assert deliver([channel], MESSAGE) == {channel.name: ""}
    (letter,) = postbox.letters
    assert letter["Subject"] == "[staging] TEST of critical alerts"
    assert "oncall@example.com" in letter["To"]
    body = letter.get_body(("plain",)) or letter.get_body(("html",))
    assert body is not None
    for line in MESSAGE.body.splitlines():
        assert line in body.get_content()


@pytest.mark.slow
def test_a_channel_that_never_answers_costs_a_bounded_time_and_holds_up_no_other(hook: Webhook) -> None:
    told: list[Message] = []

    def hears(message: Message) -> str:
        told.append(message)
        return ""

    hook.status = None
    (silent,) = channels_of(address(hook).get_secret_value())
    other = Channel("another", Severity.NOTICE, hears)
    problems = deliver([silent, other], MESSAGE, patience_s=0.5)
    assert "no answer" in problems[silent.name]
    assert problems["another"] == ""
    assert told == [MESSAGE]


def test_a_channel_whose_program_breaks_is_a_channel_that_failed() -> None:
    def breaks(_: Message) -> str:
        raise RuntimeError(PASSWORD)

    (problem,) = deliver([Channel("broken", Severity.NOTICE, breaks)], MESSAGE).values()
    assert "RuntimeError" in problem
    assert PASSWORD not in problem


def test_a_channel_is_named_by_its_service_and_its_variable_and_never_by_what_its_address_holds() -> None:
    named = [
        channel.name
        for channel in open_channels(
            AlertSettings(
                urls=(SecretStr(f"json://user:{PASSWORD}@hooks.example.com/{PASSWORD}"),),
                urls_critical=(SecretStr("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/"),),
            )
        )
    ]
    assert named == ["JSON hooks.example.com (TMI_OPS_ALERT_URLS no. 1)", "Slack (TMI_OPS_ALERT_URLS_CRITICAL no. 1)"]


def test_a_reason_is_shown_without_what_the_address_holds() -> None:
    said = "Failed to send to hooks.example.com as user with s%40cret or s@cret at /T1JJ3T3L2"
    shown = without_secrets(said, "json://user:s%40cret@hooks.example.com/T1JJ3T3L2?key=s%40cret")
    assert shown == "Failed to send to hooks.example.com as *** with *** or *** at /***"
