"""Every kind of key that the TMI server keeps in Redis: what it is for, how long it may live, and what becomes of it.

The names and longest lives are the server's own (its Redis key builder, key validator, cache service, rate limiters,
sign-in and revocation). A sliding window of a rate limit lives its length and a minute more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Purpose(StrEnum):
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
    Purpose.COPY: "copies of rows that may not be so any more; read anew from the database",
    Purpose.SESSION: "who is signed in, perhaps with rights the database no longer gives",
    Purpose.REVOCATION: "a revoked token must stay revoked",
    Purpose.LIMIT: "counted attempts; none of them is in the database",
    Purpose.SIGN_IN: "sign-ins under way; they end within minutes",
    Purpose.WORK: "locks and calls under way; they end by themselves",
    Purpose.JOB: "about work on rows that may not be there any more; to be asked for again",
}


@dataclass(frozen=True)
class KeyPattern:
    """Keys that begin alike. No key of it lives longer than `longest_life` from any moment on, and none for ever."""

    pattern: str
    purpose: Purpose
    longest_life: timedelta
    what: str

    @property
    def names_are_secret(self) -> bool:
        """Whether a key's name holds what opens a door, or whose it is: a refresh token, an address."""
        return self.purpose is not Purpose.COPY or self.pattern == "cache:user:*"


def _minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_A_WINDOW_OF_AN_HOUR = _HOUR + _minutes(1)

KEY_PATTERNS: tuple[KeyPattern, ...] = (
    KeyPattern("cache:user:*", Purpose.COPY, _minutes(15), "users, by id, address and provider"),
    KeyPattern("cache:threat_model:*", Purpose.COPY, _minutes(10), "threat models"),
    KeyPattern("cache:diagram:*", Purpose.COPY, _minutes(10), "diagrams"),
    KeyPattern("cache:cells:*", Purpose.COPY, _minutes(10), "what is drawn in a diagram"),
    KeyPattern("cache:threat:*", Purpose.COPY, _minutes(5), "threats"),
    KeyPattern("cache:document:*", Purpose.COPY, _minutes(5), "documents"),
    KeyPattern("cache:note:*", Purpose.COPY, _minutes(5), "notes"),
    KeyPattern("cache:repository:*", Purpose.COPY, _minutes(5), "repositories"),
    KeyPattern("cache:asset:*", Purpose.COPY, _minutes(5), "assets"),
    KeyPattern("cache:metadata:*", Purpose.COPY, _minutes(7), "metadata"),
    KeyPattern("cache:auth:*", Purpose.COPY, _minutes(15), "who may see a threat model"),
    KeyPattern("cache:list:*", Purpose.COPY, _minutes(5), "pages of lists"),
    KeyPattern("cache:*", Purpose.COPY, _minutes(15), "other copies of rows"),
    KeyPattern("tmi:settings:*", Purpose.COPY, _minutes(1), "system settings"),
    KeyPattern("session:*", Purpose.SESSION, _DAY, "sessions"),
    KeyPattern("auth:token:*", Purpose.SESSION, _DAY, "tokens"),
    KeyPattern("auth:refresh:*", Purpose.SESSION, 30 * _DAY, "refresh tokens"),
    KeyPattern("refresh_token:*", Purpose.SESSION, 30 * _DAY, "refresh tokens"),
    KeyPattern("user_groups:*", Purpose.SESSION, _DAY, "the groups a user signed in with"),
    KeyPattern("blacklist:token:*", Purpose.REVOCATION, _DAY, "revoked tokens"),
    KeyPattern("blacklist:credential:*", Purpose.REVOCATION, _DAY, "revoked client credentials"),
    KeyPattern("blacklist:*", Purpose.REVOCATION, _DAY, "other revocations"),
    KeyPattern("rate_limit:global:*", Purpose.LIMIT, _minutes(1), "requests by address"),
    KeyPattern("rate_limit:user:*", Purpose.LIMIT, _minutes(1), "requests by user"),
    KeyPattern("rate_limit:api:*", Purpose.LIMIT, _HOUR, "requests by API key"),
    KeyPattern("auth:ratelimit:*", Purpose.LIMIT, _A_WINDOW_OF_AN_HOUR, "attempts to sign in"),
    KeyPattern("ip:ratelimit:*", Purpose.LIMIT, _A_WINDOW_OF_AN_HOUR, "requests by address"),
    KeyPattern("api:ratelimit:*", Purpose.LIMIT, _A_WINDOW_OF_AN_HOUR, "requests by user"),
    KeyPattern("addon:ratelimit:*", Purpose.LIMIT, _A_WINDOW_OF_AN_HOUR, "calls of add-ons"),
    KeyPattern("webhook:ratelimit:*", Purpose.LIMIT, _DAY + _minutes(1), "webhook subscriptions and events"),
    KeyPattern("oauth_token_failures:*", Purpose.LIMIT, _HOUR, "failed grants, which lock a client out"),
    KeyPattern("auth:state:*", Purpose.SIGN_IN, _minutes(10), "OAuth states"),
    KeyPattern("oauth_state:*", Purpose.SIGN_IN, _minutes(10), "OAuth states"),
    KeyPattern("pkce:*", Purpose.SIGN_IN, _minutes(10), "PKCE challenges"),
    KeyPattern("lock:*", Purpose.WORK, timedelta(seconds=30), "locks"),
    KeyPattern("addon:dedup:*", Purpose.WORK, timedelta(seconds=5), "calls of add-ons, not to be made twice"),
    KeyPattern("addon:invocation:*", Purpose.WORK, 7 * _DAY, "calls of add-ons"),
    KeyPattern("addon:active:*", Purpose.WORK, 7 * _DAY, "users with a call under way"),
    KeyPattern("temp:export:*", Purpose.JOB, _HOUR, "exports"),
    KeyPattern("temp:import:*", Purpose.JOB, _HOUR, "imports"),
    KeyPattern("user_deletion_challenge:*", Purpose.JOB, _minutes(3), "consents to delete an account"),
)
# The patterns of what was revoked, and the beginning that they share.
REVOCATIONS = frozenset(one.pattern for one in KEY_PATTERNS if one.purpose is Purpose.REVOCATION)
ANY_REVOCATION = "blacklist:*"
