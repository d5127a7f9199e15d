"""Whether a run's process is alive: it holds an advisory lock in Dagster's database while it is.

The server frees the lock when the process ends, however it ends and on whatever machine or in whatever container it
ran. No clock is involved. Instances whose records are not in PostgreSQL have no such lock.

Source: https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
"""

from __future__ import annotations

import hashlib
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from dagster import DagsterInstance

CONNECT_TIMEOUT_S = 10
# A lost connection is reopened after this, so a live run may seem gone for that long.
LOOK_EVERY_S = 5.0
# A machine that vanishes closes no connection: the server gives it up after three unanswered keepalives, 10 s apart.
_KEEPALIVES = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"


def hold_presence(instance: DagsterInstance, run_id: str) -> None:
    """Hold the run's lock until this process ends. Returns once it is held, or cannot be."""
    address = _records_of(instance)
    if address is None:
        return
    holder = _Holder(address, run_id)
    holder.hold()
    threading.Thread(target=holder.keep, name="presence", daemon=True).start()


def is_present(instance: DagsterInstance, run_id: str) -> bool | None:
    """Whether some process holds the run's lock; None if the records cannot tell."""
    address = _records_of(instance)
    if address is None:
        return None
    try:
        with _connect(address, "tmi_ops watch") as connection:
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", (lock_key(run_id),)).fetchone()
    except psycopg.Error:
        return None
    return row is not None and not row[0]


def await_absence(instance: DagsterInstance, run_id: str, timeout_s: float) -> bool:
    """Wait until a run's process is gone. Returns False if it is still alive after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while is_present(instance, run_id):
        if time.monotonic() > deadline:
            return False
        time.sleep(1)
    return True


def lock_key(run_id: str) -> int:
    """The run's lock key, a bigint."""
    return int.from_bytes(hashlib.sha256(f"tmi_ops run {run_id}".encode()).digest()[:8], signed=True)


class _Holder:
    def __init__(self, address: str, run_id: str) -> None:
        self._address = address
        self._run_id = run_id
        self._connection: psycopg.Connection[Any] | None = None

    def hold(self) -> None:
        try:
            connection = _connect(self._address, f"tmi_ops run {self._run_id[:8]}")
            connection.execute("SELECT pg_advisory_lock(%s)", (lock_key(self._run_id),))
        except psycopg.Error:
            self._connection = None  # `keep` tries again
        else:
            self._connection = connection

    def keep(self) -> None:
        while True:
            time.sleep(LOOK_EVERY_S)
            try:
                if self._connection is None:
                    raise psycopg.OperationalError
                self._connection.execute("SELECT")
            except psycopg.Error:
                self.hold()


def _connect(address: str, name: str) -> psycopg.Connection[Any]:
    return psycopg.connect(
        address, autocommit=True, application_name=name, connect_timeout=CONNECT_TIMEOUT_S, options=_KEEPALIVES
    )


def _records_of(instance: DagsterInstance) -> str | None:
    """The address of Dagster's database, for libpq."""
    url = getattr(instance.run_storage, "postgres_url", None)
    if not isinstance(url, str):
        return None
    scheme, _, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}://{rest}"
