"""A sensor that notices when the schema no longer matches what TMI needs, whoever changed it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from dagster import Definitions, RunRequest, SensorEvaluationContext, SensorResult, sensor
from pydantic import AwareDatetime, BaseModel, ConfigDict

from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.resources import Environment, refusals_skipped
from tmi_ops.orchestration.schema import VALIDATION_JOB

if TYPE_CHECKING:
    from tmi_ops.alerts.alert import Alert
    from tmi_ops.schema.findings import Deviation

LOOK_EVERY = timedelta(minutes=15)
_SHOWN = 3


class Seen(BaseModel):
    """The cursor. `digest`: of the last findings; `since`: when the schema first had errors."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    digest: str = ""
    since: AwareDatetime | None = None


@dataclass(frozen=True)
class DriftDecision:
    """`validate`: the findings have changed, so the asset should show them. `alert` None: no errors."""

    seen: Seen
    validate: bool
    alert: "Alert | None"


def decide_drift(findings: "Sequence[Deviation]", seen: Seen, now: datetime) -> DriftDecision:
    """Decide what changed findings lead to. Only errors, with which TMI fails, raise an alert. Pure."""
    from tmi_ops.alerts.alert import SCHEMA_DRIFT, Alert
    from tmi_ops.checks.finding import Severity

    worth = [f"{one.level} {one.table}.{one.object} {one.rule} {one.message}" for one in _drift(findings)]
    digest = hashlib.sha256("\n".join(worth).encode()).hexdigest()[:16]
    errors = [one for one in findings if one.level == "ERROR"]
    since = (seen.since or now) if errors else None
    after = Seen(digest=digest, since=since)
    if not errors or since is None:
        return DriftDecision(after, digest != seen.digest, None)
    named = "; ".join(f"{_place(one)}: {one.message}" for one in errors[:_SHOWN])
    more = f"; {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
    alert = Alert(
        key=SCHEMA_DRIFT,
        severity=Severity.CRITICAL,
        summary=f"The schema is not what TMI needs ({len(errors)} errors)",
        at_risk=f"TMI fails, or stores data that is not as declared. {named}{more}",
        since=since,
        done="The schema was validated; nothing was changed.",
        to_do="tmi-ops check shows all findings; tmi-ops migrate --dry-run shows what would correct them",
    )
    return DriftDecision(after, digest != seen.digest, alert)


def schema_drift_definitions(here: Protected, capabilities: Definitions) -> Definitions:
    """The sensor `schema_drift`, which validates the schema when the findings have changed."""

    @sensor(
        name=here.called("schema_drift"),
        jobs=[job for job in capabilities.jobs or () if job.name == here.called(VALIDATION_JOB)],
        minimum_interval_seconds=int(LOOK_EVERY.total_seconds()),
        default_status=here.sensor_status,
        description="Compares the live schema with what TMI needs. When the findings change, materializes "
        "`schema/validation`. Errors raise an alert, which ends when they are gone.",
    )
    @here.looking
    def schema_drift(context: SensorEvaluationContext, environment: Environment) -> SensorResult:
        from tmi_ops.alerts.alert import SCHEMA_DRIFT
        from tmi_ops.alerts.service import AlertService
        from tmi_ops.health.record import record_schema
        from tmi_ops.schema.locking import observe
        from tmi_ops.schema.validation import schema_findings

        postgres = environment.settings.postgres
        with refusals_skipped() as skipped:
            observed = observe(postgres, lambda: schema_findings(postgres))
            if observed.during_migration:
                return SensorResult(skip_reason="A migration is running.", cursor=context.cursor)
            decision = decide_drift(observed.found, _seen(context.cursor), datetime.now(UTC))
            record_schema(environment.settings, environment.variables, observed.found)
        if skipped.because:
            return SensorResult(skip_reason=skipped.because)
        service = AlertService(environment.settings)
        if decision.alert is not None:
            service.raise_alert(decision.alert)
        else:
            service.resolve(SCHEMA_DRIFT, "The schema matches what TMI needs.")
        cursor = decision.seen.model_dump_json()
        if not decision.validate:
            return SensorResult(skip_reason="The findings have not changed.", cursor=cursor)
        return SensorResult(
            run_requests=[RunRequest(run_key=_run_key(decision), job_name=here.called(VALIDATION_JOB))], cursor=cursor
        )

    return Definitions(sensors=[schema_drift])


def _run_key(decision: DriftDecision) -> str:
    # The same findings may recur after they were gone.
    return f"{decision.seen.digest}-{datetime.now(UTC):%Y%m%dT%H%M%S}"


def _seen(cursor: str | None) -> Seen:
    try:
        return Seen.model_validate_json(cursor or "{}")
    except ValueError:
        return Seen()


def _drift(findings: "Sequence[Deviation]") -> "list[Deviation]":
    return [one for one in findings if one.level in ("ERROR", "WARN")]


def _place(finding: "Deviation") -> str:
    return ".".join(part for part in (finding.table, finding.object) if part) or "the schema"
