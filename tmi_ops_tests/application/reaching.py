"""Connections that come back: each is made by what the env file says at that moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import Any

import psycopg
from dotenv import dotenv_values
from redis import Redis

from tmi_ops.cache.connection import open_cache
from tmi_ops.postgres.connections import connection_parameters
from tmi_ops.settings.groups import postgres_from, redis_from

APPLICATION_NAME = "tmi-server"
CONNECT_TIMEOUT_S = 2


class Reaching:
    """One connection to the database and one to the cache, used by one thread at a time."""

    def __init__(self, env_file: Path) -> None:
        self._env_file = env_file
        self._lock = RLock()
        self._database: psycopg.Connection[Any] | None = None
        self._cache: Redis | None = None
        self._greetings: list[Callable[[psycopg.Connection[Any]], None]] = []

    def on_connect(self, greeting: Callable[[psycopg.Connection[Any]], None]) -> None:
        """What is done first on every new connection to the database."""
        self._greetings.append(greeting)

    @contextmanager
    def database(self) -> Iterator[psycopg.Connection[Any]]:
        """A transaction. A connection that failed is thrown away, so the next one is new."""
        with self._lock:
            if self._database is None:
                self._database = self._connect()
            try:
                with self._database.transaction():
                    yield self._database
            except (psycopg.OperationalError, psycopg.InterfaceError):
                self._forget_database()
                raise

    @property
    def cache(self) -> Redis:
        with self._lock:
            if self._cache is None:
                self._cache = open_cache(redis_from(self._values()), retries=0)
            return self._cache

    def forget(self) -> None:
        """Read the env file again before the next use."""
        with self._lock:
            self._forget_database()
            if self._cache is not None:
                self._cache.close()
            self._cache = None

    def _connect(self) -> psycopg.Connection[Any]:
        parameters = connection_parameters(postgres_from(self._values()))
        parameters |= {"application_name": APPLICATION_NAME, "connect_timeout": CONNECT_TIMEOUT_S}
        connection = psycopg.connect(**parameters, autocommit=True)
        for greeting in self._greetings:
            greeting(connection)
        return connection

    def _forget_database(self) -> None:
        if self._database is not None:
            with suppress(psycopg.Error):
                self._database.close()
        self._database = None

    def _values(self) -> dict[str, str]:
        return {name: value for name, value in dotenv_values(self._env_file).items() if value is not None}
