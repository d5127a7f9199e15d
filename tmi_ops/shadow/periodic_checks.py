"""Checks the running shadow periodically, at a bounded rate.

- The heartbeat chain, every minute.
- The schema and the rows that TMI needs, every hour.
- Every page's checksum: the server reads its files for a base backup that is discarded, at a few MB/s, and verifies
  each page. Pages that change in the meantime are verified in the next round.
- Every table and B-tree index with amcheck, one after the other, if the source has that extension: a standby cannot
  create it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from psycopg import sql

from tmi_ops.checks.finding import Answer, not_applicable, unknown
from tmi_ops.drill.chain import Bound, HeartbeatRow, check_chain
from tmi_ops.drill.checks import check_built_in_rows, check_schema
from tmi_ops.drill.evidence import CheckName
from tmi_ops.drill.findings import STORED, answer_to, failed, passed, said
from tmi_ops.drill.heartbeat import read_chain
from tmi_ops.drill.source import read_schema
from tmi_ops.errors import DatabaseError, first_line
from tmi_ops.postgres.base_backup import DATA_CORRUPTED, BaseBackupOptions, BaseBackupStream, Progress
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.replication import ReplicationError, connect_replication
from tmi_ops.settings import PostgresSettings
from tmi_ops.shadow.report import RollingCheck
from tmi_ops.text import format_size

BEATS_EVERY_S, SCHEMA_EVERY_S, PAGES_EVERY_S = 60.0, 3600.0, 86_400.0
PAGES_RATE = 4 << 20
# Minimum pause between two relations. Otherwise as long as the last one took, to use at most half of a core.
RELATION_PAUSE_S = 1.0
RELATION_LIMIT = "10min"
_FIRST_LOOK_S = 5.0
_ANSWERS: dict[str, CheckName] = {"_quick": "heartbeat", "_pages": "page_checksums", "_relations": "amcheck"}
_RELATIONS = """
SELECT c.oid::regclass::text, c.relkind::text, c.relpages
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am a ON a.oid = c.relam
WHERE c.relpersistence = 'p' AND ((c.relkind IN ('r', 'm', 't') AND a.amname = 'heap') OR (c.relkind = 'i' AND
      a.amname = 'btree' AND EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = c.oid AND i.indisvalid)))
