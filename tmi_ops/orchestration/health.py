"""Health as assets: one for each area, with a check for each probe, read once an hour."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckResult,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetKey,
    AssetSelection,
    AssetSpec,
    Config,
    Definitions,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
    multi_asset,
)
from pydantic import Field

from tmi_ops.checks.finding import Outcome
from tmi_ops.health.answer import Cause, Reading, Row
from tmi_ops.health.probe import AnyProbe, Area
from tmi_ops.health.registry import probes_of
from tmi_ops.orchestration.cache import cache_definitions, cache_key
from tmi_ops.orchestration.check_results import LONGEST_TABLE, check_result, with_advice
from tmi_ops.orchestration.policies import OWNERS, Lane, job_tags, pool
from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.resources import Environment, failures_explained
from tmi_ops.orchestration.results import Materialized, sql_block
from tmi_ops.orchestration.schedules import scheduled
from tmi_ops.text import escaped_markdown

if TYPE_CHECKING:
    from tmi_ops.health.examine import Examined, HealthReport

LONGEST_RUN = timedelta(minutes=30)


class HealthConfig(Config):
    """How the database is examined."""

    exact_bloat: bool = Field(default=False, description="Measure bloat with pgstattuple, which reads entire tables.")
    thresholds: list[str] = Field(
        default=[], description="name=warning,critical; overrides TMI_OPS_HEALTH_<NAME> and the defaults."
    )


def health_definitions(here: Protected) -> Definitions:
    """Assets `<environment>/health/<area>` with a check for each probe, the cache's asset, the job `health` and its
    hourly schedule.
    """
    offered = probes_of(here.profile)
    keys = {area: here.key("health", area.value) for area in Area}

    @multi_asset(
        name=here.step_of_several("health"),
        specs=[_asset_spec(here, area, key, offered) for area, key in keys.items()],
        check_specs=[
            AssetCheckSpec(
                probe.name,
                asset=keys[probe.area],
                description=here.for_people(
                    f"{probe.title}. Warning / critical at {probe.thresholds.describe()}: {probe.figure}."
                ),
            )
            for probe in offered
        ],
        can_subset=True,
        pool=pool(here, "health"),
    )
    @here.given
    def health(
        context: AssetExecutionContext, config: HealthConfig, environment: Environment
    ) -> Iterator[Materialized]:
        from tmi_ops.health.examine import Examination, examine
        from tmi_ops.settings import Purpose

        wanted = [probe.name for probe in offered if keys[probe.area] in context.selected_asset_keys]
        reader = environment.settings_for(Purpose.BACKUP).postgres
        how = Examination(tuple(wanted), tuple(config.thresholds), config.exact_bloat, environment.variables, reader)
        with failures_explained():
            report = examine(environment.settings, how, environment.report(context.log))
        for area, key in keys.items():
            if key in context.selected_asset_keys:
                yield Materialized(
                    asset_key=key,
                    metadata=_area_metadata(report, area),
                    check_results=[_check_result(result, key) for result in report.of(area)],
                )

    job = here.asset_job(
        "health",
        selection=AssetSelection.assets(*keys.values(), cache_key(here)),
        description="Run the health probes of the database and check its cache.",
        tags=job_tags(here, Lane.WATCH, LONGEST_RUN),
    )
    schedule = scheduled(
        here,
        "hourly_health",
        job,
        here.timetable.health,
        "runs every probe; rates are those of the hour before.",
    )
    return Definitions.merge(cache_definitions(here), Definitions(assets=[health], jobs=[job], schedules=[schedule]))


def _asset_spec(here: Protected, area: Area, key: AssetKey, offered: Sequence[AnyProbe]) -> AssetSpec:
    probes = [probe for probe in offered if probe.area is area]
    listed = "\n".join(f"- {probe.title}" for probe in probes)
    return AssetSpec(
        key,
        description=here.for_people(
            f"{area.about}.\n\n{listed}\n\nCommand: `tmi-ops health`; one probe with its table and the SQL to fix "
            f"what it found: `tmi-ops health --probe {probes[0].name}`."
        ),
        group_name="health",
        kinds={"postgres"},
        owners=OWNERS,
    )


def _area_metadata(report: "HealthReport", area: Area) -> dict[str, MetadataValue[Any]]:
    results = report.of(area)
    readings = [result.reading for result in results if result.reading is not None]
    numbers = {name: number for reading in readings for name, number in _plotted(reading).items()}
    return {
        "summary": MetadataValue.text(_summary(results)),
        "critical": MetadataValue.int(sum(result.outcome is Outcome.CRITICAL for result in results)),
        "warnings": MetadataValue.int(sum(result.outcome is Outcome.WARNING for result in results)),
        "unknown": MetadataValue.int(sum(result.outcome is Outcome.UNKNOWN for result in results)),
        "probes": _table([_probe_row(result) for result in results]),
        "advice": MetadataValue.md(_advice(results)),
        "rates since": MetadataValue.timestamp(report.since) if report.since else MetadataValue.text("first reading"),
        **numbers,
    }


def _plotted(reading: Reading) -> dict[str, MetadataValue[Any]]:
    """The reading's numbers: Dagster plots them over runs."""
    return {name: MetadataValue.float(round(float(number), 4)) for name, number in reading.numbers().items()}


