"""Starts and stops one server process of the stack; it never outlives us."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tmi_ops.error_codes import Code
from tmi_ops.errors import StackError
from tmi_ops.postgres.guard import Guard, guard
from tmi_ops.postgres.unprivileged import ServerIdentity
from tmi_ops.private import open_log

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
# The group includes what the server itself started: Dagster's code servers and run workers.
GROUP_STOP_TIMEOUT_S = 10.0
_LOG_TAIL_BYTES = 1500


@dataclass
class RunningService:
    """A process that we started, leader of its own process group, with its log."""

    name: str
    process: subprocess.Popen[bytes]
    guard: Guard
    log: Path

    def stop(self) -> None:
        """End the process and its children: SIGTERM, then SIGKILL."""
        self._signal_group(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_TIMEOUT_S)
            self._await_group()
        self._signal_group(signal.SIGKILL)
        self.process.wait()
        self.guard.release()

    def _await_group(self) -> None:
        deadline = time.monotonic() + GROUP_STOP_TIMEOUT_S
        while self._signal_group(0) and time.monotonic() < deadline:
            time.sleep(0.05)

    def _signal_group(self, number: int) -> bool:
        """Whether the group still has processes."""
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def start_service(
    name: str,
    argv: Sequence[str | Path],
    *,
    log: Path,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = READY_TIMEOUT_S,
    identity: ServerIdentity | None = None,
    inherit: Sequence[int] = (),
    poll_s: float = 0.05,
) -> RunningService:
    """Start a server and wait until `ready` returns True.

    Args:
        env: its environment; None: ours.
        identity: the account it runs as; None: ours.
        inherit: file descriptors that it keeps open, such as a lock that must last as long as it does.
        poll_s: seconds between calls of `ready`.

    Raises:
        StackError: it ended or did not answer in time; the message has the end of its log.
    """
    identity = identity or ServerIdentity()
    with open_log(log) as output:
        process = subprocess.Popen(
            identity.command(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=dict(env) if env is not None else None,
            start_new_session=True,
            pass_fds=inherit,
            **identity.process_options(),
        )
    service = RunningService(name, process, guard(process.pid), log)
    try:
        _await_ready(service, ready, timeout_s, poll_s)
    except BaseException:
        service.stop()
        raise
    return service


def _await_ready(service: RunningService, ready: Callable[[], bool], timeout_s: float, poll_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if service.process.poll() is not None:
            raise StackError(
                f"{service.name} ended with exit code {service.process.returncode}: {_tail(service.log)}",
                hint=f"read {service.log}",
                code=Code.STACK_SERVER_FAILED,
            )
        if ready():
            return
        time.sleep(poll_s)
    raise StackError(
        f"{service.name} did not answer within {timeout_s:.0f} s: {_tail(service.log)}",
        hint=f"read {service.log}",
        code=Code.STACK_SERVER_FAILED,
    )


def _tail(log: Path) -> str:
    return log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
