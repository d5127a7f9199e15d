"""Recovery drills as an asset with three checks, a job and a weekly schedule."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckResult,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetsDefinition,
    AssetSelection,
    Config,
    Definitions,
    MetadataValue,
    TableColumn,
    TableColumnConstraints,
    TableRecord,
    TableSchema,
    asset,
)
from pydantic import Field

from tmi_ops.checks.finding import Outcome, judged
from tmi_ops.errors import SettingsError
from tmi_ops.orchestration.check_results import check_result
from tmi_ops.orchestration.policies import OWNERS, Lane, job_tags, pool
from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.resources import Environment, failures_explained
from tmi_ops.orchestration.results import Materialized, megabytes, seconds
from tmi_ops.orchestration.schedules import scheduled
from tmi_ops.settings import Purpose
from tmi_ops.settings.moments import read_moment
from tmi_ops.text import format_duration

if TYPE_CHECKING:
    from tmi_ops.drill.evidence import CheckName, Evidence
    from tmi_ops.drill.execution import Drill
    from tmi_ops.recovery.point_in_time.target import Target

DRILL_JOB = "recovery_drill"
LONGEST_DRILL = timedelta(hours=12)
SOUND, RTO_MET, RPO_MET = "sound", "rto_met", "rpo_met"
_WRITTEN = "write it as 2026-11-24T03:44:13+00:00"
_MISSED = "at most one of to_time, to_lsn, to_name and latest, and seed only without them"


class DrillConfig(Config):
    """The target of the recovery. Default: a random moment of the recovery window."""

    to_time: str | None = Field(
        default=None, description="Recover to this time, ISO 8601 with a time zone: 2026-11-24T03:44:13+00:00."
    )
    to_lsn: str | None = Field(default=None, description="Recover to this LSN: 0/3000148.")
    to_name: str | None = Field(default=None, description="Recover to this restore point and compare its fingerprints.")
    latest: bool = Field(default=False, description="Recover to the end of the archive.")
    seed: int | None = Field(
        default=None,
        ge=0,
        description="Seed of the random moment; the same seed chooses the same moment of the window.",
    )

    def target(self) -> "Target | None":
        """The target; None: a random moment.

        Raises:
            SettingsError: more than one target was given, or it cannot be read.
        """
        from tmi_ops.postgres.wal_files import parse_lsn
        from tmi_ops.recovery.point_in_time.target import Target

        given = [self.to_time is not None, self.to_lsn is not None, self.to_name is not None, self.latest]
        if sum(given) > 1 or (any(given) and self.seed is not None):
            raise SettingsError("More than one target was given.", hint=f"give {_MISSED}")
        if not any(given):
            return None
        lsn = parse_lsn(self.to_lsn) if self.to_lsn is not None else None
        return Target(time=_moment(self.to_time), lsn=lsn, name=self.to_name)


def drill_definitions(here: Protected) -> Definitions:
    """Asset `<environment>/recovery/drill`, its job and its schedule."""
    drill = _drill_asset(here)
    job = here.asset_job(
        DRILL_JOB,
        selection=AssetSelection.assets(drill.key),
        description="Run a recovery drill, measure it, and keep the evidence.",
        tags=job_tags(here, Lane.VERIFICATION, LONGEST_DRILL),
    )
    weekly = scheduled(
        here,
        "weekly_recovery_drill",
        job,
        here.timetable.drill,
        "recovers to a random moment of the recovery window, after the weekly base backup and at a quiet hour.",
    )
    return Definitions(assets=[drill], jobs=[job], schedules=[weekly])


def _drill_asset(here: Protected) -> AssetsDefinition:
    key = here.key("recovery", "drill")

    @asset(
        key=key,
        group_name="recovery",
        kinds={"postgres", "s3"},
        owners=OWNERS,
        pool=pool(here, "drill"),
        check_specs=[
            AssetCheckSpec(
                SOUND,
                asset=key,
                description="The copy is at its target and passed all checks: page checksums, pg_amcheck, schema, "
                "built-in rows, heartbeat chain, fingerprints.",
            ),
            AssetCheckSpec(RTO_MET, asset=key, description="The copy was recovered and verified within the RTO."),
            AssetCheckSpec(
                RPO_MET,
                asset=key,
                description="If the server had been lost when the drill started, no more than the RPO would have been "
                "lost.",
            ),
        ],
        description=here.for_people(
            "A recovery drill: restores base backup and WAL into a scratch cluster, to a random moment of the recovery "
            "window, checks the copy, measures RTO and RPO, and removes it. The evidence is kept in the store. "
            "Command: `tmi-ops drill`."
        ),
    )
    @here.given
    def drill(context: AssetExecutionContext, config: DrillConfig, environment: Environment) -> Materialized:
        from tmi_ops.drill.execution import run_drill
        from tmi_ops.drill.planning import prepare_drill

        report = environment.report(context.log)
        with failures_explained():
            settings, store = environment.settings_for(Purpose.BACKUP), environment.open_store()
            plan = prepare_drill(settings, store, report, target=config.target(), seed=config.seed)
            done = run_drill(settings, store, plan, report)
        return Materialized(metadata=_metadata(done), check_results=_checks(done.evidence))

    return drill


def _moment(words: str | None) -> datetime | None:
    """A moment that is the same whenever it is read, so that a confirmation is for that moment."""
    if words is None:
        return None
    now = datetime.now(UTC)
    try:
        at, tomorrow = (read_moment(words, now=when, zone=UTC).at for when in (now, now + timedelta(days=1)))
    except ValueError as error:
        raise SettingsError(f"{error}.", hint=_WRITTEN) from None
    if at != tomorrow:
        raise SettingsError(f"{words!r} means another moment at each launch.", hint=_WRITTEN)
    return at


def _metadata(done: "Drill") -> dict[str, MetadataValue[Any]]:
    evidence = done.evidence
    metadata: dict[str, MetadataValue[Any]] = {
        "drill": MetadataValue.text(evidence.drill_id),
        "outcome": MetadataValue.text(evidence.outcome),
        "target": MetadataValue.text(f"{evidence.target.text}, {evidence.target.chosen}"),
        **_beside_objective("RTO", evidence.rto_seconds, evidence.rto_objective_seconds),
        **_beside_objective("RPO", evidence.rpo_seconds, evidence.rpo_objective_seconds),
        "answered queries after (s)": seconds(evidence.recovery_seconds),
        **{f"phase: {phase} (s)": seconds(spent) for phase, spent in evidence.phases.items()},
    }
    if evidence.copy_ is not None:
        metadata |= {
            "restored (MB)": megabytes(evidence.copy_.restored_size),
            "WAL replayed (MB)": megabytes(evidence.copy_.replayed_size),
            "rows": MetadataValue.int(sum(evidence.copy_.rows.values())),
        }
    return metadata | {
        "disk needed (MB)": megabytes(evidence.disk_needed),
        "checks": _check_table(evidence),
        "backup": MetadataValue.text(evidence.backup_id),
        "recoverable from": MetadataValue.timestamp(evidence.window.earliest_at),
        "recoverable to": MetadataValue.timestamp(evidence.window.newest_at),
        "evidence": MetadataValue.text(done.page_key),
        "details": MetadataValue.md(f"`tmi-ops drills {evidence.drill_id} --html drill.html`"),
    }


def _beside_objective(name: str, measured: float, objective: float) -> dict[str, MetadataValue[Any]]:
    """The objective as text: Dagster would plot a number as a straight line."""
    return {
        f"{name} (s)": seconds(measured),
        f"{name} (% of objective)": MetadataValue.float(round(100 * measured / objective, 2)),
        f"{name} objective": MetadataValue.text(format_duration(objective)),
    }


def _check_table(evidence: "Evidence") -> MetadataValue[Any]:
    columns = [
        TableColumn(name, type=kind, constraints=TableColumnConstraints(nullable=False))
        for name, kind in (("check", "string"), ("outcome", "string"), ("answer", "string"), ("seconds", "float"))
    ]
    records = [
        TableRecord(
            {
                "check": check.title,
                "outcome": check.outcome,
                "answer": " ".join([check.detail, *check.findings]),
                "seconds": round(check.seconds, 2),
            }
        )
        for check in evidence.checks
    ]
    return MetadataValue.table(records, TableSchema(columns))


def _checks(evidence: "Evidence") -> list[AssetCheckResult]:
    asked = [check for check in evidence.checks if check.name not in ("rto", "rpo")]
    failed = [check for check in asked if check.outcome == "failed"]
    unasked = [check.title for check in asked if check.outcome == "not run"]
    said = " ".join(f"{check.title}: {check.detail}" for check in failed) or (
        "The copy passed all checks." + (f" Not run: {', '.join(unasked)}." if unasked else "")
    )
    sound = judged(Outcome.OK if evidence.sound else Outcome.CRITICAL, said)
    return [
        check_result(SOUND, sound, metadata={"checks": _check_table(evidence)}),
        _objective(evidence, RTO_MET, "rto", evidence.rto_seconds, evidence.rto_objective_seconds),
        _objective(evidence, RPO_MET, "rpo", evidence.rpo_seconds, evidence.rpo_objective_seconds),
    ]


def _objective(
    evidence: "Evidence", name: str, question: "CheckName", measured: float, objective: float
) -> AssetCheckResult:
    metadata = {"measured (s)": seconds(measured), "objective (s)": seconds(objective)}
    return check_result(name, evidence.check(question).answer, metadata=metadata)
