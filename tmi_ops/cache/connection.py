"""Reaching TMI's cache: Redis 6 or later, or Valkey."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from tmi_ops.errors import CacheError, SettingsError
from tmi_ops.settings import RedisSettings

TIMEOUT_S = 5.0
RETRIES = 3
NOT_CONFIGURED = "No cache is configured (REDIS_HOST, TMI_REDIS_URL)"


class _Hurried(Redis):
    """A client that begins no command once its time is over; walks over all keys are made of many."""

    ends_at: float | None = None

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if self.ends_at is not None and time.monotonic() > self.ends_at:
            raise RedisTimeoutError("it took too long")
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


def require_cache(settings: RedisSettings | None) -> RedisSettings:
    """The cache, for a command that is about nothing else.

    Raises:
        SettingsError: none is configured.
    """
    if settings is None:
        raise SettingsError(
            "No cache is configured.",
            hint="set REDIS_HOST or TMI_REDIS_URL; `tmi-ops settings` shows what is read",
        )
    return settings


def open_cache(settings: RedisSettings, *, retries: int = RETRIES) -> Redis:
    """A client that connects with its first command. Names and values are bytes: other programs' need not be text.

    A connection that breaks is made anew `retries` times, so every command sent must bear being sent twice.
    """
    return _Hurried(
        host=settings.host,
        port=settings.port,
        db=settings.db,
        username=settings.user,
        password=settings.password.get_secret_value() if settings.password else None,
        ssl=settings.tls_enabled,
        ssl_ca_certs=settings.tls_ca_file,
        ssl_check_hostname=True,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(ExponentialBackoff(cap=1, base=0.05) if retries else NoBackoff(), retries),
        client_name="tmi_ops",
    )


@contextmanager
def connected(settings: RedisSettings, *, within_s: float | None = None) -> Iterator[Redis]:
    """A client for the length of a `with` block; what goes wrong in it is said in plain words.

    Args:
        within_s: no command is begun after so many seconds, nor tried more than twice; None: there is no haste.

    Raises:
        CacheError: the cache could not be reached, refused us, took too long, or answered with an error.
    """
    client = open_cache(settings, retries=RETRIES if within_s is None else 1)
    if within_s is not None and isinstance(client, _Hurried):
        client.ends_at = time.monotonic() + within_s
    try:
        yield client
    except RedisError as error:
        raise _explained(settings, error) from error
    finally:
        client.close()


def why_unanswered(settings: RedisSettings) -> str:
    """What goes wrong when the cache is asked once, without patience; empty: it answers. Changes nothing."""
    client = open_cache(settings, retries=0)
    try:
        client.dbsize()
    except RedisError as error:
        return str(error).rstrip(".") or type(error).__name__
    finally:
        client.close()
    return ""


def _explained(settings: RedisSettings, error: RedisError) -> CacheError:
    refused = isinstance(error, AuthenticationError)
    unreachable = isinstance(error, RedisConnectionError | RedisTimeoutError) and not refused
    said = str(error).rstrip(".")
    return CacheError(
        f"The cache at {settings.describe()} {'cannot be reached' if unreachable else 'refused'}: {said}.",
        detail="Keys that were to stay are untouched; what was dropped already stays dropped.",
        hint="`tmi-ops doctor` names the cause; then run this again: it takes up what is left",
        transient=unreachable,
    )
