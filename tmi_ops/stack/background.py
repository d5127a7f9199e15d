"""The stack in the background: start it, stop it, destroy it.

`python -m tmi_ops.stack.background HOME` is the background supervisor.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from tmi_ops.error_codes import Code
from tmi_ops.errors import OpsError, StackError
from tmi_ops.private import open_log
from tmi_ops.progress import Report, SilentReport
from tmi_ops.settings import load_settings
from tmi_ops.stack.layout import StackLayout
from tmi_ops.stack.lock import holder
from tmi_ops.stack.orphans import take_servers_lock
from tmi_ops.stack.services import POSTGRES
from tmi_ops.stack.state import StackState, stack_is_running
from tmi_ops.stack.supervisor import AlreadyRunningError, stop_on_signals, supervised_stack

SUPERVISOR = "supervisor"
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 90.0
POLL_S = 0.1
ALREADY_RUNNING = 3
# As `_supervise` logs it, behind date and time.
_ERROR_LINE = re.compile(r"^\S+ \S+ (ERROR|HINT): (?:\[TMI-\d+\] )?(.+)$", re.MULTILINE)


def start_stack_in_background(home: Path, report: Report, with_dagster: bool = True) -> StackState:
    """Start the stack below `home` and return when all its servers answer. Returns a stack that is already running.

    Raises:
        StackError: it did not start; the message has the supervisor's error.
    """
    layout = StackLayout(home)
    layout.prepare()
    running = stack_is_running(home)
    if running is not None and running.ready:
        return running
    log = layout.log(SUPERVISOR)
    said_before = log.stat().st_size if log.exists() else 0
    with open_log(log) as output:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "tmi_ops.stack.background", str(home), *([] if with_dagster else ["--no-dagster"])],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    with report.phase("embedded stack", unit="steps") as phase:
        answering = 0
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            state = stack_is_running(home)
            if state is not None:
                now = sum(service.condition == "running" for service in state.services)
                phase.advance(now - answering)
                answering = now
                if state.ready and (state.supervisor_pid == supervisor.pid or supervisor.poll() is not None):
                    return state
            if supervisor.poll() is not None and supervisor.returncode != ALREADY_RUNNING:
                raise _why_it_ended(log, said_before)
            time.sleep(POLL_S)
    supervisor.terminate()
    raise StackError(
        f"The stack did not start within {START_TIMEOUT_S:.0f} s.",
        hint=f"read {layout.logs}",
        code=Code.STACK_SERVER_FAILED,
    )


def stop_stack(home: Path) -> bool:
    """Stop the stack below `home` cleanly; its data is kept. Returns False if none was running.

    Raises:
        StackError: it did not stop in time.
    """
    layout = StackLayout(home)
    pid = holder(layout.supervisor_lock)
    if pid:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    if not _await(lambda: holder(layout.supervisor_lock) is None):
        raise StackError(
            f"The stack did not stop within {STOP_TIMEOUT_S:.0f} s (supervisor: process {pid}).",
            detail="Its servers may still be running; nothing was killed.",
            hint=f"read {layout.logs}, then try again",
            code=Code.STACK_NOT_STOPPED,
        )
    if layout.servers_lock.exists():
        take_servers_lock(layout).close()
    if pid:
        _await(lambda: _has_ended(pid))  # the lock is free a moment before its holder has ended
    return pid is not None


def destroy_stack(home: Path, *, database_only: bool = False) -> bool:
    """Stop the stack and remove its data: only TMI's database, or everything including backups.

    Returns:
        Whether it was running.

    Raises:
        StackError: it did not stop; nothing was removed.
    """
    layout = StackLayout(home)
    was_running = stop_stack(home)
    if database_only:
        shutil.rmtree(layout.data(POSTGRES), ignore_errors=True)
        return was_running
    for directory in (layout.root, layout.dagster_home):
        shutil.rmtree(directory, ignore_errors=True)
    layout.settings_file.unlink(missing_ok=True)
    return was_running


def _has_ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state == "Z"


def _await(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _why_it_ended(log: Path, offset: int) -> StackError:
    """The error that the supervisor logged, or the last lines of its log, such as a traceback's."""
    said = log.read_bytes()[offset:].decode(errors="replace") if log.exists() else ""
    errors = dict(_ERROR_LINE.findall(said))
    last_messages = " ".join(said.strip().splitlines()[-3:]) or "its supervisor logged nothing."
    return StackError(
        f"The stack did not start: {errors.get('ERROR', last_messages)}",
        detail="Its data is unchanged.",
        hint=errors.get("HINT", f"read {log.parent}"),
        code=Code.STACK_SERVER_FAILED,
    )


def _supervise(home: Path, *, with_dagster: bool) -> int:
    """Run the background supervisor; its output is its log."""
    try:
        with (
            stop_on_signals() as stop,
            supervised_stack(home, pg_bindir=load_settings().pg_bindir, with_dagster=with_dagster, stop=stop) as stack,
        ):
            try:
                stack.start(SilentReport())
                _log("the stack is up")
                stack.watch(_log)
            finally:
                stack.stop(SilentReport())
                _log("the stack is down")
    except AlreadyRunningError as error:
        _log(str(error))
        return ALREADY_RUNNING
    except OpsError as error:
        for line in error.lines:
            _log(line)
        return error.exit_code
    return 0


def _log(message: str) -> None:
    print(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S%z} {message}", flush=True)


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tmi_ops.stack.background")
    parser.add_argument("home", type=Path)
    parser.add_argument("--no-dagster", action="store_true")
    options = parser.parse_args()
    return _supervise(options.home, with_dagster=not options.no_dagster)


if __name__ == "__main__":
    sys.exit(_main())
