"""One server process of the stack: started, awaited, stopped, never orphaned."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tmi_ops.errors import StackError
from tmi_ops.postgres.guard import Guard, guard

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
_LOG_TAIL_BYTES = 1500


@dataclass
class RunningService:
    """A process we started, with its log."""

    name: str
    process: subprocess.Popen[bytes]
    guard: Guard
    log: Path

    def stop(self) -> None:
        """Ask the process to end (SIGTERM), insist (SIGKILL) when it does not."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.guard.release()


def start_service(
    name: str,
    argv: Sequence[str | Path],
    *,
    log: Path,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = READY_TIMEOUT_S,
) -> RunningService:
    """Start a server and wait until `ready` says it answers.

    Raises:
        StackError: it ended or did not answer in time; the message carries the end of its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch(mode=0o600)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=dict(env) if env is not None else None,
            start_new_session=True,
        )
    service = RunningService(name, process, guard(process.pid), log)
    try:
        _await_ready(service, ready, timeout_s)
    except BaseException:
        service.stop()
        raise
    return service


def _await_ready(service: RunningService, ready: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if service.process.poll() is not None:
            raise StackError(
                f"{service.name} ended with exit code {service.process.returncode}: {_tail(service.log)}",
                next_step=f"read {service.log}",
            )
        if ready():
            return
        time.sleep(0.05)
    raise StackError(
        f"{service.name} did not answer within {timeout_s:.0f} s: {_tail(service.log)}",
        next_step=f"read {service.log}",
    )


def _tail(log: Path) -> str:
    return log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
