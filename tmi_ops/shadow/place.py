"""A shadow's files below TMI_OPS_HOME, and how other processes find it and send it requests."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.connections import socket_uri
from tmi_ops.private import held_alone, write_durably
from tmi_ops.recovery.point_in_time.destination import Destination
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.shadow.report import ShadowReport

FOLDER = "shadow"
LOOK_EVERY_S = 0.1
_STATE, _REPORT, _REQUEST, _ANSWER, _LOCK = "state.json", "report.json", "request.json", "answer.json", "lock"
_PRACTICE = "practice.json"
LONGEST_SOCKET = 107 - len("/.s.PGSQL.65535")  # source: sockaddr_un, unix(7)


class Seed(BaseModel):
    """Where the shadow's files came from, and the timeline they were replayed along.

    Args:
        role: its superuser or, if `superuser` is False, the role that took the backup.
        restore_s: how long it took to restore the files.
        made_in_place: oids of tablespaces that the WAL created, as directories in pg_tblspc.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: Literal[1] = 1
    system_identifier: str
    backup_id: str
    stop_lsn: str
    major: int
    wal_segment_size: int
    role: str
    superuser: bool
    data_checksums: bool
    timeline: int
    restore_s: float = 0.0
    made_in_place: tuple[int, ...] = ()


class Reachable(BaseModel):
    """How to connect to a shadow's server on this machine: a socket directory that only our own account can enter."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str
    port: int
    user: str
    database: str
    options: str = ""

    @property
    def address(self) -> PostgresSettings:
        return PostgresSettings(
            host=self.host,
            port=self.port,
            user=self.user,
            database=self.database,
            sslmode="disable",
            options=self.options,
        )

    @property
    def connection_string(self) -> str:
        """For psql; contains no secrets."""
        return socket_uri(self.host, self.port, self.user, self.database)


class LocalState(BaseModel):
    """The newest report, more recent than in the store, and how to connect to the server (None: it is not running)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    report: ShadowReport
    reachable: Reachable | None = None


class Practice(BaseModel):
    """A measured promotion of a copy. `promote_s`: the promotion; `answered_s`: until the copy had answered."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: AwareDatetime
    promote_s: float
    answered_s: float


class Request(BaseModel):
    """A request to the process that runs a shadow.

    `hand over`: replay all archived WAL, promote, stop, and move the files to `into`; then the process ends.
    `copy`: copy the files, in their current state, to `into`, and continue.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, serialize_by_alias=True)

    number: str
    action: Literal["hand over", "copy"] = Field(alias="wish")
    into: str


class HandedOver(BaseModel):
    """A shadow's cluster, promoted, stopped and synced to disk.

    Args:
        whole: all archived WAL was replayed; else `why` says what stopped the replay at `lsn`.
        waited_s: from the request until it was promoted; `promoted_s`: the promotion alone.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    seed: Seed
    report: ShadowReport
    lsn: str
    timeline: int
    whole: bool
    why: str = ""
    waited_s: float = 0.0
    promoted_s: float = 0.0


class Reply(BaseModel):
    """The reply to a request. `error` and `hint`: why it failed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    number: str
    error: str = ""
    hint: str = ""
    seed: Seed | None = None
    handed_over: HandedOver | None = None


def place(settings: Settings) -> Path:
    return settings.home / FOLDER


def destination_of(settings: Settings) -> Destination:
    """The location of the shadow's files."""
    return destination_in(place(settings))


def destination_in(directory: Path) -> Destination:
    return Destination(directory / "data", tablespace_root=directory / "tablespaces")


@contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Hold the lock of the shadow in this TMI_OPS_HOME; it is released when the process ends, however it ends.

    Raises:
        RecoveryError: another process holds it.
    """
    refusal = RecoveryError(
        f"Another process runs the shadow in {place(settings)}.",
        hint="see what it does with `tmi-ops shadow status`; a second shadow needs its own TMI_OPS_HOME and --name",
        code=Code.SHADOW_RUNNING,
        transient=True,
    )
    with held_alone(place(settings) / _LOCK, refusal):
        yield


def is_running(settings: Settings) -> bool:
    """Whether a process runs the shadow."""
    if not (place(settings) / _LOCK).exists():
        return False
    try:
        with only_one(settings):
            return False
    except RecoveryError:
        return True


def stable_socket(directory: Path, socket: Path) -> str:
    """A path to the socket's directory that stays the same over restarts, unless it is too long for a socket."""
    link = directory / "socket"
    if len(os.fsencode(link)) > LONGEST_SOCKET:
        return str(socket)
    link.unlink(missing_ok=True)
    link.symlink_to(socket)
    return str(link)


def write_seed(settings: Settings, seed: Seed | None) -> None:
    """Record where the files came from; None: there are no usable files."""
    file = place(settings) / _STATE
    if seed is None:
        file.unlink(missing_ok=True)
    else:
        write_durably(file, seed.model_dump_json(indent=1).encode() + b"\n")


def read_seed(settings: Settings) -> Seed | None:
    """None if there are no files that a server could be started on."""
    try:
        seed = Seed.model_validate_json((place(settings) / _STATE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return seed if (destination_of(settings).directory / "PG_VERSION").exists() else None


def write_local(settings: Settings, state: LocalState) -> None:
    """Replace the local report. Not synced to disk: it is written every second, and useless after a crash."""
    file = place(settings) / _REPORT
    temporary = file.with_name(f".{_REPORT}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        output.write(state.model_dump_json().encode())
    temporary.replace(file)


def read_local(settings: Settings) -> LocalState | None:
    """The last report of this machine's shadow, whether it is still running or not."""
    try:
        return LocalState.model_validate_json((place(settings) / _REPORT).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_practice(settings: Settings, practice: Practice) -> None:
    """Store the measurement for the shadow's reports."""
    write_durably(place(settings) / _PRACTICE, practice.model_dump_json().encode())


def read_practice(settings: Settings) -> Practice | None:
    """The newest measurement on this machine, or None."""
    try:
        return Practice.model_validate_json((place(settings) / _PRACTICE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def asked(settings: Settings) -> Request | None:
    """Take the open request, if any; each is taken once."""
    file = place(settings) / _REQUEST
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return None
    file.unlink(missing_ok=True)
    try:
        return Request.model_validate_json(data)
    except ValidationError:
        return None


def forget_requests(settings: Settings) -> None:
    """Drop requests to an earlier process."""
    for name in (_REQUEST, _ANSWER):
        (place(settings) / name).unlink(missing_ok=True)


def answer(settings: Settings, reply: Reply) -> None:
    write_durably(place(settings) / _ANSWER, reply.model_dump_json().encode())


def ask(settings: Settings, action: Literal["hand over", "copy"], into: Path, patience_s: float) -> Reply:
    """Send a request to the process that runs the shadow, and wait for the reply.

    Raises:
        RecoveryError: it refuses, ends before it replies, or takes longer than `patience_s`.
    """
    request = Request(number=secrets.token_hex(4), action=action, into=str(into))
    write_durably(place(settings) / _REQUEST, request.model_dump_json().encode())
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        reply = _answered(settings, request.number)
        if reply is None and not is_running(settings):
            reply = _answered(settings, request.number)
            if reply is None:
                raise RecoveryError(
                    "The process that runs the shadow ended before it replied.",
                    hint="try again; `tmi-ops shadow status` shows its state",
                    code=Code.SHADOW_FAILED,
                    transient=True,
                )
        if reply is not None:
            if reply.error:
                raise RecoveryError(reply.error, detail="The shadow continues as before.", hint=reply.hint)
            return reply
        time.sleep(LOOK_EVERY_S)
    raise RecoveryError(
        f"The shadow did not reply within {patience_s:.0f} s.",
        hint="see what it does: `tmi-ops shadow status`",
        code=Code.SHADOW_FAILED,
        transient=True,
    )


def _answered(settings: Settings, number: str) -> Reply | None:
    try:
        reply = Reply.model_validate_json((place(settings) / _ANSWER).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return reply if reply.number == number else None
