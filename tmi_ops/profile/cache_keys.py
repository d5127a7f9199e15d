"""Kinds of keys that an application keeps in Redis: what they are for, how long they may live, what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class KeyPurpose(StrEnum):
    """What keys are for. It decides whether they outlive a jump of the database in time."""

    COPY = "copy"
    SESSION = "session"
    REVOCATION = "revocation"
    LIMIT = "limit"
    SIGN_IN = "sign-in"
    WORK = "work"
    JOB = "job"

    @property
    def because(self) -> str:
        """Why keys of this purpose are dropped or kept, as half a sentence."""
        return _BECAUSE[self]


_BECAUSE = {
    KeyPurpose.COPY: "copies of rows that may not be so any more; read anew from the database",
    KeyPurpose.SESSION: "who is signed in, perhaps with rights the database no longer gives",
    KeyPurpose.REVOCATION: "a revoked token must stay revoked",
    KeyPurpose.LIMIT: "counted attempts; none of them is in the database",
    KeyPurpose.SIGN_IN: "sign-ins under way; they end within minutes",
    KeyPurpose.WORK: "locks and calls under way; they end by themselves",
    KeyPurpose.JOB: "about work on rows that may not be there any more; to be asked for again",
}


@dataclass(frozen=True)
class KeyPattern:
    """Keys that begin alike. No key of it lives longer than `longest_life` from any moment on, and none for ever."""

    pattern: str
    purpose: KeyPurpose
    longest_life: timedelta
    what: str

    @property
    def names_are_secret(self) -> bool:
        """Whether a key's name holds what opens a door, or whose it is: a refresh token, an address."""
        return self.purpose is not KeyPurpose.COPY or self.pattern == "cache:user:*"
