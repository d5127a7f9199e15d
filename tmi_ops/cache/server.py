"""Facts about the cache's server (source: Redis, command INFO; Valkey answers the same)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError
from redis.utils import str_if_bytes


@dataclass(frozen=True)
class CacheServer:
    """Facts at one time. Sizes in bytes; None: the server does not report it.

    Attributes:
        ping_ms: how long it took to answer.
        max_memory: None if there is no limit.
        snapshots: the `save` setting; "" if snapshots are off, None if CONFIG is not allowed.
        snapshot_ok: whether the last one succeeded.
        log_ok: whether the append-only file could be written.
        hit_ratio: of reads since the server started; None if there were none.
        primary: `host:port` that a replica follows.
    """

    name: str
    version: str
    uptime_s: int
    ping_ms: float
    clients: int
    used_memory: int
    max_memory: int | None
    eviction_policy: str
    evicted: int
    hit_ratio: float | None
    append_only: bool
    log_ok: bool
    snapshots: str | None
    snapshot_ok: bool
    unsaved_changes: int
    is_replica: bool = False
    is_clustered: bool = False
    primary: str = ""

    @property
    def persists(self) -> bool | None:
        """Whether a restart keeps the keys; None if unknown."""
        if self.append_only:
            return True
        return None if self.snapshots is None else bool(self.snapshots)


def read_server(client: Redis) -> CacheServer:
    """Query the server. Changes nothing.

    Raises:
        redis.RedisError: it failed; `connection.connected` makes it a CacheError.
    """
    begun = time.perf_counter()
    client.ping()
    ping_ms = (time.perf_counter() - begun) * 1000
    return server_from(client.info(), _snapshot_setting(client), ping_ms)


def server_from(info: Mapping[str, Any], snapshots: str | None, ping_ms: float) -> CacheServer:
    """The facts in the answer to INFO. Pure."""
    hits, misses = info.get("keyspace_hits", 0), info.get("keyspace_misses", 0)
    is_replica = info.get("role") == "slave"
    return CacheServer(
        name=str(info.get("server_name", "redis")),
        version=str(info.get("valkey_version") or info.get("redis_version", "?")),
        uptime_s=info.get("uptime_in_seconds", 0),
        ping_ms=round(ping_ms, 2),
        clients=info.get("connected_clients", 0),
        used_memory=info.get("used_memory", 0),
        max_memory=info.get("maxmemory") or None,
        eviction_policy=str(info.get("maxmemory_policy", "?")),
        evicted=info.get("evicted_keys", 0),
        hit_ratio=round(hits / (hits + misses), 4) if hits + misses else None,
        append_only=bool(info.get("aof_enabled")),
        log_ok=info.get("aof_last_write_status", "ok") == "ok",
        snapshots=snapshots,
        snapshot_ok=info.get("rdb_last_bgsave_status", "ok") == "ok",
        unsaved_changes=info.get("rdb_changes_since_last_save", 0),
        is_replica=is_replica,
        is_clustered=bool(info.get("cluster_enabled")),
        primary=f"{info.get('master_host')}:{info.get('master_port')}" if is_replica else "",
    )


def _snapshot_setting(client: Redis) -> str | None:
    """Providers of a managed Redis forbid CONFIG."""
    try:
        answer = client.config_get("save")
    except ResponseError:
        return None
    return next((str_if_bytes(value) for value in answer.values() if value is not None), "")
