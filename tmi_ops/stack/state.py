"""The state of the running stack, written by the supervisor."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tmi_ops.stack.layout import StackLayout
from tmi_ops.stack.lock import holder
from tmi_ops.stack.ports import LOOPBACK, StackPorts

Condition = Literal["starting", "running", "restarting"]


class ServiceState(BaseModel):
    """One server: its address, its process, and how often it was restarted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    purpose: str
    address: str
    log: Path
    condition: Condition = "starting"
    pid: int | None = None
    restarts: int = 0


class StackState(BaseModel):
    """The stack while its supervisor is running."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    supervisor_pid: int
    started_at: datetime
    with_dagster: bool
    ready: bool
    ports: StackPorts
    services: tuple[ServiceState, ...]

    @property
    def ui_url(self) -> str | None:
        """The URL of Dagster's UI; None if the stack runs without Dagster."""
        return f"http://{LOOPBACK}:{self.ports.ui}" if self.with_dagster else None


def stack_is_running(home: Path) -> StackState | None:
    """The stack below `home`, also while it is starting (`ready` is False); None if no supervisor is running."""
    layout = StackLayout(home)
    pid = holder(layout.supervisor_lock)
    if pid is None:
        return None
    try:
        state = StackState.model_validate_json(layout.state.read_text())
    except (FileNotFoundError, ValidationError):
        return None
    return state if state.supervisor_pid == pid else None
