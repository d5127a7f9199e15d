"""Prepared transactions: no session owns them, pg_stat_activity does not show them, their locks survive a restart."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

_OPEN = """
    SELECT p.gid, p.owner, p.prepared
    FROM pg_catalog.pg_prepared_xacts p
    WHERE p.database = pg_catalog.current_database()
    ORDER BY p.prepared
    LIMIT %s
"""


@dataclass(frozen=True)
class PreparedTransaction:
    """A transaction that waits for COMMIT PREPARED or ROLLBACK PREPARED."""

    gid: str
    owner: str
    prepared_at: datetime

    def describe(self) -> str:
        """For people, without control characters."""
        at = f"{self.prepared_at.astimezone(UTC):%Y-%m-%d %H:%M:%S UTC}"
        return f"the prepared transaction {_visible(self.gid)} of {_visible(self.owner)}, since {at}"

    def ending(self) -> str:
        """The statement that ends it."""
        quoted = _visible(self.gid).replace("'", "''")
        return f"COMMIT PREPARED '{quoted}' or ROLLBACK PREPARED '{quoted}'"


def prepared_transactions(connection: psycopg.Connection[Any], limit: int = 3) -> tuple[PreparedTransaction, ...]:
    """The prepared transactions of the connected database, oldest first."""
    return tuple(PreparedTransaction(*row) for row in connection.execute(_OPEN, (limit,)).fetchall())


def how_to_end(prepared: tuple[PreparedTransaction, ...], otherwise: str) -> str:
    """The hint if locks are held for long.

    Args:
        otherwise: the hint about sessions.
    """
    if not prepared:
        return otherwise
    return f"end it in psql ({'; '.join(one.ending() for one in prepared)}; see pg_prepared_xacts); or {otherwise}"


def _visible(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name)
