"""The size of a server's lock table, and how much of it a dump or a restore of many tables needs.

Table locks are in shared memory, which holds max_locks_per_transaction for each possible session.
A dump locks every table at once, and so does a restore in one transaction.
Source: https://www.postgresql.org/docs/current/runtime-config-locks.html
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import psycopg

SETTING = "max_locks_per_transaction"
NO_ROOM_FOR_LOCKS = (
    "double max_locks_per_transaction on that server (as a superuser: ALTER SYSTEM SET max_locks_per_transaction = "
    "...), then restart it; repeat until it is enough"
)
DEFAULT_MAX_LOCKS = 64
# One lock for each table, and more for sequences, views, TOAST and indexes.
_LOCKS_PER_TABLE = 1.5
_STEP = 64
# What PostgreSQL counts as lock holders (InitializeMaxBackends): sessions, workers, prepared transactions.
_MAY_HOLD_LOCKS = ("max_connections", "autovacuum_max_workers", "max_worker_processes", "max_wal_senders",
                   "max_prepared_transactions")  # fmt: skip


@dataclass(frozen=True)
class LockTable:
    """`holders`: how many sessions, workers and prepared transactions may exist."""

    max_locks: int
    holders: int

    def max_locks_for(self, tables: int) -> int:
        """The smallest max_locks_per_transaction, in steps of 64, for locking this many tables at once."""
        needed = ceil(tables * _LOCKS_PER_TABLE / self.holders)
        return max(DEFAULT_MAX_LOCKS, ceil(needed / _STEP) * _STEP)

    def advice(self, tables: int) -> str:
        """The hint after the server had no memory for the locks of this many tables."""
        wanted = self.max_locks_for(tables)
        if wanted <= self.max_locks:  # others hold locks too
            wanted = 2 * self.max_locks
        return (
            f"to lock {tables:,} tables at once, as a superuser: ALTER SYSTEM SET {SETTING} = {wanted} (now "
            f"{self.max_locks}), then restart the server"
        )


def read_lock_table(connection: psycopg.Connection[Any]) -> LockTable:
    """Read the server's settings; the connection must not be in a failed transaction."""
    rows = connection.execute(
        "SELECT s.name, s.setting::pg_catalog.int4 FROM pg_catalog.pg_settings s WHERE s.name = ANY (%s)",
        ([SETTING, *_MAY_HOLD_LOCKS],),
    ).fetchall()
    values = dict(rows)
    return LockTable(values.pop(SETTING), sum(values.values()))
