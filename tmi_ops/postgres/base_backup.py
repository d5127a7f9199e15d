"""The BASE_BACKUP replication command and its messages, for each server version.

Before PostgreSQL 15 the server sends one COPY for each tablespace, an uncompressed tar without its end, then one with
the manifest. From 15 on it sends a single COPY of typed messages, compressed by the server if asked. Both become the
same messages here, so that callers need not know the version.

Source: https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-BASE-BACKUP
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.replication import ReplicationConnection, ReplicationError, Row, quote_text
from tmi_ops.postgres.versions import BASE_BACKUP_MESSAGES, since

MANIFEST_NAME = "backup_manifest"
# What the server itself accepts, in kB/s.
MAX_RATE_BOUNDS = (32, 1 << 20)
# A tar ends with two empty blocks; servers before 15 leave them to the client.
TAR_END = bytes(1024)
UPLOAD_CHUNK = 64 << 10
_KIB = 1024
DATA_CORRUPTED = "XX001"


@dataclass(frozen=True)
class BaseBackupOptions:
    """The options of a base backup.

    Args:
        zstd_level: the server compresses at this level; None: it does not (and cannot before 15).
        zstd_workers: its compression threads; 0: compress in the walsender.
        max_rate: bytes per second on the network; None: no limit.
        incremental: only blocks changed since the manifest that was uploaded before (17 on).
        fast_checkpoint: start with an immediate checkpoint instead of waiting for a spread one.
        only_read: without WAL and manifest: not a backup, but the server reads every page and checks its checksum.
    """

    label: str
    zstd_level: int | None = None
    zstd_workers: int = 0
    max_rate: int | None = None
    incremental: bool = False
    fast_checkpoint: bool = True
    only_read: bool = False


@dataclass(frozen=True)
class NewArchive:
    """A tar begins: `name` by the server; `tablespace`: its location, empty for the data directory."""

    name: str
    tablespace: str


@dataclass(frozen=True)
class NewManifest:
    """The manifest begins."""


@dataclass(frozen=True)
class Data:
    """A piece of the archive or manifest that began last."""

    content: bytes


@dataclass(frozen=True)
class Progress:
    """Bytes of the cluster read so far, uncompressed."""

    done: int


Message = NewArchive | NewManifest | Data | Progress


@dataclass(frozen=True)
class WalPosition:
    """A position in the WAL: `lsn` as PostgreSQL writes it, such as `0/2000028`."""

    lsn: str
    timeline: int


@dataclass(frozen=True)
class TablespaceSource:
    """A tablespace announced by the server; `oid` and `location` are None for the data directory. `size` in bytes,
    before compression."""

    oid: str | None
    location: str | None
    size: int


def base_backup_command(options: BaseBackupOptions, server_version_num: int) -> str:
    """The command in the syntax of the server's version.

    Every backup includes its WAL, so that it is consistent on its own; it does not wait for the server's
    archive_command.
    """
    manifest = "no" if options.only_read else "yes"
    words = [f"LABEL {quote_text(options.label)}", "PROGRESS", "TABLESPACE_MAP", f"MANIFEST '{manifest}'"]
    if options.max_rate is not None:
        words.append(f"MAX_RATE {_rate(options.max_rate)}")
    if server_version_num < since(BASE_BACKUP_MESSAGES):
        words += [*([] if options.only_read else ["WAL"]), "NOWAIT", *(["FAST"] if options.fast_checkpoint else [])]
        return f"BASE_BACKUP {' '.join(words)}"
    words += [
        f"WAL {'false' if options.only_read else 'true'}",
        "WAIT false",
        f"CHECKPOINT '{'fast' if options.fast_checkpoint else 'spread'}'",
    ]
    if options.zstd_level is not None:
        workers = f",workers={options.zstd_workers}" if options.zstd_workers else ""
        words += ["COMPRESSION 'zstd'", f"COMPRESSION_DETAIL 'level={options.zstd_level}{workers}'"]
    if options.incremental:
        words.append("INCREMENTAL")
    return f"BASE_BACKUP ({', '.join(words)})"


def parse_message(message: bytes | memoryview) -> Message:
    """Read one CopyData message of a server from 15 on.

    Raises:
        DatabaseError: the message is not known.
    """
    kind, body = bytes(message[:1]), bytes(message[1:])
    if kind == b"d":
        return Data(body)
    if kind == b"p" and len(body) == 8:
        return Progress(int.from_bytes(body, "big", signed=True))
    if kind == b"n" and body.count(b"\0") == 2 and body.endswith(b"\0"):
        with contextlib.suppress(UnicodeDecodeError):
            name, location, _ = body.decode().split("\0")
            return NewArchive(name, location)
    if kind == b"m" and not body:
        return NewManifest()
    raise DatabaseError(
        f"The server sent an unknown message in a base backup: {bytes(message[:20])!r}.",
        hint="check whether this release of tmi-ops supports the server's version",
    )


def parse_position(rows: list[Row]) -> WalPosition:
    """The start or stop position from its result set."""
    return WalPosition(str(rows[0]["recptr"]), int(str(rows[0]["tli"])))


def parse_tablespaces(rows: list[Row]) -> tuple[TablespaceSource, ...]:
    """The announced tablespaces from their result set, where sizes are in kB."""
    return tuple(TablespaceSource(row["spcoid"], row["spclocation"], int(row["size"] or 0) * _KIB) for row in rows)


def checked_archive_name(name: str) -> str:
    """The name of an archive, if it stays within the backup's folder: the server's names are not trusted.

    Raises:
        DatabaseError: it is not a plain name.
    """
    if not name or name.startswith(".") or "/" in name or not name.isprintable():
        raise DatabaseError(f"The server named an archive {name!r}, which is not a valid file name.")
    return name


@dataclass(frozen=True)
class Part:
    """One archive or the manifest (`archive` None). Its chunks must be read to their end before the next part."""

    archive: NewArchive | None
    chunks: Iterator[bytes]


def split_parts(messages: Iterable[Message], on_progress: Callable[[int], object]) -> Iterator[Part]:
    """Cut the stream of messages into archives and manifest.

    Args:
        on_progress: called with the bytes read since the last call.
    """
    splitter = _Splitter(iter(messages), on_progress)
    while (begun := splitter.next_beginning()) is not None:
        yield Part(begun if isinstance(begun, NewArchive) else None, splitter.chunks())


class BaseBackupStream:
    """A base backup in progress: its start, its tablespaces, and its messages."""

    def __init__(self, connection: ReplicationConnection, options: BaseBackupOptions) -> None:
        self._connection = connection
        connection.send(base_backup_command(options, connection.server_version_num))
        self.options = options
        self.start = parse_position(connection.rows())
        self.tablespaces = parse_tablespaces(connection.rows())
        self._stop: WalPosition | None = None

    @property
    def size(self) -> int:
        """Bytes that the server expects to read."""
        return sum(tablespace.size for tablespace in self.tablespaces)

    @property
    def stop(self) -> WalPosition:
        """Where the backup is consistent; known once all messages were read."""
        if self._stop is None:
            raise AssertionError
        return self._stop

    def messages(self) -> Iterator[Message]:
        """All messages of the server. The backup is complete only if the iterator ends without an error.

        Raises:
            ReplicationError: the server failed, found checksum failures, or closed the connection.
        """
        try:
            if self._connection.server_version_num < since(BASE_BACKUP_MESSAGES):
                yield from self._one_copy_each()
            else:
                self._connection.begin_copy()
                yield from (parse_message(message) for message in self._connection.copied())
            self._stop = parse_position(self._connection.rows())
            self._connection.finish()
        except ReplicationError as error:
            raise self._explained(error) from error

    def _one_copy_each(self) -> Iterator[Message]:
        done = 0
        for tablespace in self.tablespaces:
            self._connection.begin_copy()
            yield NewArchive(f"{tablespace.oid or 'base'}.tar", tablespace.location or "")
            for content in self._connection.copied():
                done += len(content)
                yield Data(bytes(content))
                yield Progress(done)
            yield Data(TAR_END)
        self._connection.begin_copy()
        yield NewManifest()
        for content in self._connection.copied():
            yield Data(bytes(content))

    def _explained(self, error: ReplicationError) -> ReplicationError:
        if error.sqlstate != DATA_CORRUPTED:
            return error
        pages = [warning for warning in self._connection.warnings if "checksum" in warning]
        found = "; ".join(pages[:5]) or error.message
        return ReplicationError(
            f"The server found damaged pages during the backup: {found}.",
            sqlstate=error.sqlstate,
            hint="check the server's disk now. The last number of the file is a relation's filenode: SELECT "
            "pg_filenode_relation(0, <number>). Earlier backups may have these pages intact: do not let them expire",
        )


def begin_base_backup(connection: ReplicationConnection, options: BaseBackupOptions) -> BaseBackupStream:
    """Start a base backup, compressed by the server if its build can.

    Falls back to one thread if the server cannot compress with several, and to plain tars if it cannot compress at all.

    Raises:
        ReplicationError: the server refused.
    """
    if connection.server_version_num < since(BASE_BACKUP_MESSAGES):
        options = replace(options, zstd_level=None)
    while True:
        try:
            return BaseBackupStream(connection, options)
        except ReplicationError as error:
            if options.zstd_level is None or "ompression" not in error.message:
                raise
            options = replace(options, zstd_workers=0) if options.zstd_workers else replace(options, zstd_level=None)


def upload_manifest(connection: ReplicationConnection, chunks: Iterable[bytes]) -> None:
    """Upload the manifest of the parent of an incremental backup (17 on).

    Raises:
        ReplicationError: the server refused it, for example because WAL summaries are off.
    """
    connection.send("UPLOAD_MANIFEST")
    connection.begin_copy()
    for chunk in chunks:
        for start in range(0, len(chunk), UPLOAD_CHUNK):
            connection.transmit(chunk[start : start + UPLOAD_CHUNK])
    connection.end_copy()
    connection.finish()


class _Splitter:
    """Yields chunks up to the next beginning, which it keeps."""

    def __init__(self, messages: Iterator[Message], on_progress: Callable[[int], object]) -> None:
        self._messages = messages
        self._on_progress = on_progress
        self._begun: NewArchive | NewManifest | None = None
        self._done = 0

    def next_beginning(self) -> NewArchive | NewManifest | None:
        for chunk in self.chunks():
            raise DatabaseError(f"The server sent {len(chunk)} bytes outside any archive of the base backup.")
        begun, self._begun = self._begun, None
        return begun

    def chunks(self) -> Iterator[bytes]:
        while self._begun is None and (message := next(self._messages, None)) is not None:
            if isinstance(message, Data):
                yield message.content
            elif isinstance(message, Progress):
                self._on_progress(message.done - self._done)
                self._done = message.done
            else:
                self._begun = message


def _rate(max_rate: int) -> int:
    """In kB/s, within the server's limits."""
    low, high = MAX_RATE_BOUNDS
    return min(max(max_rate // _KIB, low), high)
