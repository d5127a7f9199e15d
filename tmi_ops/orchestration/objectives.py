"""RPO and RTO as assets: the value, the objective, the status with its reason, and the cheapest cure."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckResult,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetKey,
    AssetSelection,
    AssetSpec,
    Definitions,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
    multi_asset,
)

from tmi_ops.objectives.acting import Judged
from tmi_ops.objectives.standing import Standing
from tmi_ops.orchestration.guarding import MET_CHECK, severity_of
from tmi_ops.orchestration.in_tick import Done
from tmi_ops.orchestration.policies import OWNERS, Lane, job_tags, pool
from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.readings import recent_facts
from tmi_ops.orchestration.resources import Environment, failures_explained
from tmi_ops.orchestration.results import Materialized, in_megabytes, megabytes, seconds
from tmi_ops.orchestration.schedules import scheduled
from tmi_ops.settings import Objectives

if TYPE_CHECKING:
    from tmi_ops.objectives.facts import RecoverabilityFacts
    from tmi_ops.objectives.history import Day
    from tmi_ops.objectives.rpo import RpoReading
    from tmi_ops.objectives.rto import RtoForecast
    from tmi_ops.objectives.stream import StreamReading

JOB = "objectives"
LONGEST_RUN = timedelta(minutes=15)
_Metadata = dict[str, MetadataValue[Any]]


def objectives_definitions(here: Protected) -> Definitions:
    """Assets `<environment>/objectives/rpo` and `/rto` with a check each, their job, and a schedule by the RPO."""
    rpo_key, rto_key = (here.key("objectives", name) for name in ("rpo", "rto"))

    @multi_asset(
        name=here.step_of_several("objectives"),
        specs=[
            _spec(
                here,
                rpo_key,
                "The recovery point objective: how much data would be lost if the server were lost now, counted from "
                "the newest moment that a verified backup and the WAL after it can be recovered to.",
            ),
            _spec(
                here,
                rto_key,
                "The recovery time objective: how long a recovery to the newest moment would take now, forecast from "
                "the speeds that drills measured and today's sizes.",
            ),
        ],
        check_specs=[
            AssetCheckSpec(MET_CHECK, asset=rpo_key, description="The data that would be lost now is within the RPO."),
            AssetCheckSpec(MET_CHECK, asset=rto_key, description="A recovery now would take no longer than the RTO."),
        ],
        can_subset=False,
        pool=pool(here, "objectives"),
    )
    @here.given
    def objectives(context: AssetExecutionContext, environment: Environment) -> Iterator[Materialized]:
        from tmi_ops.objectives.history import read_history, record_reading
        from tmi_ops.objectives.reading import read_recoverability

        with failures_explained():
            settings, store = environment.settings, environment.open_store()
            facts = read_recoverability(settings, store)
            record_reading(store, facts, settings.objectives.rpo)
            days = read_history(store, facts.server_now)
        for problem in facts.problems:
            context.log.warning(problem)
        yield from _results(here, facts, days, settings.objectives)

    job = here.asset_job(
        JOB,
        selection=AssetSelection.assets(rpo_key, rto_key),
        description="Measure RPO and RTO, compare them with the objectives, and record the measurement.",
        tags=job_tags(here, Lane.WATCH, LONGEST_RUN),
    )
    schedule = scheduled(
        here,
        "objectives_within_the_rpo",
        job,
        here.timetable.objectives,
        "measures RPO and RTO, compares them with the objectives, and records them for the worst values of a day and a "
        "month.",
        turn=1,
        in_tick=lambda environment: _measured(here, environment),
    )
    return Definitions(assets=[objectives], jobs=[job], schedules=[schedule])


def _measured(here: Protected, environment: Environment) -> Done:
    """Uses the reading that the guards share."""
    from tmi_ops.objectives.history import read_history

    facts = recent_facts(environment)
    days = read_history(environment.open_store(), facts.server_now)
    rpo, rto = _results(here, facts, days, environment.settings.objectives)
    return Done(
        " ".join(check.description or "" for one in (rpo, rto) for check in one.check_results or ()), [rpo, rto]
    )


def _results(
    here: Protected, facts: "RecoverabilityFacts", days: "Sequence[Day]", objectives: Objectives
) -> tuple[Materialized, Materialized]:
    from tmi_ops.objectives.rpo import judge_rpo
    from tmi_ops.objectives.rto import forecast_rto
    from tmi_ops.objectives.stream import judge_stream

    rpo_key, rto_key = (here.key("objectives", name) for name in ("rpo", "rto"))
    rpo, rto = judge_rpo(facts, objectives), forecast_rto(facts, objectives)
    of_rpo = _rpo_metadata(facts, rpo, judge_stream(facts, objectives), days)
    return (
        Materialized(asset_key=rpo_key, metadata=of_rpo, check_results=[_met(rpo_key, rpo)]),
        Materialized(asset_key=rto_key, metadata=_rto_metadata(facts, rto), check_results=[_met(rto_key, rto)]),
    )


def _spec(here: Protected, key: AssetKey, about: str) -> AssetSpec:
    return AssetSpec(
        key,
        description=here.for_people(f"{about} Command: `tmi-ops status`."),
        group_name="objectives",
        kinds={"postgres", "s3"},
        owners=OWNERS,
    )


def _met(key: AssetKey, judged: Judged) -> AssetCheckResult:
    return AssetCheckResult(
        asset_key=key,
        check_name=MET_CHECK,
        passed=judged.standing is Standing.MET,
        severity=severity_of(judged.standing),
        description=judged.reason,
        metadata={"status": judged.standing.value, "cheapest cure": _cure(judged)},
    )


def _judgement(judged: Judged) -> _Metadata:
    return {
        "status": MetadataValue.text(judged.standing.value),
        "reason": MetadataValue.text(judged.reason),
        "cheapest cure": MetadataValue.text(_cure(judged)),
    }


def _cure(judged: Judged) -> str:
    return judged.cures[0].describe() if judged.cures else "none needed"


def _rpo_metadata(
    facts: "RecoverabilityFacts", rpo: "RpoReading", stream: "StreamReading", days: "Sequence[Day]"
) -> _Metadata:
    metadata = _judgement(rpo) | _beside_objective("achieved RPO (s)", rpo.value, rpo.objective)
    if facts.verified is not None:
        metadata["recoverable to"] = MetadataValue.timestamp(facts.verified.at)
        metadata["verified by"] = MetadataValue.text(f"{facts.verified.means}, from {facts.verified.backup_id}")
    if facts.earliest_at is not None:
        metadata["recoverable from"] = MetadataValue.timestamp(facts.earliest_at)
    if rpo.unverified is not None:
        metadata["RPO once the newest backup is verified (s)"] = seconds(rpo.unverified.total_seconds())
    metadata |= _past(facts, rpo, days)
    metadata["WAL stream"] = MetadataValue.text(f"{stream.standing}: {stream.reason}")
    for name, size in (("behind the server (MB)", stream.behind), ("kept for the slot (MB)", stream.kept)):
        if size is not None:
            metadata[name] = megabytes(size)
    metadata["stored (MB)"] = megabytes(sum(usage.size for usage in facts.storage.values()))
    metadata["storage"] = _storage_table(facts)
    return metadata


def _beside_objective(name: str, value: timedelta | None, objective: timedelta) -> _Metadata:
    promised = {"objective (s)": seconds(objective.total_seconds())}
    if value is None:
        return {**promised}
    share = MetadataValue.float(round(100 * (value / objective), 1))
    return {name: seconds(value.total_seconds()), **promised, "share of the objective (%)": share}


def _past(facts: "RecoverabilityFacts", rpo: "RpoReading", days: "Sequence[Day]") -> _Metadata:
    """The worst RPO of a day and of a month, how much of that time was measured, and how fast the store grows."""
    from tmi_ops.objectives.history import growth_per_day, worst_over

    metadata: _Metadata = {}
    for name, over in (("24 h", timedelta(hours=24)), ("30 d", timedelta(days=30))):
        worst = worst_over(days, over, facts.server_now, rpo.value)
        if worst.value is not None:
            metadata[f"worst RPO of the last {name} (s)"] = seconds(worst.value.total_seconds())
        metadata[f"measured of the last {name} (%)"] = MetadataValue.float(round(100 * (worst.measured / over), 1))
    growth = growth_per_day(days, facts.server_now, sum(usage.size for usage in facts.storage.values()))
    if growth is not None:
        metadata["store growth per day (MB)"] = megabytes(growth)
    return metadata


def _storage_table(facts: "RecoverabilityFacts") -> MetadataValue[Any]:
    columns = [TableColumn("kind", "string"), TableColumn("objects", "int")]
    columns += [TableColumn(name, "float") for name in ("size (MB)", "added in a day (MB)", "added in a week (MB)")]
    rows: list[dict[str, str | float]] = [
        {
            "kind": name,
            "objects": usage.objects,
            "size (MB)": in_megabytes(usage.size),
            "added in a day (MB)": in_megabytes(usage.added_day),
            "added in a week (MB)": in_megabytes(usage.added_week),
        }
        for name, usage in facts.storage.items()
    ]
    return MetadataValue.table([TableRecord(row) for row in rows], TableSchema(columns))


def _rto_metadata(facts: "RecoverabilityFacts", rto: "RtoForecast") -> _Metadata:
    metadata = _judgement(rto) | _beside_objective("RTO forecast (s)", rto.value, rto.objective)
    if rto.last_drill is not None:
        metadata["last measured RTO (s)"] = seconds(rto.last_drill.rto.total_seconds())
        metadata["last drill"] = MetadataValue.text(f"{rto.last_drill.outcome}: {rto.last_drill.drill_id}")
        metadata["last drill at"] = MetadataValue.timestamp(rto.last_drill.at)
    if rto.drill_due is not None:
        metadata["drill due"] = MetadataValue.text(rto.drill_due)
    metadata["speeds"] = MetadataValue.text(rto.basis)
    metadata["phases"] = _phase_table(rto)
    metadata |= {f"phase: {phase.phase} (s)": seconds(phase.seconds) for phase in rto.phases}
    if facts.way is not None:
        metadata["to fetch (MB)"] = megabytes(facts.way.fetched)
        metadata["cluster size (MB)"] = megabytes(facts.way.cluster_size)
        metadata["WAL to replay (MB)"] = megabytes(facts.way.replayed)
        metadata["chain length"] = MetadataValue.int(facts.way.chain_length)
    return metadata


def _phase_table(rto: "RtoForecast") -> MetadataValue[Any]:
    columns = [TableColumn("phase", "string"), TableColumn("seconds", "float"), TableColumn("basis", "string")]
    rows: list[dict[str, str | float]] = [
        {"phase": one.phase, "seconds": round(one.seconds, 2), "basis": one.basis} for one in rto.phases
    ]
    return MetadataValue.table([TableRecord(row) for row in rows], TableSchema(columns))
