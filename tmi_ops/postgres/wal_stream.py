"""The WAL streaming part of the replication protocol: slots, START_REPLICATION, its messages, and timelines.

Messages are pure functions from bytes to facts; `ReplicationConnection` moves the bytes. LSNs are ints (see
`wal_files.py`).

Source: https://www.postgresql.org/docs/current/protocol-replication.html
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.replication import (
    ReplicationConnection,
    ReplicationError,
    connect_replication,
    quote_name,
)
from tmi_ops.postgres.sizes import shown_size
from tmi_ops.postgres.wal_files import format_lsn, parse_lsn
from tmi_ops.settings import PostgresSettings

# SQLSTATEs of a server that refuses to stream.
# The WAL file is absent, or was removed while the server looked for it.
WAL_REMOVED = ("58P01", "XX000")
SLOT_IN_USE = "55006"
SLOT_EXISTS = "42710"
_ANSWER_WITHIN_S = 30.0

_DATA = struct.Struct("!QQq")
_KEEPALIVE = struct.Struct("!QqB")
_STATUS = struct.Struct("!cQQQqB")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class WalData:
    """WAL bytes from LSN `start` on; the server had flushed up to `server_end` when it sent them, at `sent_at`."""

    start: int
    server_end: int
    sent_at: datetime
    content: memoryview


@dataclass(frozen=True)
class Keepalive:
    """The server had sent everything up to `server_end` at `sent_at`; it may request an immediate reply."""

    server_end: int
    sent_at: datetime
    reply_requested: bool


@dataclass(frozen=True)
class SystemIdentity:
    """The server's identity and WAL position: `flushed` on its current `timeline`."""

    system_identifier: str
    timeline: int
    flushed: int


def parse_message(message: memoryview | bytes) -> WalData | Keepalive:
    """Read one CopyData message of a WAL stream.

    Raises:
        DatabaseError: the message is not known.
    """
    view = memoryview(message)
    kind = bytes(view[:1])
    if kind == b"w" and len(view) > _DATA.size:
        start, server_end, clock = _DATA.unpack_from(view, 1)
        return WalData(start, server_end, _time(clock), view[1 + _DATA.size :])
    if kind == b"k" and len(view) == 1 + _KEEPALIVE.size:
        server_end, clock, reply = _KEEPALIVE.unpack_from(view, 1)
        return Keepalive(server_end, _time(clock), bool(reply))
    raise DatabaseError(
        f"The server sent an unknown message in a WAL stream: {bytes(view[:20])!r}.",
        hint="check whether this release of tmi-ops supports the server's version",
    )


def standby_status(durable: int, now: datetime, *, reply_requested: bool = False) -> bytes:
    """The feedback message: everything before LSN `durable` is durable here; 0 reports nothing.

    With `reply_requested` the server answers at once with a `Keepalive`: its position and its clock.

    `durable` is reported as `write` and `flush`, so that with no setting of synchronous_commit a commit returns before
    its WAL is durable. Nothing is applied here, so `apply` stays 0 and `remote_apply` is never satisfied.
    """
    clock = int((now - _EPOCH).total_seconds() * 1_000_000)
    return _STATUS.pack(b"r", durable, durable, 0, clock, int(reply_requested))


def identify(connection: ReplicationConnection) -> SystemIdentity:
    """Run IDENTIFY_SYSTEM.

    Raises:
        ReplicationError: it refused, or the connection broke.
    """
    row = connection.query("IDENTIFY_SYSTEM")[0]
    return SystemIdentity(str(row["systemid"]), int(str(row["timeline"])), parse_lsn(str(row["xlogpos"])))


def show(connection: ReplicationConnection, setting: str) -> str:
    """A setting as SHOW prints it."""
    return next(iter(connection.query(f"SHOW {setting}")[0].values())) or ""


def segment_size(connection: ReplicationConnection) -> int:
    """The server's wal_segment_size in bytes."""
    return shown_size(show(connection, "wal_segment_size"))


def timeline_history(connection: ReplicationConnection, timeline: int) -> bytes:
    """The content of a timeline's `.history` file.

    Raises:
        ReplicationError: the server does not have it (SQLSTATE 58P01), or the connection broke.
    """
    row = connection.query(f"TIMELINE_HISTORY {timeline}")[0]
    return (row["content"] or "").encode()


def create_slot(connection: ReplicationConnection, slot: str) -> None:
    """Create a physical replication slot that keeps WAL from now on, unless it exists.

    Raises:
        ReplicationError: the server refused: it has no free slot, or the role lacks the right.
    """
    try:
        connection.query(f"CREATE_REPLICATION_SLOT {quote_name(slot)} PHYSICAL RESERVE_WAL")
    except ReplicationError as error:
        if error.sqlstate != SLOT_EXISTS:
            raise


def drop_slot(connection: ReplicationConnection, slot: str) -> None:
    """Drop a slot; the server no longer keeps WAL for it.

    Raises:
        ReplicationError: it is in use, or does not exist.
    """
    connection.query(f"DROP_REPLICATION_SLOT {quote_name(slot)}")


def start_streaming(connection: ReplicationConnection, slot: str, lsn: int, timeline: int) -> None:
    """Start streaming from LSN `lsn` of `timeline`.

    Raises:
        ReplicationError: the server refused. Removed WAL (58P01) may be reported only with the first message.
    """
    connection.send(
        f"START_REPLICATION SLOT {quote_name(slot)} PHYSICAL {format_lsn(lsn)} TIMELINE {timeline}",
    )
    connection.begin_copy()


def can_stream(postgres: PostgresSettings, lsn: int, timeline: int) -> bool:
    """Whether the server still has the WAL at `lsn` of a timeline. Uses its own connection and no slot, so that no slot
    advances. There must be WAL after `lsn`.

    Raises:
        ReplicationError: the server refused for another reason, or did not answer.
    """
    with connect_replication(postgres) as connection:
        connection.send(f"START_REPLICATION PHYSICAL {format_lsn(lsn)} TIMELINE {timeline}")
        try:
            connection.begin_copy()
            message = connection.receive(_ANSWER_WITHIN_S)
            if message == b"":
                end_streaming(connection)  # which says why
        except ReplicationError as error:
            if error.sqlstate in WAL_REMOVED:
                return False
            raise
    if message is None:
        raise ReplicationError(
            f"The server did not start streaming WAL within {_ANSWER_WITHIN_S:.0f} s.",
            hint="see what it is doing: SELECT * FROM pg_stat_replication",
            transient=True,
        )
    return True


def end_streaming(connection: ReplicationConnection) -> tuple[int, int] | None:
    """Answer the server's end of the stream, so that the connection accepts commands again.

    Returns:
        If the timeline ended: the next one, and the LSN at which it begins. None if the server shuts down.

    Raises:
        ReplicationError: the stream ended with an error, or the connection broke.
    """
    connection.answer_end_of_copy()
    rows = connection.rows_if_any()
    connection.finish()
    if not rows:
        return None
    return int(str(rows[0]["next_tli"])), parse_lsn(str(rows[0]["next_tli_startpos"]))


def _time(clock: int) -> datetime:
    return _EPOCH + timedelta(microseconds=clock)
