"""A thread that writes all the time, and goes on after whatever befalls its database."""

from __future__ import annotations

from datetime import UTC, datetime
from threading import Event, Thread

import psycopg

from tmi_ops.errors import OpsError
from tmi_ops_tests.application.journal import Journal, Write
from tmi_ops_tests.application.reaching import Reaching
from tmi_ops_tests.application.threat_models import Work, add_user, invalidate, read_through

INTERVAL_S = 0.02
RETRY_S = 0.1


class Writer:
    """Writes while it is switched on. What was begun is ended before `pause` returns.

    `failure` says why the last transaction failed, where it did.
    """

    def __init__(self, reaching: Reaching, journal: Journal) -> None:
        self._reaching = reaching
        self._journal = journal
        self._work = Work()
        self._on = Event()
        self._idle = Event()
        self._idle.set()
        self.failure: str | None = None
        reaching.on_connect(add_user)
        Thread(target=self._run, daemon=True).start()

    def resume(self) -> None:
        self._on.set()

    def pause(self) -> None:
        self._on.clear()
        self._idle.wait()

    @property
    def is_on(self) -> bool:
        return self._on.is_set()

    def _run(self) -> None:
        while True:
            self._on.wait()
            self._idle.clear()
            try:
                succeeded = self._on.is_set() and self._write()
            finally:
                self._idle.set()
            Event().wait(INTERVAL_S if succeeded else RETRY_S)

    def _write(self) -> bool:
        begun, rows = datetime.now(UTC), ()
        try:
            with self._reaching.database() as connection:
                model, rows = self._work.write_some(connection)
        except (psycopg.Error, OpsError) as error:
            self.failure = f"{type(error).__name__}: {error}"
            if rows:  # it failed between COMMIT and its answer
                self._journal.add(Write(begun, None, rows))
            return False
        self.failure = None
        self._journal.add(Write(begun, datetime.now(UTC), rows))
        self._work.done(model)
        invalidate(self._reaching.cache, model)
        self._read_again(model)
        return True

    def _read_again(self, model: str) -> None:
        """As somebody who looks at what was just written: it is in the cache from now on."""
        try:
            with self._reaching.database() as connection:
                read_through(connection, self._reaching.cache, model)
        except psycopg.Error:
            return
