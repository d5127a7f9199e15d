from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tmi_ops.postgres.unprivileged import NAMESPACE_UID, ServerIdentity, server_identity


@pytest.fixture
def closed_directory(tmp_path: Path) -> Path:
    """As /root is: nobody but its owner may enter."""
    directory = tmp_path / "closed"
    directory.mkdir(mode=0o700)
    return directory


def test_a_program_in_a_directory_that_only_root_may_enter_runs_in_a_user_namespace(closed_directory: Path) -> None:
    program = Path(shutil.copy("/bin/true", closed_directory / "postgres"))
    identity = server_identity(program, closed_directory)
    if os.geteuid() == 0:
        assert identity == ServerIdentity(namespace=True)
        assert f"--map-user={NAMESPACE_UID}" in identity.command([program])
    else:
        assert identity == ServerIdentity()
