"""Threat models as TMI stores them: a row with a version, its threats, and an audit entry for every change."""

from __future__ import annotations

import json
import random
import uuid
from contextlib import suppress
from datetime import timedelta
from typing import Any

import psycopg
from redis import Redis
from redis.exceptions import RedisError

from tmi_ops_tests.application.journal import Row

USER = "00000000-0000-4000-8000-00000000a11c"
EMAIL = "alice@example.com"
CACHE_LIFE = timedelta(minutes=10)
SHARE_OF_NEW = 0.2


def add_user(connection: psycopg.Connection[Any]) -> None:
    """The owner of everything written here; a recovery may have gone back to before there was one."""
    connection.execute(
        "INSERT INTO users (internal_uuid, provider, provider_user_id, email, name, created_at, modified_at)"
        " VALUES (%s, 'tests', 'alice', %s, 'Alice', now(), now()) ON CONFLICT DO NOTHING",
        (USER, EMAIL),
    )


class Work:
    """What the application has to do: now a new threat model, now a change to one of those it made."""

    def __init__(self, seed: int = 0) -> None:
        self._chance = random.Random(seed)  # noqa: S311
        self._models: list[str] = []

    def write_some(self, connection: psycopg.Connection[Any]) -> tuple[str, tuple[Row, ...]]:
        """The threat model that was written, and every row, to be taken for done once the transaction is committed."""
        model = None if self._chance.random() < SHARE_OF_NEW else self._some_model()
        version = self._change(connection, model) if model else None
        if model is None or version is None:
            self._drop(model)
            model, version = str(uuid.uuid4()), 1
            connection.execute(
                "INSERT INTO threat_models (id, owner_internal_uuid, created_by_internal_uuid, name, alias,"
                " created_at, modified_at, version)"
                " SELECT %s, %s, %s, %s, coalesce(max(alias), 0) + 1, now(), now(), 1 FROM threat_models",
                (model, USER, USER, f"Model {model[:8]}"),
            )
        threat, entry = str(uuid.uuid4()), str(uuid.uuid4())
        connection.execute(
            "INSERT INTO threats (id, threat_model_id, name, threat_type, alias, created_at, modified_at)"
            " VALUES (%s, %s, %s, '[\"Spoofing\"]', %s, now(), now())",
            (threat, model, f"Threat {threat[:8]}", version),
        )
        connection.execute(
            "INSERT INTO audit_entries (id, threat_model_id, object_type, object_id, version, change_type, actor_email,"
            " actor_provider, actor_provider_id, actor_display_name, created_at)"
            " VALUES (%s, %s, 'threat_model', %s, %s, %s, %s, 'tests', 'alice', 'Alice', now())",
            (entry, model, model, version, "created" if version == 1 else "updated", EMAIL),
        )
        return model, (Row("threat_models", model, version), Row("threats", threat, 1), Row("audit_entries", entry, 1))

    def done(self, model: str) -> None:
        """The transaction that wrote this threat model was committed."""
        if model not in self._models:
            self._models.append(model)

    def _some_model(self) -> str | None:
        return self._chance.choice(self._models) if self._models else None

    def _change(self, connection: psycopg.Connection[Any], model: str) -> int | None:
        row = connection.execute(
            "UPDATE threat_models SET version = version + 1, modified_at = now() WHERE id = %s RETURNING version",
            (model,),
        ).fetchone()
        return row[0] if row else None

    def _drop(self, model: str | None) -> None:
        if model in self._models:
            self._models.remove(model)


def read_through(connection: psycopg.Connection[Any], cache: Redis, model: str) -> dict[str, Any] | None:
    """A threat model from the cache, else from the database and into the cache, which may be away."""
    with suppress(RedisError):
        if cached := cache.get(_key(model)):
            return dict(json.loads(cached))
    row = connection.execute("SELECT id, name, version FROM threat_models WHERE id = %s", (model,)).fetchone()
    if row is None:
        return None
    found = dict(zip(("id", "name", "version"), row, strict=True))
    with suppress(RedisError):
        cache.set(_key(model), json.dumps(found), ex=CACHE_LIFE)
    return found


def invalidate(cache: Redis, model: str) -> None:
    with suppress(RedisError):
        cache.delete(_key(model))


def _key(model: str) -> str:
    return f"cache:threat_model:{model}"
