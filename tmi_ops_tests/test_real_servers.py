from __future__ import annotations

import redis

from tmi_ops.postgres.connections import connect
from tmi_ops.settings import Settings


def test_the_suite_stands_on_a_real_postgresql_and_a_real_redis_protocol_server(settings: Settings) -> None:
    with connect(settings.postgres) as connection:
        row = connection.execute("SELECT version()").fetchone()
    assert row is not None
    assert row[0].startswith("PostgreSQL 17")
    assert settings.redis.password is not None
    with redis.Redis(
        host=settings.redis.host,
        port=settings.redis.port,
        password=settings.redis.password.get_secret_value(),
    ) as client:
        assert client.ping()
