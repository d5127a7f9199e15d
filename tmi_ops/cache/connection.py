"""Reaching TMI's cache: Redis 6 or later, or Valkey."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from redis import Redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from tmi_ops.errors import CacheError
from tmi_ops.settings import RedisSettings

TIMEOUT_S = 5.0
RETRIES = 3


def is_configured(settings: RedisSettings, variables: Mapping[str, str]) -> bool:
    """Whether anybody has said where the cache is; without, `settings` are nothing but defaults."""
    return settings != RedisSettings() or any(name.startswith(("REDIS_", "TMI_REDIS_")) for name in variables)


def open_cache(settings: RedisSettings, *, retries: int = RETRIES) -> Redis:
    """A client that connects with its first command. Names and values are bytes: other programs' need not be text.

    A connection that breaks is made anew `retries` times, so every command sent must bear being sent twice.
    """
    return Redis(
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
def connected(settings: RedisSettings) -> Iterator[Redis]:
    """A client for the length of a `with` block; what goes wrong in it is said in plain words.

    Raises:
        CacheError: the cache could not be reached, refused us, or answered with an error.
    """
    client = open_cache(settings)
    try:
        yield client
    except RedisError as error:
        raise _explained(settings, error) from error
    finally:
        client.close()


def _explained(settings: RedisSettings, error: RedisError) -> CacheError:
    refused = isinstance(error, AuthenticationError)
    unreachable = isinstance(error, RedisConnectionError | RedisTimeoutError) and not refused
    said = str(error).rstrip(".")
    return CacheError(
        f"The cache at {settings.describe()} {'cannot be reached' if unreachable else 'refused'}: {said}.",
        kept="Keys that were to stay are untouched; what was dropped already stays dropped.",
        next_step="`tmi-ops doctor` names the cause; then run this again: it takes up what is left",
        transient=unreachable,
    )
