"""PostgreSQL refuses to run as root; as root, its server programs run as somebody else.

Two ways, both without installing anything: as the unprivileged user `nobody`, or, where that user cannot reach the
programs or the data directory (a checkout below /root), inside a user namespace in which we are not root.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tmi_ops.errors import ProgramError

UNPRIVILEGED_USER = "nobody"
NAMESPACE_UID = 1000


@dataclass(frozen=True)
class ServerIdentity:
    """As whom server programs run: `user` of the system, in a `namespace`, or, with neither, as ourselves."""

    user: str | None = None
    namespace: bool = False

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        """The argv that runs `argv` under this identity. It keeps the process id: nothing forks in between."""
        words = [str(word) for word in argv]
        if self.namespace:
            return ["unshare", "--user", f"--map-user={NAMESPACE_UID}", "--", *words]
        return words

    def process_options(self) -> dict[str, Any]:
        """Keyword arguments for `subprocess` that go with `command`."""
        if self.user is None:
            return {}
        account = pwd.getpwnam(self.user)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def take_over(self, directory: Path) -> None:
        """Make `directory` and all below it belong to this identity."""
        if self.user is None:
            return
        account = pwd.getpwnam(self.user)
        for path in (directory, *directory.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def server_identity(program: Path, directory: Path) -> ServerIdentity:
    """Choose as whom `program` can run with its data below `directory` (an existing directory).

    Raises:
        ProgramError: we are root and no other identity reaches both.
    """
    if os.geteuid() != 0:
        return ServerIdentity()
    as_user = ServerIdentity(user=UNPRIVILEGED_USER)
    if can_run(as_user, program, directory):
        return as_user
    in_namespace = ServerIdentity(namespace=True)
    if shutil.which("unshare") and can_run(in_namespace, program, directory):
        return in_namespace
    raise ProgramError(
        f"PostgreSQL refuses to run as root, and neither the user {UNPRIVILEGED_USER!r} nor a user namespace can run "
        f"{program} with data in {directory}.",
        next_step="run as an ordinary user, or set TMI_OPS_HOME to a directory every user can enter (mode 755 all the "
        "way down)",
    )


def unprivileged_where_possible(program: Path, directory: Path) -> ServerIdentity:
    """For a server that would run as root too: another user when he reaches `program` and `directory`."""
    as_user = ServerIdentity(user=UNPRIVILEGED_USER)
    if os.geteuid() == 0 and all(_succeeds(as_user, ["test", "-x", path]) for path in (program, directory)):
        return as_user
    return ServerIdentity()


def can_run(identity: ServerIdentity, program: Path, directory: Path) -> bool:
    """Whether this identity reaches `program` and may enter `directory` (an existing one)."""
    return _succeeds(identity, [program, "--version"]) and _succeeds(identity, ["test", "-x", directory])


def _succeeds(identity: ServerIdentity, probe: Sequence[str | Path]) -> bool:
    try:
        done = subprocess.run(
            identity.command(probe), cwd="/", capture_output=True, check=False, **identity.process_options()
        )
    except PermissionError:  # the program lies below a directory that this identity may not enter
        return False
    return done.returncode == 0
