"""Patterns of the keys that an application keeps in Redis: their purpose and their longest TTL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class KeyPurpose(StrEnum):
    """The purpose of keys. It decides whether they are kept after the database is recovered."""

    COPY = "copy"
    SESSION = "session"
    REVOCATION = "revocation"
    LIMIT = "limit"
    SIGN_IN = "sign-in"
    WORK = "work"
    JOB = "job"

    @property
    def because(self) -> str:
        """Why keys of this purpose are dropped or kept, as a phrase."""
        return _BECAUSE[self]


_BECAUSE = {
    KeyPurpose.COPY: "copies of rows that may be stale; read again from the database",
    KeyPurpose.SESSION: "sessions, perhaps with rights the database no longer grants",
    KeyPurpose.REVOCATION: "a revoked token must stay revoked",
    KeyPurpose.LIMIT: "counted attempts; the database does not hold them",
    KeyPurpose.SIGN_IN: "sign-ins in progress; they end within minutes",
    KeyPurpose.WORK: "locks and calls in progress; they expire",
    KeyPurpose.JOB: "jobs on rows that may no longer exist; users request them again",
}


@dataclass(frozen=True)
class KeyPattern:
    """Keys with a common prefix. Each has a TTL, of at most `longest_life`."""

    pattern: str
    purpose: KeyPurpose
    longest_life: timedelta
    what: str

    @property
    def names_are_secret(self) -> bool:
        """Whether a key's name holds a credential or identifies a user, such as a refresh token or an address."""
        return self.purpose is not KeyPurpose.COPY or self.pattern == "cache:user:*"
