"""A status as metrics, for Prometheus and other OpenMetrics readers. Pure.

Every family is always present; one without a sample is unknown. Seconds, bytes and Unix times.

Source: https://prometheus.io/docs/specs/om/open_metrics_spec/ and https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

from tmi_ops import __version__
from tmi_ops.objectives.facts import ShadowReading
from tmi_ops.objectives.history import Worst
from tmi_ops.objectives.standing import Standing
from tmi_ops.objectives.status import Recoverability, Status

PREFIX = "tmi_ops"
_Labels = Mapping[str, str]
_Samples = Iterator[tuple[str, _Labels, float | None]]

# Name (below the prefix): what it is, and its labels besides the environment.
GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "reachable": ("1 if the store, the database or Dagster's database could be read.", ("target",)),
    "standing": ("1 for the status that an objective has, 0 for the others.", ("objective", "standing")),
    "rpo_seconds": ("Achieved RPO now: age of the latest verified recovery point.", ()),
    "rpo_objective_seconds": ("Recovery point objective.", ()),
    "rpo_worst_seconds": ("Worst achieved RPO of a period that ends now, as far as measured.", ("over",)),
    "rpo_measured_ratio": ("Share of that period that was measured.", ("over",)),
    "rto_forecast_seconds": ("How long a recovery to the newest moment would take now.", ()),
    "rto_objective_seconds": ("Recovery time objective.", ()),
    "rto_phase_seconds": ("Phases of the RTO forecast.", ("phase",)),
    "drill_seconds": ("How long recovery and verification of the last drill took.", ()),
    "drill_passed": ("1 if the last drill passed.", ()),
    "drill_timestamp_seconds": ("When the last drill ended.", ()),
    "proof_timestamp_seconds": ("When a backup was last verified.", ()),
    "recoverable_from_timestamp_seconds": ("Every moment since then can be recovered.", ()),
    "recoverable_to_timestamp_seconds": (
        "The newest recoverable moment; `proven`: by verified backups, `any`: by any backup.",
        ("proof",),
    ),
    "logical_backup_age_seconds": (
        "Age of the newest verified logical backup of a further database; absent: none is verified.",
        (),
    ),
    "logical_backup_age_limit_seconds": ("How old it may be.", ()),
    "failed_backups": ("Backups in the store that failed verification.", ()),
    "wal_behind_bytes": ("WAL that the server has and the store lacks.", ()),
    "slot_kept_bytes": ("WAL that the server keeps for the replication slot.", ()),
    "slot_left_bytes": ("WAL that may be written before the slot is lost; absent: no limit.", ()),
    "receiver_at_work": ("1 while a receiver holds the lease of the archive.", ()),
    "shadow_verified_timestamp_seconds": ("The shadow has replayed every commit until then.", ()),
    "shadow_report_age_seconds": ("Age of the shadow's report; absent if it is too old to count.", ()),
    "shadow_behind_bytes": ("WAL that the archive has and the shadow has not replayed.", ()),
    "shadow_replays": ("1 while the shadow replays, 0 if it has stopped; absent: no shadow counts.", ()),
    "shadow_sound": ("0 if the shadow's checks found damage.", ()),
    "shadow_promotion_seconds": ("How long a promotion of the shadow took when it was measured.", ()),
    "store_bytes": ("Bytes in the store.", ("kind",)),
    "store_objects": ("Objects in the store.", ("kind",)),
    "store_added_bytes": ("Bytes stored within the last 24 hours that are still there.", ("kind",)),
    "alerts_open": ("Open alerts.", ()),
    "health_probes": ("Health probes by their last result, including the schema's.", ("verdict",)),
    "health_timestamp_seconds": ("When the health probe with the oldest result last ran.", ()),
    "next_run_timestamp_seconds": ("When a schedule runs next.", ("schedule",)),
    "read_timestamp_seconds": ("When these values were read.", ()),
}


def families(status: Status) -> Iterator[Metric]:
    """All metrics of one environment."""
    gauges = {
        name: GaugeMetricFamily(f"{PREFIX}_{name}", said, labels=("environment", *labels))
        for name, (said, labels) in GAUGES.items()
    }
    for name, labels, value in _samples(status):
        if value is not None:
            wanted = GAUGES[name][1]
            gauges[name].add_metric([status.environment, *(labels[label] for label in wanted)], value)
    info = InfoMetricFamily(f"{PREFIX}_build", "The release of tmi_ops that read this.", labels=("environment",))
    info.add_metric([status.environment], {"version": __version__})
    yield from gauges.values()
    yield info


def _samples(status: Status) -> _Samples:
    found = status.recoverability
    yield "reachable", {"target": "store"}, float(found is not None)
    yield "reachable", {"target": "database"}, float(status.database_problem is None)
    yield "reachable", {"target": "dagster"}, float(status.automatic.problem is None)
    yield "read_timestamp_seconds", {}, status.at.timestamp()
    yield "alerts_open", {}, None if status.alerts is None else float(len(status.alerts))
    if status.health is not None:
        yield "health_timestamp_seconds", {}, status.health.oldest_at.timestamp()
        for outcome, probes in status.health.counts.items():
            yield "health_probes", {"verdict": outcome.value}, float(probes)
    for run in status.automatic.runs:
        yield "next_run_timestamp_seconds", {"schedule": run.schedule}, run.at.timestamp()
    if found is not None:
        yield from _promises(found)
        yield from _recoverable(found)
        yield from _stream(found)
        yield from _shadow(found.facts.shadow)
        for kind, usage in found.facts.storage.items():
            yield "store_bytes", {"kind": kind}, float(usage.size)
            yield "store_objects", {"kind": kind}, float(usage.objects)
            yield "store_added_bytes", {"kind": kind}, float(usage.added_day)


def _promises(found: Recoverability) -> _Samples:
    judged = {"rpo": found.rpo.standing, "rto": found.rto.standing, "wal_stream": found.stream.standing}
    if found.dumps is not None:
        judged["logical_backups"] = found.dumps.standing
        yield "logical_backup_age_seconds", {}, _seconds(found.dumps.value)
        yield "logical_backup_age_limit_seconds", {}, _seconds(found.dumps.objective)
    for objective, standing in judged.items():
        for one in Standing:
            yield "standing", {"objective": objective, "standing": one.value}, float(one is standing)
    yield "rpo_seconds", {}, _seconds(found.rpo.value)
    yield "rpo_objective_seconds", {}, _seconds(found.rpo.objective)
    for over, worst in (("24h", found.worst_day), ("30d", found.worst_month)):
        yield "rpo_worst_seconds", {"over": over}, _seconds(worst.value)
        yield "rpo_measured_ratio", {"over": over}, _ratio(worst)
    yield "rto_forecast_seconds", {}, _seconds(found.rto.value)
    yield "rto_objective_seconds", {}, _seconds(found.rto.objective)
    for phase in found.rto.phases:
        yield "rto_phase_seconds", {"phase": phase.phase}, phase.seconds
    drill = found.rto.last_drill
    if drill is not None:
        yield "drill_seconds", {}, _seconds(drill.rto)
        yield "drill_passed", {}, float(drill.outcome == "passed")
        yield "drill_timestamp_seconds", {}, drill.at.timestamp()


def _recoverable(found: Recoverability) -> _Samples:
    facts = found.facts
    yield "recoverable_from_timestamp_seconds", {}, _time(facts.earliest_at)
    yield "recoverable_to_timestamp_seconds", {"proof": "proven"}, _time(facts.verified.at if facts.verified else None)
    yield "recoverable_to_timestamp_seconds", {"proof": "any"}, _time(facts.newest.at if facts.newest else None)
    yield "proof_timestamp_seconds", {}, _time(facts.last_verification.at if facts.last_verification else None)
    yield "failed_backups", {}, float(len(facts.failed))


def _stream(found: Recoverability) -> _Samples:
    stream, receiver = found.stream, found.facts.receiver
    yield "wal_behind_bytes", {}, _number(stream.behind)
    yield "slot_kept_bytes", {}, _number(stream.kept)
    yield "slot_left_bytes", {}, _number(stream.left)
    yield "receiver_at_work", {}, float(receiver is not None and receiver.at_work)


def _shadow(shadow: ShadowReading | None) -> _Samples:
    if shadow is None:
        return
    yield "shadow_verified_timestamp_seconds", {}, shadow.verified_to.timestamp()
    yield "shadow_report_age_seconds", {}, shadow.age.total_seconds()
    yield "shadow_behind_bytes", {}, float(shadow.behind)
    yield "shadow_replays", {}, float(shadow.stopped is None)
    yield "shadow_sound", {}, float(shadow.damage is None)
    yield "shadow_promotion_seconds", {}, _seconds(shadow.promotion)


def _ratio(worst: Worst) -> float:
    return worst.measured / worst.over


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()


def _time(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _number(size: int | None) -> float | None:
    return None if size is None else float(size)
