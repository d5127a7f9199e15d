"""Tokens as TMI has them: signed, so that nothing but the blacklist of revoked ones needs to be asked."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta

from redis import Redis

_KEY = b"signs for tests alone"
TOKEN_LIFE = timedelta(hours=1)
SESSION_LIFE = timedelta(hours=24)
REFRESH_LIFE = timedelta(days=30)


@dataclass(frozen=True)
class SignedIn:
    """What a user holds after signing in."""

    token: str
    refresh_token: str


def sign_in(cache: Redis, user: str) -> SignedIn:
    """A session, a token that is valid by its signature, and a refresh token that is valid by being in the cache."""
    session, refresh = secrets.token_hex(16), secrets.token_hex(16)
    cache.set(f"session:{user}:{session}", user, ex=SESSION_LIFE)
    cache.set(f"refresh_token:{refresh}", user, ex=REFRESH_LIFE)
    return SignedIn(f"{session}.{_signature(session)}", refresh)


def revoke(cache: Redis, token: str) -> None:
    cache.set(_blacklisted(token), "blacklisted", ex=TOKEN_LIFE)


def is_accepted(cache: Redis, token: str) -> bool:
    session, _, signature = token.partition(".")
    return hmac.compare_digest(signature, _signature(session)) and not cache.exists(_blacklisted(token))


def can_refresh(cache: Redis, refresh_token: str) -> bool:
    return bool(cache.exists(f"refresh_token:{refresh_token}"))


def _signature(session: str) -> str:
    return hmac.new(_KEY, session.encode(), hashlib.sha256).hexdigest()


def _blacklisted(token: str) -> str:
    return f"blacklist:token:{hashlib.sha256(token.encode()).hexdigest()}"
