"""Why a stack that was started in the background did not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tmi_ops.errors import StackError
from tmi_ops.stack.background import _log, _why_it_ended


def test_the_error_that_the_supervisor_logged_is_the_one_that_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _log("the stack is up")
    for line in StackError("Port 8333 is taken.", hint="stop what listens there").lines:
        _log(line)
    log = tmp_path / "supervisor.log"
    log.write_text(capsys.readouterr().out)
    shown = _why_it_ended(log, 0)
    assert shown.message == "The stack did not start: Port 8333 is taken."
    assert shown.hint == "Stop what listens there."


def test_without_an_error_the_end_of_the_log_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "supervisor.log"
    log.write_text("Traceback\nKeyError: 'port'\n")
    assert "KeyError: 'port'" in _why_it_ended(log, 0).message
    assert "logged nothing" in _why_it_ended(tmp_path / "none", 0).message
