"""Runs PostgreSQL's server programs as another user if we are root, because PostgreSQL refuses to run as root.

Four ways, without installing anything (unshare, mount and setpriv are part of Debian):

1. as the user `postgres`; if there is none, as `nobody`;
2. if that user cannot reach the programs or the data directory (a checkout below /root), as the same user in a mount
   namespace (mount_namespaces(7)) in which the closed directories contain only these two: for clusters into which
   foreign dumps are loaded, which need nothing else;
3. if that is forbidden, in a user namespace in which we are not root;
4. if namespaces are forbidden too (most containers), as that user with one of root's capabilities: to pass closed
   directories (CAP_DAC_OVERRIDE, see capabilities(7)).

With the last two, code that runs in the server can write root's files.
"""

from __future__ import annotations

import errno
import os
import pwd
import secrets
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tmi_ops.errors import ProgramError

NOBODY = "nobody"
NAMESPACE_UID = 1000
_PASS_CLOSED_DIRECTORIES = (
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
    "--securebits=+no_setuid_fixup",  # access(2) would ignore the capability
)


def _known(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


# The user of PostgreSQL's server programs if we are root.
SERVER_USER = "postgres" if _known("postgres") else NOBODY
# $1 and $2: closed directories, maybe the same; $3 and $4: what must be reachable below them; then the command. The
# latter two are held open while the closed directories are covered by empty ones, and bind-mounted into these.
_OPEN_A_WAY = """
exec 3<"$3" 4<"$4"
mount -t tmpfs -o mode=755 tmpfs "$1"
[ "$2" = "$1" ] || mount -t tmpfs -o mode=755 tmpfs "$2"
(umask 022; mkdir -p "$3" "$4")
mount -c --bind /proc/self/fd/3 "$3"
mount -c --bind /proc/self/fd/4 "$4"
exec 3<&- 4<&-
shift 4
exec "$@"
"""


@dataclass(frozen=True)
class ServerIdentity:
    """The account of server programs: a system `user`, a user `namespace`, or, with neither, our own.

    `passes_closed_directories`: the user may enter directories that only root may. `network`: False if it has none.
    `opened`: the programs and the data directory, made reachable through closed directories.
    """

    user: str | None = None
    namespace: bool = False
    passes_closed_directories: bool = False
    network: bool = True
    opened: tuple[Path, ...] = ()

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        """The argv that runs `argv` with this identity. The process id stays the same: nothing forks in between."""
        words = [str(word) for word in argv]
        if self.namespace:
            net = () if self.network else ("--net",)
            return ["unshare", "--user", *net, f"--map-user={NAMESPACE_UID}", "--", *words]
        if self.user is not None and self._becomes_it_itself:
            account = pwd.getpwnam(self.user)
            ids = (f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups")
            closed = _PASS_CLOSED_DIRECTORIES if self.passes_closed_directories else ()
            words = ["setpriv", *ids, *closed, "--", *words]
        net = () if self.network else ("--net",)
        gates = list(dict.fromkeys(gate for path in self.opened if (gate := closed_gate(path, self.user))))
        if gates:
            places = (gates[0], gates[-1], *self.opened)
            return ["unshare", "--mount", *net, "--", "sh", "-e", "-c", _OPEN_A_WAY, "sh", *map(str, places), *words]
        return words if self.network else ["unshare", *net, "--", *words]

    @property
    def _becomes_it_itself(self) -> bool:
        """Whether the command itself changes the user, because something before that needs root."""
        return self.passes_closed_directories or not self.network or bool(self.opened)

    def process_options(self) -> dict[str, Any]:
        """Keyword arguments of `subprocess` for `command`."""
        if self.user is None or self._becomes_it_itself:
            return {}
        account = pwd.getpwnam(self.user)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def take_over(self, directory: Path) -> None:
        """Make this identity own `directory` and everything below it. Nothing to do for an ordinary user."""
        if self.user is None and not self.namespace:
            return
        account = pwd.getpwnam(self.user) if self.user else pwd.getpwuid(os.geteuid())
        os.chown(directory, account.pw_uid, account.pw_gid, follow_symlinks=False)
        if not directory.is_dir() or directory.is_symlink():
            return
        # By descriptors: the account may replace its own files by links while we walk.
        for _, directories, files, held in os.fwalk(directory, follow_symlinks=False):
            for name in (*directories, *files):
                with suppress(FileNotFoundError):
                    os.chown(name, account.pw_uid, account.pw_gid, dir_fd=held, follow_symlinks=False)

    def write(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """Write a file owned by this identity atomically, in a directory that the identity may write itself.

        Code of a database may have run as this identity, and we are root, so links there are not followed.

        Raises:
            ProgramError: a directory of the path is a link that the identity may have created.
            OSError: it cannot be written.
        """
        held = self._opened(path.parent)
        try:
            beside = f".{path.name}-{secrets.token_hex(4)}"
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode, dir_fd=held)
            try:
                with os.fdopen(descriptor, "wb") as output:
                    output.write(data)
                    if self.user is not None:
                        account = pwd.getpwnam(self.user)
                        os.fchown(output.fileno(), account.pw_uid, account.pw_gid)
                    os.fchmod(output.fileno(), mode)
                os.rename(beside, path.name, src_dir_fd=held, dst_dir_fd=held)
            except BaseException:
                os.unlink(beside, dir_fd=held)
                raise
        finally:
            os.close(held)

    def _opened(self, directory: Path) -> int:
        """A descriptor of a directory; links are followed only if this identity cannot have created them."""
        if self.user is None:
            return os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        own = pwd.getpwnam(self.user).pw_uid
        held = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        for part in directory.absolute().parts[1:]:
            follow = 0 if os.fstat(held).st_uid != own else os.O_NOFOLLOW
            try:
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | follow, dir_fd=held)
            except OSError as error:
                if follow and error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise ProgramError(
                        f"{part} in {directory} is a link that {self.user} may have created: not written as root.",
                        hint="name the directory that it points to, or run this as that user",
                    ) from None
                raise
            finally:
                os.close(held)
            held = below
        return held

    def let_read(self, path: Path) -> None:
        """Let this identity read, but not change, `path` and everything below it."""
        if self.user is None:
            return
        group = pwd.getpwnam(self.user).pw_gid
        for each in (path, *(path.rglob("*") if path.is_dir() else ())):
            os.chown(each, -1, group, follow_symlinks=False)
            if not each.is_symlink():
                each.chmod(0o750 if each.is_dir() else 0o640)


def server_identity(program: Path, directory: Path, *, confined: bool = False) -> ServerIdentity:
    """Choose the account with which `program` can run with data below `directory` (an existing directory).

    Args:
        confined: foreign code will run in it, and it needs nothing else: if it must pass a closed directory, it sees
            only these two there.

    Raises:
        ProgramError: we are root and no other identity can reach both.
    """
    if os.geteuid() != 0:
        return ServerIdentity()
    for identity in (
        ServerIdentity(user=SERVER_USER),
        *([ServerIdentity(user=SERVER_USER, opened=(installation_of(program), directory))] if confined else []),
        ServerIdentity(namespace=True),
        ServerIdentity(user=SERVER_USER, passes_closed_directories=True),
    ):
        if can_run(identity, program, directory):
            return identity
    raise ProgramError(
        f"PostgreSQL refuses to run as root, and neither the user {SERVER_USER!r} nor a user namespace can run "
        f"{program} with data in {directory}.",
        hint="run as an ordinary user, or set TMI_OPS_HOME to a directory that every user can enter (mode 755, "
        "including its parents)",
    )


def installation_of(program: Path) -> Path:
    """The directory that a program needs: its own, or the parent of its bin/, lib/ and share/."""
    directory = program.resolve().parent
    return directory.parent if directory.name == "bin" else directory


def closed_gate(path: Path, user: str | None) -> Path | None:
    """The topmost directory above `path` that this user may not enter; None: there is none."""
    account = pwd.getpwnam(user) if user else None
    for place in reversed(path.parents):
        state = place.stat()
        owned = account is not None and state.st_uid == account.pw_uid
        grouped = account is not None and state.st_gid == account.pw_gid
        if not state.st_mode & (0o100 if owned else 0o010 if grouped else 0o001):
            return place
    return None


def loading_identity(program: Path, directory: Path, *, needed: Sequence[Path], network: bool) -> ServerIdentity:
    """The account with which `program`, a client, reads `directory`; gives it the right to do so.

    Args:
        needed: files of the operator that it must be able to read; if it cannot, it runs as the operator.
        network: whether it needs a network; otherwise it gets none if the kernel allows that.

    Raises:
        ProgramError: as for a server.
    """
    if os.geteuid() != 0:
        return ServerIdentity()
    # First, so that the account is chosen by the path to the dump. If a directory above is closed, the account sees
    # nothing but the dump there.
    ServerIdentity(user=SERVER_USER).let_read(directory)
    try:
        identity = server_identity(program, directory, confined=True)
    except ProgramError:  # a client, unlike a server, may run as root
        return ServerIdentity()
    if not all(_succeeds(identity, ["test", "-r", file]) for file in needed):
        return ServerIdentity()
    return identity if network else without_network(identity, program)


def without_network(identity: ServerIdentity, program: Path) -> ServerIdentity:
    """The same identity without a network, if we are root and the kernel allows that."""
    alone = replace(identity, network=False)
    return alone if os.geteuid() == 0 and _succeeds(alone, [program, "--version"]) else identity


def unprivileged_where_possible(program: Path, directory: Path) -> ServerIdentity:
    """For a server that could run as root: another user, if it can reach `program` and `directory`."""
    as_user = ServerIdentity(user=NOBODY)
    if os.geteuid() == 0 and all(_succeeds(as_user, ["test", "-x", path]) for path in (program, directory)):
        return as_user
    return ServerIdentity()


def can_run(identity: ServerIdentity, program: Path, directory: Path) -> bool:
    """Whether this identity can run `program` and enter `directory` (an existing one)."""
    return _succeeds(identity, [program, "--version"]) and _succeeds(identity, ["test", "-x", directory])


def _succeeds(identity: ServerIdentity, probe: Sequence[str | Path]) -> bool:
    try:
        done = subprocess.run(
            identity.command(probe), cwd="/", capture_output=True, check=False, **identity.process_options()
        )
    except (PermissionError, FileNotFoundError):  # it may not enter a directory; unshare or setpriv is not installed
        return False
    return done.returncode == 0
