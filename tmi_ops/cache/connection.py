"""Connections to TMI's cache: Redis 6 or later, or Valkey."""

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

from tmi_ops.error_codes import Code
from tmi_ops.errors import CacheError, SettingsError
from tmi_ops.settings import RedisSettings

TIMEOUT_S = 5.0
RETRIES = 3
NOT_CONFIGURED = "No cache is configured (REDIS_HOST, TMI_REDIS_URL)"


class _Hurried(Redis):
    """A client that starts no command after its deadline; a walk over all keys consists of many commands."""

    ends_at: float | None = None

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if self.ends_at is not None and time.monotonic() > self.ends_at:
            raise RedisTimeoutError("the time limit was reached")
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


def require_cache(settings: RedisSettings | None) -> RedisSettings:
    """The cache's settings, for a command that needs one.

    Raises:
        SettingsError: none is configured.
    """
    if settings is None:
        raise SettingsError(
            "No cache is configured.",
            hint="set REDIS_HOST or TMI_REDIS_URL; `tmi-ops settings` shows which settings are read",
            code=Code.NO_CACHE,
        )
    return settings


def open_cache(settings: RedisSettings, *, retries: int = RETRIES) -> Redis:
    """A client that connects with its first command. Names and values are bytes: those of others need not be text.

    A broken connection is reopened `retries` times, so every command must be safe to send twice.
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
    """A client for a `with` block; its errors become CacheErrors.

    Args:
        within_s: no command starts after this many seconds, or is tried more than twice; None: no limit.

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
    """The error of one request without retries; empty: the cache answers. Changes nothing."""
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
        f"The cache at {settings.describe()} {'could not be reached' if unreachable else 'refused a command'}: {said}.",
        detail="No key to be kept was touched; keys dropped so far are gone.",
        hint="run `tmi-ops doctor` to find the cause, then run this command again: it continues with the keys left",
        transient=unreachable,
    )
