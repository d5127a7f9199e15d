"""A replication connection: PostgreSQL's streaming replication protocol through libpq.

`psycopg` connects, so settings, TLS and refusals are those of every connection. Its libpq layer carries the protocol:
walsender commands are simple queries, and their data flows in COPY mode. This module sends commands, reads their result
sets and moves COPY data; `wal_stream.py` and `base_backup.py` interpret the bytes.

For one thread at a time. It does not block other threads: all waiting is `poll`.

Source: https://www.postgresql.org/docs/current/protocol-replication.html
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.connections import connection_parameters
from tmi_ops.postgres.refusals import explained, hint, refusal_of
from tmi_ops.progress import waiting_for
from tmi_ops.settings import PostgresSettings

# A lost network is noticed after about 25 s instead of hours.
_NETWORK_CUT = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}
# OpenSSL may hold decrypted bytes that poll() cannot see; so never sleep longer than this on TLS.
_TLS_POLL_S = 0.2
_WARNINGS_KEPT = 20
_COPY_STATUS = (ExecStatus.COPY_OUT, ExecStatus.COPY_IN, ExecStatus.COPY_BOTH)

Row = dict[str, str | None]


class ReplicationError(DatabaseError):
    """The server answered a replication command with an error. `sqlstate` is empty when the connection broke."""

    default_code = Code.REPLICATION

    def __init__(self, message: str, *, sqlstate: str = "", hint: str = "", transient: bool = False) -> None:
        super().__init__(message, hint=hint, transient=transient)
        self.sqlstate = sqlstate


class ReplicationConnection:
    """Commands and COPY data over one walsender session.

    A plain command: `query`. A command with several results, such as BASE_BACKUP: `send`, then `rows`, `begin_copy`
    and `copied` in the order the server sends them, then `finish`.
    """

    def __init__(self, connection: psycopg.Connection, address: str) -> None:
        self._connection = connection
        self._pgconn: PGconn = connection.pgconn
        self._address = address
        self._poll = select.poll()
        self._socket = self._pgconn.socket
        # Warnings of the server, oldest first; only the first ones are kept.
        self.warnings: list[str] = []
        connection.add_notice_handler(self._keep_warning)

    @property
    def server_version_num(self) -> int:
        """Like `server_version_num`: 170004 for 17.4."""
        return self._pgconn.server_version

    def query(self, command: str) -> list[Row]:
        """Run a command with at most one result set.

        Returns:
            Its rows, values as text; empty if it has none.

        Raises:
            ReplicationError: the server refused it, or the connection broke.
        """
        answer: list[Row] = []
        with waiting_for(self._address):
            self.send(command)
            while (result := self._next_result()) is not None:
                answer = _rows(result) or answer
        return answer

    def send(self, command: str) -> None:
        """Send a command; read its results one by one.

        Raises:
            ReplicationError: the connection broke.
        """
        with self._breaks_explained():
            self._pgconn.send_query(command.encode())
            self._flush()

    def rows(self) -> list[Row]:
        """The next result, which must be a result set.

        Raises:
            ReplicationError: the server refused the command, or the connection broke.
        """
        result = self._next_result()
        if result is None or result.status != ExecStatus.TUPLES_OK:
            raise self._unexpected(result, "a result set")
        return _rows(result)

    def rows_if_any(self) -> list[Row]:
        """The next result; empty if it is not a result set, or there is none.

        Raises:
            ReplicationError: the server refused the command, or the connection broke.
        """
        result = self._next_result()
        return [] if result is None or result.status != ExecStatus.TUPLES_OK else _rows(result)

    def begin_copy(self) -> None:
        """The next result, which must begin a COPY in any direction.

        Raises:
            ReplicationError: the server refused the command, or the connection broke.
        """
        result = self._next_result()
        if result is None or result.status not in _COPY_STATUS:
            raise self._unexpected(result, "a stream of data")

    def finish(self) -> None:
        """Read the remaining results of the command, so that the next one can be sent.

        Raises:
            ReplicationError: the server reported an error, or the connection broke.
        """
        while (result := self._next_result()) is not None:
            if result.status in _COPY_STATUS:
                raise self._unexpected(result, "the end of the command")

    def copied(self) -> Iterator[memoryview | bytes]:
        """The messages of a COPY from the server, to its end. Each view stays valid as long as it is referenced.

        Raises:
            ReplicationError: the connection broke. An error of the server is in the next result.
        """
        while (message := self.receive(None)) is None or message:
            if message is not None:
                yield message

    def receive(self, timeout_s: float | None, wake: Sequence[int] = ()) -> memoryview | bytes | None:
        """The next message of a COPY from the server.

        Args:
            timeout_s: how long to wait; None: without limit, 0: not at all.
            wake: file descriptors that end the waiting when they become readable.

        Returns:
            The message; `b""` if the server ended the COPY; None if nothing arrived in time.

        Raises:
            ReplicationError: the connection broke.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            with self._breaks_explained():
                size, message = self._pgconn.get_copy_data(1)
                if size == 0:
                    self._pgconn.consume_input()
                    size, message = self._pgconn.get_copy_data(1)
            if size > 0:
                return message
            if size < 0:
                return b""
            left = None if deadline is None else deadline - time.monotonic()
            if (left is not None and left <= 0) or self._wait(select.POLLIN, left, wake):
                return None

    def transmit(self, message: bytes) -> None:
        """Send one message of a COPY to the server.

        Raises:
            ReplicationError: the connection broke.
        """
        with self._breaks_explained():
            self._pgconn.put_copy_data(message)
            self._flush()

    def end_copy(self) -> None:
        """End our side of the COPY. In COPY BOTH the server may still send; read to `b""`.

        Raises:
            ReplicationError: the connection broke.
        """
        with self._breaks_explained():
            self._pgconn.put_copy_end()
            self._flush()

    def answer_end_of_copy(self) -> None:
        """After `receive` returned `b""` in COPY BOTH: end our side too; the command's results follow.

        Raises:
            ReplicationError: the server ended it with an error, or the connection broke.
        """
        result = self._next_result()
        if result is not None and result.status == ExecStatus.COPY_IN:
            self.end_copy()

    def _keep_warning(self, notice: psycopg.errors.Diagnostic) -> None:
        if len(self.warnings) < _WARNINGS_KEPT:
            self.warnings.append(notice.message_primary or "")

    def _next_result(self) -> PGresult | None:
        with self._breaks_explained():
            result = self._get_result()
            if result is None or result.status != ExecStatus.FATAL_ERROR:
                return result
            while self._get_result() is not None:  # so that the connection takes another command
                pass
        raise self._refused(result)

    def _get_result(self) -> PGresult | None:
        while self._pgconn.is_busy():
            self._wait(select.POLLIN, None)
            self._pgconn.consume_input()
        return self._pgconn.get_result()

    def _flush(self) -> None:
        while self._pgconn.flush():
            self._wait(select.POLLIN | select.POLLOUT, None)
            self._pgconn.consume_input()

    def _wait(self, events: int, timeout_s: float | None, wake: Sequence[int] = ()) -> bool:
        """Sleep until the socket is ready or the time is over. Returns True if one of `wake` ended it."""
        if self._pgconn.ssl_in_use:
            timeout_s = _TLS_POLL_S if timeout_s is None else min(timeout_s, _TLS_POLL_S)
        self._poll.register(self._socket, events)
        for descriptor in wake:
            self._poll.register(descriptor, select.POLLIN)
        try:
            ready = self._poll.poll(None if timeout_s is None else max(1, int(timeout_s * 1000)))
        finally:
            for descriptor in wake:
                self._poll.unregister(descriptor)
        return any(descriptor in wake for descriptor, _ in ready)

    @contextmanager
    def _breaks_explained(self) -> Iterator[None]:
        try:
            yield
        except psycopg.OperationalError as error:
            raise ReplicationError(
                f"The replication connection to {self._address} was lost: {_one_line(str(error))}.",
                hint="check that the server is running and that no firewall or proxy cuts the connection",
                transient=True,
            ) from error

    def _refused(self, result: PGresult) -> ReplicationError:
        sqlstate = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()
        primary = result.error_field(DiagnosticField.MESSAGE_PRIMARY)
        said = _one_line(primary.decode(errors="replace") if primary else result.get_error_message())
        return ReplicationError(
            f"The server at {self._address} refused a replication command: {said}"
            f"{f' (SQLSTATE {sqlstate})' if sqlstate else ''}.",
            sqlstate=sqlstate,
            hint=self._hint(said),
            # No SQLSTATE: the connection broke. 57P01 to 57P03: the server stops or starts. 53: out of resources.
            transient=not sqlstate or sqlstate.startswith(("57P", "53", "08")),
        )

    def _hint(self, said: str) -> str:
        refusal = refusal_of(said)
        if refusal is None:
            return ""
        return hint(refusal, said, PostgresSettings(user=self._connection.info.user))

    def _unexpected(self, result: PGresult | None, wanted: str) -> ReplicationError:
        got = "nothing" if result is None else ExecStatus(result.status).name
        return ReplicationError(f"The server at {self._address} sent {got} instead of {wanted}.")


