"""Plans maintenance from health's results. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tmi_ops.checks.finding import Outcome
from tmi_ops.health.examine import Examined
from tmi_ops.health.maintenance.limits import Limits
from tmi_ops.health.maintenance.steps import Analyze, DropLeftover, EndSession, LeftOut, Plan, Rebuild, Step, Vacuum
from tmi_ops.health.probes.bloat import Bloat, BloatedIndex
from tmi_ops.health.probes.disk import DiskSpace
from tmi_ops.health.probes.indexes import InvalidIndexes
from tmi_ops.health.probes.sessions import Session, Sessions
from tmi_ops.health.probes.vacuum import Upkeep
from tmi_ops.health.probes.wraparound import Wraparound
from tmi_ops.text import format_duration, format_size

# The probes that a plan needs.
PROBES = (
    "idle_in_transaction",
    "long_running_queries",
    "autovacuum",
    "analyze",
    "transaction_wraparound",
    "multixact_wraparound",
    "invalid_indexes",
    "index_bloat",
    "disk_space",
)
# The new index is built while the old one exists, and its WAL and everything else need disk, too.
_DISK_FACTOR = 2


def plan_maintenance(results: Sequence[Examined], limits: Limits) -> Plan:
    """The plan for these results: sessions first, as they keep dead rows from being removed; then tables, then indexes.

    Args:
        results: of at least the probes in PROBES.
    """
    by_name = {result.probe.name: result for result in results}
    planned: list[Step | LeftOut] = []
    if "connections" in limits.kinds:
        planned += _sessions(by_name, limits)
    if "vacuum" in limits.kinds:
        planned += _vacuums(by_name)
    if "analyze" in limits.kinds:
        vacuumed = {step.table for step in planned if isinstance(step, Vacuum)}
        planned += (step for step in _analyzes(by_name) if step.table not in vacuumed)
    if "reindex" in limits.kinds:
        planned += _indexes(by_name)
    planned += _untold(by_name, limits)
    return Plan(
        steps=tuple(one for one in planned if not isinstance(one, LeftOut)),
        left_out=tuple(one for one in planned if isinstance(one, LeftOut)),
    )


def _sessions(results: dict[str, Examined], limits: Limits) -> Iterator[EndSession | LeftOut]:
    for name, longest, idle in (
        ("idle_in_transaction", limits.idle_s, True),
        ("long_running_queries", limits.running_s, False),
    ):
        reading = results[name].reading
        if not isinstance(reading, Sessions):
            continue
        for session in reading.judged:
            if session.seconds >= longest:
                yield _session(session, limits, idle=idle)


def _session(session: Session, limits: Limits, *, idle: bool) -> EndSession | LeftOut:
    what = "idle in a transaction" if idle else "has been running a query"
    reason = f"{what} for {format_duration(session.seconds)}"
    if session.privileged:
        return LeftOut(session.describe(), f"{reason}, but its role is a superuser or has REPLICATION: end it by hand")
    if not limits.terminate:
        return LeftOut(session.describe(), f"{reason}: use `--terminate` to end it")
    return EndSession(session.pid, session.backend_start, session.xact_start, idle, session.describe(), reason)


def _vacuums(results: dict[str, Examined]) -> Iterator[Vacuum | LeftOut]:
    frozen: set[str] = set()
    for name in ("transaction_wraparound", "multixact_wraparound"):
        reading = results[name].reading
        if not isinstance(reading, Wraparound) or results[name].outcome not in (Outcome.WARNING, Outcome.CRITICAL):
            continue
        for table in reading.tables:
            if table.age >= reading.freeze_at and table.name not in frozen:
                frozen.add(table.name)
                yield Vacuum(table.name, f"its oldest row is {table.age:,} {reading.what}s old", freeze=True)
        elsewhere = [one.name for one in reading.databases if not one.is_ours and one.age >= reading.freeze_at]
        for database in elsewhere:
            yield LeftOut(f"database {database}", f"has old {reading.what}s, too: run maintenance there")
    upkeep = results["autovacuum"]
    if isinstance(upkeep.reading, Upkeep):
        for due in sorted(upkeep.reading.tables, key=lambda one: -one.vacuum_due):
            if upkeep.thresholds.crossed(due.vacuum_due) and due.name not in frozen:
                yield Vacuum(due.name, f"{due.dead:,} dead rows, autovacuum is due at {due.vacuum_at:,.0f}")


def _analyzes(results: dict[str, Examined]) -> Iterator[Analyze]:
    statistics = results["analyze"]
    if isinstance(statistics.reading, Upkeep):
        for due in sorted(statistics.reading.tables, key=lambda one: -one.analyze_due):
            if statistics.thresholds.crossed(due.analyze_due):
                yield Analyze(due.name, f"{due.modified:,} rows changed since the last ANALYZE")


def _indexes(results: dict[str, Examined]) -> Iterator[Step | LeftOut]:
    rebuilds: list[Rebuild] = []
    invalid = results["invalid_indexes"].reading
    if isinstance(invalid, InvalidIndexes):
        for index in invalid.indexes:
            if index.being_built:
                yield LeftOut(index.name, f"an index of {index.table_name} is being built")
            elif index.original is not None:
                reason = f"invalid, left by an unfinished rebuild of {index.original}"
                yield DropLeftover(index.name, index.table_name, index.original, reason)
            else:
                rebuilds.append(Rebuild(index.name, index.table_name, "invalid: its build did not finish"))
    bloat = results["index_bloat"]
    if isinstance(bloat.reading, Bloat):
        for item in bloat.reading.over(bloat.thresholds):
            if isinstance(item, BloatedIndex) and item.name not in {one.index for one in rebuilds}:
                reason = f"wastes {format_size(item.wasted or 0)} of {format_size(item.size)}"
                rebuilds.append(Rebuild(item.name, item.table_name, reason, item.size))
    yield from (_if_it_fits(rebuild, results["disk_space"]) for rebuild in rebuilds)


def _if_it_fits(rebuild: Rebuild, disk: Examined) -> Rebuild | LeftOut:
    if not _has_schema(rebuild.index):
        return LeftOut(rebuild.index, "indexes of system catalogs cannot be rebuilt concurrently")
    if isinstance(disk.reading, DiskSpace):
        free = min(one.free for one in disk.reading.filesystems)
        if free < _DISK_FACTOR * rebuild.size:
            return LeftOut(
                rebuild.index, f"{rebuild.reason}, but a rebuild needs twice its size on a disk with "
                f"{format_size(free)} free",
            )  # fmt: skip
    return rebuild


def _has_schema(name: str) -> bool:
    """Probes qualify every name with its schema, except names in pg_catalog."""
    return "." in name


_KIND_OF = {
    "idle_in_transaction": "connections",
    "long_running_queries": "connections",
    "autovacuum": "vacuum",
    "transaction_wraparound": "vacuum",
    "multixact_wraparound": "vacuum",
    "analyze": "analyze",
    "invalid_indexes": "reindex",
    "index_bloat": "reindex",
}


def _untold(results: dict[str, Examined], limits: Limits) -> Iterator[LeftOut]:
    for name, kind in _KIND_OF.items():
        result = results[name]
        if result.outcome is Outcome.UNKNOWN and kind in limits.kinds:
            yield LeftOut(name, f"unknown: {result.answer.seen}")
