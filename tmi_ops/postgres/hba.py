"""The line of pg_hba.conf that lets a connection in: one owner of how it is written.

Source: https://www.postgresql.org/docs/current/auth-pg-hba-conf.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass

REPLICATION = "replication"  # in the database column; `all` does not include it
METHOD = "scram-sha-256"
RELOAD = "SELECT pg_reload_conf();"
# How a server says that a connection it refused was not encrypted: the latter is 13's.
_IN_CLEAR = ("no encryption", "SSL off")
_REFUSED = re.compile(
    r"(?P<deed>no pg_hba\.conf entry for|pg_hba\.conf rejects) "
    r"(?P<what>replication connection (?:from|for)|connection for|)\s*"
    r'host "(?P<host>[^"]+)", user "(?P<user>[^"]+)"(?:, database "(?P<database>[^"]+)")?(?:, (?P<how>.+))?'
)
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True)
class HbaRefusal:
    """What the server said of a connection that no line lets in.

    Args:
        host: as the server saw the client; empty: a Unix socket, or not told.
        is_rejected: a line with the method reject fits, so the new one belongs above it.
    """

    host: str
    user: str
    database: str
    in_clear: bool
    is_rejected: bool

    @property
    def line(self) -> str:
        """The line that would let it in."""
        return hba_line(self.database, self.user, self.host, encrypted=not self.in_clear)


def is_in_clear(said: str) -> bool:
    """Whether the server says of a connection it refused that it was not encrypted."""
    return any(words in said for words in _IN_CLEAR)


def hba_refusal(said: str, user: str, database: str) -> HbaRefusal | None:
    """None where the words are none of pg_hba.conf.

    Args:
        user: whose connection it was, and to which database: where the words do not tell.
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
    """`hostssl  tmi  tmi_app  10.0.0.7/32  scram-sha-256`: an address that is none becomes `samehost`; `all` is all."""
    if re.fullmatch(r"[0-9a-fA-F.:]+", address):
        address = f"{address}/{128 if ':' in address else 32}"
    elif address != "all":
        address = "samehost"
    return f"{'hostssl' if encrypted else 'host'}  {word(database)}  {word(user)}  {address}  {METHOD}"


def word(name: str) -> str:
    """A name as pg_hba.conf reads it: quoted where it would mean something else."""
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'
