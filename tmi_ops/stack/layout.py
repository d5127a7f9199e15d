"""The stack's files and directories below TMI_OPS_HOME."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tmi_ops.private import make_directory
from tmi_ops.settings import STACK_ENV_FILE

# As root, the servers run as another user, who must be able to reach its data directories.
PASSAGE_MODE = 0o711
PRIVATE_MODE = 0o700


@dataclass(frozen=True)
class StackLayout:
    """Paths of one stack. Each server has a data directory in `root`."""

    home: Path

    @property
    def root(self) -> Path:
        return self.home / "stack"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def supervisor_lock(self) -> Path:
        return self.root / "supervisor.lock"

    @property
    def servers_lock(self) -> Path:
        return self.root / "servers.lock"

    @property
    def ports(self) -> Path:
        return self.root / "ports.json"

    @property
    def credentials(self) -> Path:
        return self.root / "credentials.json"

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def settings_file(self) -> Path:
        """The file that `load_settings` reads in development."""
        return self.home / STACK_ENV_FILE

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"

    def log(self, service: str) -> Path:
        return self.logs / f"{service}.log"

    def data(self, service: str) -> Path:
        return self.root / service

    def prepare(self) -> None:
        """Create the directories. An existing home keeps its mode."""
        passage = PASSAGE_MODE if os.geteuid() == 0 else PRIVATE_MODE
        if not self.home.exists():
            make_directory(self.home, passage)
        make_directory(self.root, passage)
        make_directory(self.logs, PRIVATE_MODE)
        make_directory(self.dagster_home, PRIVATE_MODE)