@contextmanager
def connect_replication(postgres: PostgresSettings) -> Iterator[ReplicationConnection]:
    """Open a walsender session for the length of a `with` block.

    Leaving the block closes it at once, even during a COPY; the server notices and stops.

    Raises:
        DatabaseError: the server could not be reached or refused us. If a pg_hba.conf line, the REPLICATION right or
            walsenders are missing, the hint contains the exact line or command.
    """
    parameters = {**connection_parameters(postgres), **_NETWORK_CUT, "replication": "true"}
    try:
        with waiting_for(postgres.describe()):
            connection = psycopg.connect(**parameters, autocommit=True)
    except psycopg.OperationalError as error:
        raise _explain_refusal(error, postgres) from None
    try:
        yield ReplicationConnection(connection, postgres.describe())
    finally:
        connection.close()


def quote_name(name: str) -> str:
    """An identifier for the replication grammar."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """A string literal for the replication grammar: doubled quotes, no other escapes."""
    return "'" + text.replace("'", "''") + "'"


def _rows(result: PGresult) -> list[Row]:
    names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
    values = [[result.get_value(row, column) for column in range(result.nfields)] for row in range(result.ntuples)]
    return [
        {name: None if value is None else value.decode() for name, value in zip(names, row, strict=True)}
        for row in values
    ]


def _explain_refusal(error: psycopg.OperationalError, postgres: PostgresSettings) -> DatabaseError:
    return explained(str(error).strip(), postgres, what=f"a replication connection to {postgres.describe()}")


def _one_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return (lines[0] if lines else "no message").rstrip(".")
