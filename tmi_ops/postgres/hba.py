"""The pg_hba.conf line that allows a connection.

Source: https://www.postgresql.org/docs/current/auth-pg-hba-conf.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass

REPLICATION = "replication"  # in the database column; `all` does not include it
METHOD = "scram-sha-256"
RELOAD = "SELECT pg_reload_conf();"
# How a server says that a rejected connection was not encrypted; the latter is PostgreSQL 13's.
_IN_CLEAR = ("no encryption", "SSL off")
_REFUSED = re.compile(
    r"(?P<deed>no pg_hba\.conf entry for|pg_hba\.conf rejects) "
    r"(?P<what>replication connection (?:from|for)|connection for|)\s*"
    r'host "(?P<host>[^"]+)", user "(?P<user>[^"]+)"(?:, database "(?P<database>[^"]+)")?(?:, (?P<how>.+))?'
)
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True)
class HbaRefusal:
    """A connection that pg_hba.conf does not allow.

    Args:
        host: the client as the server saw it; empty: a Unix socket, or unknown.
        is_rejected: a line with the method reject matches, so the new line belongs above it.
    """

    host: str
    user: str
    database: str
    in_clear: bool
    is_rejected: bool

    @property
    def line(self) -> str:
        """The line that would allow it."""
        return hba_line(self.database, self.user, self.host, encrypted=not self.in_clear)


def is_in_clear(said: str) -> bool:
    """Whether the server says that the rejected connection was not encrypted."""
    return any(words in said for words in _IN_CLEAR)


def hba_refusal(said: str, user: str, database: str) -> HbaRefusal | None:
    """Parse what the server said; None if it is not about pg_hba.conf.

    Args:
        user, database: of the connection, if the message does not name them.
    """
    if "pg_hba.conf" not in said:
        return None
    found = _REFUSED.search(said)
    if found is None:
        return HbaRefusal("", user, database, is_in_clear(said), "rejects" in said)
    replication = found["what"].startswith("replication") or (found["database"] is None and "replication" in said)
    return HbaRefusal(
        host=found["host"],
        user=found["user"],
        database=REPLICATION if replication else found["database"] or database,
        in_clear=is_in_clear(found["how"] or ""),
        is_rejected="rejects" in found["deed"],
    )


def hba_line(database: str, user: str, address: str = "", *, encrypted: bool = True) -> str:
    """`hostssl  tmi  tmi_app  10.0.0.7/32  scram-sha-256`. What is not an address becomes `samehost`, except `all`."""
    if re.fullmatch(r"[0-9a-fA-F.:]+", address):
        address = f"{address}/{128 if ':' in address else 32}"
    elif address != "all":
        address = "samehost"
    return f"{'hostssl' if encrypted else 'host'}  {word(database)}  {word(user)}  {address}  {METHOD}"


def word(name: str) -> str:
    """A name for pg_hba.conf, quoted if it would mean something else unquoted."""
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'
