"""The shadow as an asset: how far it has replayed the archive, what stops it, what its checks found.

It runs outside Dagster, as the receiver does. A sensor copies its reports here, at most once a minute, so that the
asset turns stale when the shadow dies.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetKey,
    AssetMaterialization,
    AssetSelection,
    Definitions,
    MetadataValue,
    SensorEvaluationContext,
    SensorResult,
    asset,
    sensor,
)

from tmi_ops.orchestration.policies import OWNERS, Lane, job_tags, pool
from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.resources import Environment, failures_explained, refusals_skipped
from tmi_ops.orchestration.results import Materialized, bullets, megabytes, seconds

if TYPE_CHECKING:
    from tmi_ops.shadow.report import KnownReport

ASSET = ("recovery", "shadow")
JOB = "shadow"
REPLAYS, SOUND = "replays", "sound"
LOOK_EVERY = timedelta(minutes=1)
LONGEST_RUN = timedelta(minutes=5)
_NOBODY = "No shadow reports to the store. To run one as a service: `tmi-ops shadow run`."
_Result = tuple[bool, str]


def shadow_definitions(here: Protected) -> Definitions:
    """Asset `<environment>/recovery/shadow` with two checks, its job, and the sensor `shadow_watch`."""
    key = here.key(*ASSET)

    @asset(
        key=key,
        description=here.for_people(
            "The shadow: a server that replays the archive as it grows, from the store alone. Command: "
            "`tmi-ops shadow status`."
        ),
        group_name="recovery",
        kinds={"postgres", "s3"},
        owners=OWNERS,
        check_specs=[
            AssetCheckSpec(REPLAYS, asset=key, description="The shadow reports and replays."),
            AssetCheckSpec(
                SOUND, asset=key, description="Pages, relations and heartbeat chain of the shadow are sound."
            ),
        ],
        pool=pool(here, "shadow"),
    )
    @here.given
    def shadow(_: AssetExecutionContext, environment: Environment) -> Materialized:
        with failures_explained():
            known = _read(environment)
        return Materialized(
            metadata=_metadata(known),
            check_results=[
                AssetCheckResult(
                    asset_key=key,
                    check_name=name,
                    passed=passed,
                    severity=_severity(known),
                    description=said,
                )
                for name, (passed, said) in _results(known).items()
            ],
        )

    job = here.asset_job(
        JOB,
        selection=AssetSelection.assets(key),
        description="Read the shadow's last report.",
        tags=job_tags(here, Lane.WATCH, LONGEST_RUN),
    )

    @sensor(
        name=here.called("shadow_watch"),
        job=job,
        minimum_interval_seconds=int(LOOK_EVERY.total_seconds()),
        default_status=here.sensor_status,
        description="Records the shadow's reports in its asset, at most once a minute. Launches no runs.",
    )
    @here.looking
    def shadow_watch(context: SensorEvaluationContext, environment: Environment) -> SensorResult:
        with refusals_skipped() as skipped:
            known = _read(environment)
        if skipped.because:
            return SensorResult(skip_reason=skipped.because, cursor=context.cursor)
        written, result, events = looked_at(key, known, context.cursor)
        if not events:
            return SensorResult(skip_reason=_NOBODY if known is None else "No new report.")
        return SensorResult(skip_reason="Recorded a new report.", cursor=f"{written}|{result}", asset_events=events)

    return Definitions(assets=[shadow], jobs=[job], sensors=[shadow_watch])


def looked_at(
    key: AssetKey, known: "KnownReport | None", cursor: str | None
) -> tuple[str, str, Sequence[AssetMaterialization | AssetCheckEvaluation]]:
    """What is new: a materialization for a new report, check evaluations if their outcome has changed.

    Args:
        cursor: `<time of the last report>|<checks that failed>`.

    Returns:
        The parts of the next cursor, and the events.
    """
    seen, _, before = (cursor or "").partition("|")
    if known is None:
        return seen, before, []
    results = _results(known)
    result = ",".join(name for name, (passed, _) in results.items() if not passed) or "well"
    written = known.report.written_at.isoformat()
    events: list[AssetMaterialization | AssetCheckEvaluation] = []
    if written != seen and not known.is_stale:
        events.append(AssetMaterialization(asset_key=key, metadata=_metadata(known)))
    if result != before:
        events += [
            AssetCheckEvaluation(
                asset_key=key, check_name=name, passed=passed, severity=_severity(known), description=said
            )
            for name, (passed, said) in results.items()
        ]
    return written, result, events


def _read(environment: Environment) -> "KnownReport | None":
    """The report of the shadow that counts; else the newest report."""
    from tmi_ops.shadow.reading import known_shadows
    from tmi_ops.shadow.report import prover_of

    reports = known_shadows(environment.settings, environment.open_store())
    if not reports:
        return None
    return prover_of(reports, reports[0].report.system_identifier) or reports[0]


def _results(known: "KnownReport | None") -> dict[str, _Result]:
    if known is None:
        return {REPLAYS: (False, _NOBODY), SOUND: (False, _NOBODY)}
    report = known.report
    stopped = report.stopped_by
    damage = "; ".join(f"{one.name}: {one.detail}" for one in report.damage)
    if known.is_stale:
        silent = f"{report.name} last reported at {report.written_at:%Y-%m-%d %H:%M:%S %Z}."
        return {REPLAYS: (False, silent), SOUND: (not damage, damage or silent)}
    said = f"{report.name} is {report.state}, at LSN {report.replayed_lsn}."
    return {
        REPLAYS: (stopped is None, said if stopped is None else stopped.what),
        SOUND: (not damage, damage or "No damage found."),
    }


def _severity(known: "KnownReport | None") -> AssetCheckSeverity:
    stopped = known is not None and (known.report.stopped_by is not None or known.report.damage)
    return AssetCheckSeverity.ERROR if stopped else AssetCheckSeverity.WARN


def _metadata(known: "KnownReport | None") -> dict[str, MetadataValue[Any]]:
    if known is None:
        return {"shadow": MetadataValue.text(_NOBODY)}
    report = known.report
    metadata: dict[str, MetadataValue[Any]] = {
        "shadow": MetadataValue.text(f"{report.name} on {report.host}"),
        "state": MetadataValue.text(report.state),
        "behind the archive (MB)": megabytes(report.behind),
        "base backup": MetadataValue.text(report.backup_id),
        "requests to the store": MetadataValue.int(sum(report.requests.values())),
        "problems": bullets((f"{one.kind}: {one.what}" for one in report.troubles), "none"),
        "checks": bullets((f"{one.name}: {one.outcome}. {one.detail}" for one in report.checks), "none yet"),
    }
    if report.replayed_lsn is not None:
        where = f"{report.replayed_lsn} on timeline {report.timeline}"
        metadata["replayed to"] = MetadataValue.text(where)
    metadata |= _moments(report.written_at, report.verified_to)
    if report.promote_s is not None:
        metadata["promotion, measured (s)"] = seconds(report.promote_s)
    return metadata


def _moments(written_at: datetime, verified_to: datetime | None) -> dict[str, MetadataValue[Any]]:
    if verified_to is None:
        return {}
    return {
        "verified to": MetadataValue.timestamp(verified_to),
        "verified to, before the report (s)": seconds((written_at - verified_to).total_seconds()),
    }
