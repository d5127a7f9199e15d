"""Who holds an advisory lock of this database."""

from __future__ import annotations

from typing import Any

import psycopg

# Sources: https://www.postgresql.org/docs/current/view-pg-locks.html (how a bigint key is split).
_HOLDER = """
SELECT a.pid, a.usename, a.client_addr, a.backend_start FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32) | l.objid::bigint = %s
"""


def is_locked(connection: psycopg.Connection[Any], key: int) -> bool:
    """Whether a session holds the lock now."""
    return connection.execute(_HOLDER, (key,)).fetchone() is not None


def lock_holder(connection: psycopg.Connection[Any], key: int) -> str:
    """Who holds the lock, for people; that session may end at any time."""
    row = connection.execute(_HOLDER, (key,)).fetchone()
    if row is None:
        return "a session that has just ended"
    pid, user, address, since = row
    begun = f", since {since:%Y-%m-%d %H:%M:%S %Z}" if since else ""
    return f"pid {pid}, user {user}, from {address or 'this machine'}{begun}"