ORDER BY c.oid
"""
_AMCHECK = """
SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'
"""


class Stopped(Exception):
    """The checks were stopped."""


@dataclass
class PeriodicChecks:
    """The periodic checks of a shadow's server, in threads, until `stop` is set.

    Args:
        address: the login of its superuser; `database`: the application's.
        tell: called with each result.
        has_models: whether the profile declares a schema to check. Its own SQL checks are not run: they need a role
            that is not a superuser, which a standby cannot create.
    """

    address: PostgresSettings
    database: str
    data_checksums: bool
    tell: Callable[[RollingCheck], object]
    stop: threading.Event
    has_models: bool = True

    def __post_init__(self) -> None:
        self._beats: list[HeartbeatRow] = []
        self._threads = [
            threading.Thread(target=self._round, args=work, name=f"shadow-{work[0].__name__.strip('_')}", daemon=True)
            for work in ((self._quick, BEATS_EVERY_S), (self._pages, PAGES_EVERY_S), (self._relations, 0.0))
        ]
        self._schema_at: datetime | None = None

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop; running checks end with their query, because the server is being stopped."""
        self.stop.set()

    def _round(self, work: Callable[[], None], pause_s: float) -> None:
        if self.stop.wait(_FIRST_LOOK_S):
            return
        while True:
            try:
                work()
            except Stopped:
                return
            except Exception as error:  # noqa: BLE001 - a failing check must not stop the others
                if self.stop.is_set():
                    return
                self._answer(_ANSWERS[work.__name__], unknown(first_line(error)))
            if self.stop.wait(max(pause_s, RELATION_PAUSE_S)):
                return

    def _answer(self, name: CheckName, found: Answer, covered: float | None = None) -> None:
        self.tell(
            RollingCheck(
                name=name,
                outcome=STORED[found.outcome],
                detail=found.seen,
                findings=said(found),
                at=datetime.now(UTC),
                covered=covered,
            )
        )

    def _quick(self) -> None:
        database = self.address.model_copy(update={"database": self.database})
        if not self._has_database():
            self._answer("heartbeat", unknown(f"The cluster has no database {self.database} yet."))
            return
        self._asked("heartbeat", lambda: self._heartbeat(database))
        now = datetime.now(UTC)
        if not self.has_models:
            return
        if self._schema_at is None or (now - self._schema_at).total_seconds() >= SCHEMA_EVERY_S:
            self._schema_at = now
            reading = read_schema(database)
            self._asked("schema", lambda: check_schema(reading, None))
            self._asked("built_in_rows", lambda: check_built_in_rows(reading, None))

    def _asked(self, name: CheckName, question: Callable[[], Answer]) -> None:
        self._answer(name, answer_to(question))

    def _has_database(self) -> bool:
        with connect(self.address) as connection:
            query = "SELECT FROM pg_database WHERE datname = %s AND datallowconn"
            return connection.execute(query, (self.database,)).fetchone() is not None

    def _heartbeat(self, database: PostgresSettings) -> Answer:
        """Check the chain from the last heartbeat seen; everything before was checked already."""
        last = self._beats[-1] if self._beats else None
        rows = read_chain(database, since=last.id if last else 0)
        if rows is None or not (rows or self._beats):
            return unknown("No heartbeat was written yet. To write one a minute, run `tmi-ops heartbeat --every 60`.")
        wrong = check_chain(rows, Bound(), ())
        if last is not None and (not rows or rows[0] != last):
            wrong = (f"{last.describe()} was present before, and is now missing or changed.", *wrong)
        if wrong:
            return failed("The heartbeat chain is broken.", wrong[:10])
        self._beats = rows[-1:]
        return passed(f"Unbroken up to {rows[-1].describe()}.")

    def _pages(self) -> None:
        if not self.data_checksums:
            self._answer("page_checksums", not_applicable("The cluster has no data checksums."))
            raise Stopped
        try:
            self._read_pages()
        except ReplicationError as error:
            if error.sqlstate != DATA_CORRUPTED or self.stop.is_set():
                raise
            self._answer("page_checksums", failed(error.message))

    def _read_pages(self) -> None:
        with connect_replication(self.address) as connection:
            options = BaseBackupOptions("tmi_ops shadow", max_rate=PAGES_RATE, only_read=True)
            stream = BaseBackupStream(connection, options)
            size, done, told = max(1, stream.size), 0, 0
            for message in stream.messages():
                if self.stop.is_set():
                    raise Stopped
                if isinstance(message, Progress) and message.done - told > size // 20:
                    told = message.done
                    covered = min(1.0, told / size)
                    self._answer("page_checksums", passed("No wrong checksum so far."), covered)
                done = message.done if isinstance(message, Progress) else done
        self._answer("page_checksums", passed(f"{format_size(done)} of files, all pages with correct checksums."), 1.0)

    def _relations(self) -> None:
        lacking = []
        for database in self._databases():
            with connect(self.address, database) as connection:
                row = connection.execute(_AMCHECK).fetchone()
                if row is None:
                    lacking.append(database)
                    continue
                relations = connection.execute(_RELATIONS).fetchall()
                if not self._check_all(connection, str(row[0]), relations, database):
                    return
        if lacking:
            self._answer(
                "amcheck",
                unknown(
                    f"The extension amcheck is missing in {', '.join(lacking)}, and a standby cannot create it. Run "
                    "`CREATE EXTENSION amcheck` there, on the source."
                ),
            )
            if self.stop.wait(SCHEMA_EVERY_S):
                raise Stopped

    def _check_all(
        self,
        connection: psycopg.Connection[tuple[object, ...]],
        schema: str,
        relations: Sequence[tuple[object, ...]],
        database: str,
    ) -> bool:
        """False: damage was found, and the check pauses."""
        connection.execute(f"SET statement_timeout = '{RELATION_LIMIT}'")
        for number, (name, kind, _) in enumerate(relations, 1):
            begun = datetime.now(UTC)
            wrong = _wrong_in(connection, schema, str(name), str(kind))
            covered = number / len(relations)
            if wrong:
                self._answer("amcheck", failed(f"{name} in {database} is damaged.", wrong[:10]), covered)
                if self.stop.wait(SCHEMA_EVERY_S):
                    raise Stopped
                return False
            self._answer("amcheck", passed(f"{number} of {len(relations)} relations of {database}."), covered)
            took = (datetime.now(UTC) - begun).total_seconds()
            if self.stop.wait(max(RELATION_PAUSE_S, took)):
                raise Stopped
        return True

    def _databases(self) -> list[str]:
        with connect(self.address) as connection:
            rows = connection.execute("SELECT datname FROM pg_database WHERE datallowconn").fetchall()
        return sorted(str(name) for (name,) in rows)


def _wrong_in(
    connection: psycopg.Connection[tuple[object, ...]], schema: str, relation: str, kind: str
) -> tuple[str, ...]:
    """What amcheck finds in one relation, one sentence each; empty if a conflict with the replay cancels the query."""
    try:
        if kind == "i":
            query = sql.SQL("SELECT {}.bt_index_check(%s::regclass, true)").format(sql.Identifier(schema))
            connection.execute(query, (relation,))
            return ()
        query = sql.SQL("SELECT blkno, offnum, msg FROM {}.verify_heapam(%s::regclass)").format(sql.Identifier(schema))
        rows = connection.execute(query, (relation,)).fetchall()
    except (psycopg.errors.DataCorrupted, psycopg.errors.IndexCorrupted) as error:
        return (f"{relation}: {first_line(error)}",)
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedObject):
        return ()
    except psycopg.Error as error:
        if connection.broken:
            raise DatabaseError(f"{relation} could not be checked: {first_line(error)}") from None
        return ()
    return tuple(f"{relation}, block {block}, row {row}: {words}" for block, row, words in rows)
