"""A Redis database of its own for each test, on the run's real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from tmi_ops.cache.connection import connected
from tmi_ops.settings import RedisSettings

# Other tests write into database 0.
OWN_DATABASE = 5


@pytest.fixture
def redis(redis_server: RedisSettings) -> RedisSettings:
    return redis_server.model_copy(update={"db": OWN_DATABASE})


@pytest.fixture
def client(redis: RedisSettings) -> Iterator[Redis]:
    with connected(redis) as client:
        client.flushdb()
        yield client
        client.flushdb()
