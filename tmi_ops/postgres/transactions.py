"""The number of a transaction, by which its outcome can be asked for when the connection that made it is gone."""

from __future__ import annotations

from typing import Any, Literal

import psycopg

Outcome = Literal["committed", "aborted", "in progress"]


def current_transaction(connection: psycopg.Connection[Any]) -> int:
    """The number of the transaction that the connection is in, which gets one by this."""
    row = connection.execute("SELECT pg_catalog.txid_current()").fetchone()
    if row is None:  # a function has its row
        raise AssertionError
    return int(row[0])


def transaction_outcome(connection: psycopg.Connection[Any], transaction: int) -> Outcome | None:
    """What became of a transaction of this server; None: too long ago for it to know, or never begun on it."""
    try:
        row = connection.execute("SELECT pg_catalog.txid_status(%s)", [transaction]).fetchone()
    except psycopg.errors.InvalidParameterValue:
        return None
    outcome: Outcome | None = row[0] if row else None
    return outcome
