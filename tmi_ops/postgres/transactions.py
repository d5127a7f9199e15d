"""Transaction numbers, to ask for the outcome of a transaction after its connection was lost."""

from __future__ import annotations

from typing import Any, Literal

import psycopg

Outcome = Literal["committed", "aborted", "in progress"]


def current_transaction(connection: psycopg.Connection[Any]) -> int:
    """The number of the connection's current transaction; assigns one if it has none."""
    row = connection.execute("SELECT pg_catalog.txid_current()").fetchone()
    if row is None:  # a function has its row
        raise AssertionError
    return int(row[0])


def transaction_outcome(connection: psycopg.Connection[Any], transaction: int) -> Outcome | None:
    """The outcome of a transaction; None: too old for the server to know, or never started there."""
    try:
        row = connection.execute("SELECT pg_catalog.txid_status(%s)", [transaction]).fetchone()
    except psycopg.errors.InvalidParameterValue:
        return None
    outcome: Outcome | None = row[0] if row else None
    return outcome