def _summary(results: Sequence["Examined"]) -> str:
    for outcome in (Outcome.CRITICAL, Outcome.WARNING):
        for result in results:
            if result.outcome is outcome:
                return f"{result.probe.name}: {with_advice(result.answer)}"
    unknown = [result.probe.name for result in results if result.outcome is Outcome.UNKNOWN]
    return f"No problems; unknown: {', '.join(unknown)}." if unknown else "No problems."


def _probe_row(result: "Examined") -> Row:
    return {
        "outcome": result.outcome.value,
        "probe": result.probe.name,
        "reading": with_advice(result.answer),
        "thresholds": result.thresholds.describe(),
    }


def _advice(results: Sequence["Examined"]) -> str:
    parts = [
        f"**{result.probe.name}**: {escaped_markdown(result.answer.advice.text)}\n{_remedy(result)}"
        for result in results
        if result.outcome is not Outcome.OK and _steps(result)
    ]
    return "\n\n".join(parts) or "Nothing to do."


def _steps(result: "Examined") -> tuple[str, ...]:
    """What can be pasted."""
    return result.answer.advice.sql + result.answer.advice.command


def _remedy(result: "Examined") -> str:
    return sql_block(_steps(result))


def _check_result(result: "Examined", key: AssetKey) -> AssetCheckResult:
    metadata: dict[str, Any] = {
        "outcome": result.outcome.value,
        "thresholds": f"{result.thresholds.describe()}: {result.probe.figure}",
        "took": f"{result.seconds * 1000:.0f} ms",
        **(_plotted(result.reading) if result.reading else {}),
    }
    if _steps(result):
        metadata["advice"] = MetadataValue.md(_remedy(result))
    rows = result.reading.rows() if result.reading else ()
    if rows:
        metadata["table"] = _table(rows)
    too_early = result.cause is Cause.TOO_EARLY
    return check_result(result.probe.name, result.answer, key, metadata, too_early=too_early)


def _table(rows: Sequence[Row]) -> MetadataValue[Any]:
    """A table with the columns of all rows, in order of appearance, cut at `LONGEST_TABLE` rows."""
    rows = rows[:LONGEST_TABLE]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    records = [{name: _cell(row, name) for name in columns} for row in rows]
    schema = TableSchema([TableColumn(name, _type_of([record[name] for record in records])) for name in columns])
    return MetadataValue.table([TableRecord(record) for record in records], schema)


def _cell(row: Mapping[str, Any], name: str) -> str | int | float | bool | None:
    value = row.get(name)
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _type_of(values: Sequence[Any]) -> str:
    known = {type(value) for value in values if value is not None}
    for kind, name in ((bool, "bool"), (int, "int"), (float, "float")):
        if known == {kind}:
            return name
    return "float" if known == {int, float} else "string"
