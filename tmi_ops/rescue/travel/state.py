"""How an open past is found and asked to move: files below TMI_OPS_HOME that its process writes and watches."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.connections import socket_uri
from tmi_ops.private import held_alone, write_durably
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.settings import Settings

FOLDER = "travel"
MODE = 0o600
_STATE, _REQUEST, _LOCK = "state.json", "request.json", "lock"


class Wanted(BaseModel):
    """A requested target; `number` identifies the request."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    number: str = ""
    time: AwareDatetime | None = None
    lsn: int | None = None
    name: str | None = None
    inclusive: bool = True

    @property
    def target(self) -> Target:
        return Target(self.time, self.lsn, self.name, self.inclusive)

    @classmethod
    def of(cls, target: Target) -> Wanted:
        number = secrets.token_hex(4)
        return cls(number=number, time=target.time, lsn=target.lsn, name=target.name, inclusive=target.inclusive)


class OpenPast(BaseModel):
    """An open past.

    Args:
        base: the base backup that it was restored from; `cluster`: its system identifier.
        stands_at: time of its last commit; None if there is none after the base backup.
        named_at: time of the requested restore point; None if the target is none, or the time is unknown.
        host, user, database: how to connect; host is a socket directory.
        twin: whether a copy of the files before the replay is kept.
        moving: it is being moved to another moment.
        answered: the last answered request; `refused`: why it was refused, and the remedy.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: Literal[1] = 1
    cluster: str
    base: str
    wanted: Wanted
    stands_at: AwareDatetime | None = None
    named_at: AwareDatetime | None = None
    host: str
    port: int
    user: str
    database: str
    expires_at: AwareDatetime
    twin: bool
    moving: bool = False
    answered: str = ""
    refused: tuple[str, str] = ("", "")

    @property
    def connection_string(self) -> str:
        """For psql and other libpq clients. Contains no secret: only our account can use the socket."""
        return socket_uri(self.host, self.port, self.user, self.database)

    @property
    def moment(self) -> datetime | None:
        """The time from which `--forward` and `--back` count."""
        return self.wanted.time or self.named_at or self.stands_at


def place(settings: Settings) -> Path:
    return settings.home / FOLDER


@contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Allow one open past at a time; the lock ends with the process.

    Raises:
        RecoveryError: one is open.
    """
    refusal = RecoveryError(
        "A past is already open.",
        hint="move it (`tmi-ops travel --forward 5m`, `--back 5m` or `--to-time T`), or close it: "
        "`tmi-ops travel --end`",
        code=Code.TRAVEL_OPEN,
    )
    with held_alone(place(settings) / _LOCK, refusal):
        yield


def is_open(settings: Settings) -> bool:
    """Whether a process holds a past open."""
    try:
        with only_one(settings):
            return False
    except RecoveryError:
        return True


def write_open_past(settings: Settings, open_past: OpenPast) -> None:
    write_durably(place(settings) / _STATE, open_past.model_dump_json(indent=2).encode() + b"\n", MODE)


def read_open_past(settings: Settings) -> OpenPast:
    """The open past.

    Raises:
        RecoveryError: there is none.
    """
    none = RecoveryError(
        "No past is open.", hint="open one: `tmi-ops travel --to-time '1h ago'`", code=Code.TRAVEL_NOT_OPEN
    )
    if not is_open(settings):
        raise none
    try:
        return OpenPast.model_validate_json((place(settings) / _STATE).read_bytes())
    except (FileNotFoundError, ValidationError):
        raise RecoveryError(
            "The past is still being opened.",
            hint="see the terminal that opens it",
            transient=True,
        ) from None


def ask(settings: Settings, wanted: Wanted | None) -> None:
    """Ask the process that holds the past open to move it; None: to close it."""
    data = wanted.model_dump_json().encode() if wanted else b"null"
    write_durably(place(settings) / _REQUEST, data, MODE)


def asked(settings: Settings) -> tuple[bool, Wanted | None]:
    """Whether there is a request, and for which moment; each request is returned once."""
    file = place(settings) / _REQUEST
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return False, None
    file.unlink(missing_ok=True)
    try:
        return True, None if data == b"null" else Wanted.model_validate_json(data)
    except ValidationError:
        return False, None
