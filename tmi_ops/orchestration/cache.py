"""The cache as an asset: once an hour, whether Redis is well and its keys live no longer than they should."""

from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
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

from tmi_ops.orchestration.policies import OWNERS, pool
from tmi_ops.orchestration.progress import RunLogReport
from tmi_ops.orchestration.resources import Environment
from tmi_ops.orchestration.results import Materialized, megabytes

if TYPE_CHECKING:
    from tmi_ops.cache.checking import CacheCheck

REACHABLE, WELL = "reachable", "well"
NOT_CONFIGURED = "No cache is configured (REDIS_HOST, TMI_REDIS_URL), so none is looked after."


def cache_key(environment: str) -> AssetKey:
    return AssetKey([environment, "health", "cache"])


def cache_definitions(environment: str) -> Definitions:
    """The asset `<environment>/health/cache` with its checks; the job `health` takes it along."""
    key = cache_key(environment)

    @asset(
        key=key,
        description="TMI's Redis: memory, evictions, persistence, and the keys of every kind with the time they live. "
        "Nothing is changed.\n\nThe same by hand: `tmi-ops cache check`; after the database has jumped in time: "
        "`tmi-ops cache reconcile`.",
        group_name="health",
        kinds={"redis"},
        owners=OWNERS,
        check_specs=[
            AssetCheckSpec(REACHABLE, asset=key, description="It answers, and takes our password."),
            AssetCheckSpec(WELL, asset=key, description="Nothing of it needs mending."),
        ],
        pool=pool(environment, "health"),
    )
    def cache(context: AssetExecutionContext, environment: Environment) -> Materialized:
        from tmi_ops.cache.checking import check_cache
        from tmi_ops.cache.connection import connected
        from tmi_ops.errors import CacheError

        settings = environment.settings
        if settings.redis is None:
            return _told(NOT_CONFIGURED, is_reachable=True, is_well=True)
        try:
            with connected(settings.redis) as client:
                seen = check_cache(client, settings.cache, settings.redis.describe(), RunLogReport(context.log))
        except CacheError as error:
            return _told(f"{error.what} {error.next_step}", is_reachable=False, is_well=False)
        return Materialized(metadata=_metadata(seen), check_results=_check_results(seen))

    return Definitions(assets=[cache])


def _told(line: str, *, is_reachable: bool, is_well: bool) -> Materialized:
    """What is said where there was nothing to look at."""
    return Materialized(
        metadata={"in one line": MetadataValue.text(line)},
        check_results=[
            AssetCheckResult(check_name=REACHABLE, passed=is_reachable, description=line),
            AssetCheckResult(
                check_name=WELL, passed=is_well, severity=AssetCheckSeverity.WARN, description="Not looked at."
            ),
        ],
    )


def _metadata(seen: "CacheCheck") -> dict[str, MetadataValue[Any]]:
    server, census = seen.server, seen.census
    return {
        "in one line": MetadataValue.text(_in_one_line(seen)),
        "findings": _table(
            ("severity", "subject", "what", "what helps"),
            [(one.severity.value, one.subject, one.what, one.advice) for one in seen.findings],
        ),
        "key patterns": _table(
            ("pattern", "keys", "without TTL", "too long", "after a jump in time"),
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
        "answer (ms)": MetadataValue.float(server.ping_ms),
    }


def _check_results(seen: "CacheCheck") -> list[AssetCheckResult]:
    from tmi_ops.checks.finding import Severity

    is_critical = seen.worst is Severity.CRITICAL
    return [
        AssetCheckResult(
            check_name=REACHABLE, passed=True, description=f"It answered in {seen.server.ping_ms:.1f} ms."
        ),
        AssetCheckResult(
            check_name=WELL,
            passed=seen.worst in (None, Severity.NOTICE),
            severity=AssetCheckSeverity.ERROR if is_critical else AssetCheckSeverity.WARN,
            description=_in_one_line(seen),
        ),
    ]


def _in_one_line(seen: "CacheCheck") -> str:
    from tmi_ops.checks.finding import Severity

    if seen.worst in (None, Severity.NOTICE):
        return "Nothing to mend."
    first = seen.findings[0]
    return f"{first.subject}: {first.what}" + (f" → {first.advice}" if first.advice else "")


def _table(columns: tuple[str, ...], rows: list[tuple[str | int, ...]]) -> MetadataValue[Any]:
    records = [TableRecord(dict(zip(columns, row, strict=True))) for row in rows]
    types = ["int" if rows and isinstance(rows[0][place], int) else "string" for place in range(len(columns))]
    return MetadataValue.table(
        records, TableSchema([TableColumn(name, kind) for name, kind in zip(columns, types, strict=True)])
    )
