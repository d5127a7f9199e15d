"""Hooks and the health URL: what they are told, and what becomes of their failures."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError, SettingsError
from tmi_ops.runbooks.application import Application, await_health, read_application, run_hook


@pytest.fixture
def url() -> Iterator[str]:
    """An application that is well from the third time on that it is asked."""
    answers = iter([503, 503])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(next(answers, 200))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/health"
        server.shutdown()


def test_a_hook_is_told_by_its_environment_and_its_last_words_are_kept(tmp_path: Path) -> None:
    hook = f"echo $POSTGRES_PASSWORD > {tmp_path}/told; echo one; echo two"
    application = Application(hooks={"connect": hook})
    assert run_hook(application, "connect", {"POSTGRES_PASSWORD": "secret"}) == "two"
    assert (tmp_path / "told").read_text() == "secret\n"
    assert run_hook(application, "stop", {}) is None
    assert "secret" not in repr(application)
    assert hook not in repr(application)


def test_a_hook_that_fails_says_which_and_why() -> None:
    with pytest.raises(RecoveryError, match=r"The stop hook exited with 3: no such service\.") as failed:
        run_hook(Application(hooks={"stop": "echo no such service >&2; exit 3"}), "stop", {})
    assert "TMI_OPS_STOP_HOOK" in failed.value.hint


def test_the_application_is_asked_until_it_is_well(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tmi_ops.runbooks.application._ASK_EVERY_S", 0.01)
    assert await_health(url) > 0


def test_an_application_that_is_never_well_is_an_error_with_its_last_answer(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setattr("tmi_ops.runbooks.application._ASK_EVERY_S", 0.01)
    with pytest.raises(RecoveryError, match="it answers 503") as unhealthy:
        await_health(url, within_s=0)
    assert unhealthy.value.code is Code.APPLICATION_UNHEALTHY
    with pytest.raises(RecoveryError, match="it does not answer"):
        await_health("http://127.0.0.1:1/", within_s=0)


def test_roles_and_hooks_come_from_the_environment_and_a_wrong_url_is_refused() -> None:
    told = read_application({"TMI_OPS_APP_ROLE": "tmi_app, tmi_worker", "TMI_OPS_START_HOOK": "true"})
    assert told.roles == ("tmi_app", "tmi_worker")
    assert dict(told.hooks) == {"start": "true"}
    with pytest.raises(SettingsError, match="TMI_OPS_APP_HEALTH_URL"):
        read_application({"TMI_OPS_APP_HEALTH_URL": "file:///etc/passwd"})
