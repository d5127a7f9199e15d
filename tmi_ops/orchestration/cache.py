"""The cache as an asset: checks Redis and the TTLs of its keys once an hour."""

from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckResult,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetKey,
    Definitions,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
    asset,
)

from tmi_ops.checks.finding import Answer, critical, fine, not_applicable, unknown
from tmi_ops.orchestration.check_results import check_result, findings_metadata, summed_up, with_advice
from tmi_ops.orchestration.policies import OWNERS, pool
from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.resources import Environment
from tmi_ops.orchestration.results import Materialized, megabytes

if TYPE_CHECKING:
    from tmi_ops.cache.checking import CacheCheck

REACHABLE, WELL = "reachable", "well"
NOT_CONFIGURED = not_applicable("No cache is configured (REDIS_HOST, TMI_REDIS_URL).")
NO_FINDINGS = "No problems found."


def cache_key(here: Protected) -> AssetKey:
    return here.key("health", "cache")


def cache_definitions(here: Protected) -> Definitions:
    """The asset `<environment>/health/cache` with its checks; the job `health` includes it."""
    key = cache_key(here)

    @asset(
        key=key,
        description=here.for_people(
            "TMI's Redis: memory, evictions, persistence, and the TTLs of each kind of key. Changes nothing.\n\n"
            "Command: `tmi-ops cache check`; after a recovery of the database: `tmi-ops cache reconcile`."
        ),
        group_name="health",
        kinds={"redis"},
        owners=OWNERS,
        check_specs=[
            AssetCheckSpec(REACHABLE, asset=key, description="Redis answers and accepts the password."),
            AssetCheckSpec(WELL, asset=key, description="The cache has no problems."),
        ],
        pool=pool(here, "health"),
    )
    @here.given
    def cache(context: AssetExecutionContext, environment: Environment) -> Materialized:
        from tmi_ops.cache.checking import check_cache
        from tmi_ops.cache.connection import connected
        from tmi_ops.errors import CacheError

        settings = environment.settings
        if settings.redis is None:
            return _told(NOT_CONFIGURED)
        try:
            with connected(settings.redis) as client:
                seen = check_cache(client, settings.cache, settings.redis.describe(), environment.report(context.log))
        except CacheError as error:
            return _told(critical(error.message, "", error.hint))
        return Materialized(metadata=_metadata(seen), check_results=_check_results(seen))

    return Definitions(assets=[cache])


def _told(reachable: Answer) -> Materialized:
    """The result if the cache could not be checked."""
    well = NOT_CONFIGURED if reachable is NOT_CONFIGURED else unknown("Not checked.")
    return Materialized(
        metadata={"summary": MetadataValue.text(with_advice(reachable))},
        check_results=[check_result(REACHABLE, reachable), check_result(WELL, well)],
    )


def _metadata(seen: "CacheCheck") -> dict[str, MetadataValue[Any]]:
    server, census = seen.server, seen.census
    return {
        "summary": MetadataValue.text(with_advice(summed_up(seen.findings, NO_FINDINGS))),
        **findings_metadata(seen.findings),
        "key patterns": _table(
            ("pattern", "keys", "without TTL", "TTL too long", "after a recovery"),
            [
                (count.rule.pattern, count.keys, count.for_ever, count.too_long, f"{count.rule.action}")
                for count in census.counts
                if count.keys
            ],
        ),
        "server": MetadataValue.text(f"{server.name} {server.version} at {seen.address}, {server.eviction_policy}"),
        "keys": MetadataValue.int(census.keys),
        "unknown keys": MetadataValue.int(census.unknown_keys),
        "memory (MB)": megabytes(server.used_memory),
        "evicted keys": MetadataValue.int(server.evicted),
        "response time (ms)": MetadataValue.float(server.ping_ms),
    }


def _check_results(seen: "CacheCheck") -> list[AssetCheckResult]:
    return [
        check_result(REACHABLE, fine(f"Redis answered in {seen.server.ping_ms:.1f} ms.")),
        check_result(WELL, summed_up(seen.findings, NO_FINDINGS)),
    ]


def _table(columns: tuple[str, ...], rows: list[tuple[str | int, ...]]) -> MetadataValue[Any]:
    records = [TableRecord(dict(zip(columns, row, strict=True))) for row in rows]
    types = ["int" if rows and isinstance(rows[0][place], int) else "string" for place in range(len(columns))]
    return MetadataValue.table(
        records, TableSchema([TableColumn(name, kind) for name, kind in zip(columns, types, strict=True)])
    )
