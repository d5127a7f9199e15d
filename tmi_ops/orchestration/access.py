"""Access control as an asset: once a day, whether roles and rights are still what is declared."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetKey,
    AssetSelection,
    Definitions,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
    asset,
    define_asset_job,
)

from tmi_ops.orchestration.policies import OWNERS, Lane, job_tags, pool
from tmi_ops.orchestration.resources import Environment, failures_explained
from tmi_ops.orchestration.results import Materialized
from tmi_ops.orchestration.schedules import scheduled, timetable_of

if TYPE_CHECKING:
    from tmi_ops.access.findings import Finding

LONGEST_RUN = timedelta(minutes=15)


def access_definitions(environment: str) -> Definitions:
    """The asset `<environment>/access/roles` with its check `no_drift`, the job `access`, and its daily schedule."""
    key = AssetKey([environment, "access", "roles"])

    @asset(
        key=key,
        description="Where the server has drifted from the declared roles: extra grants, superusers that applications "
        "use, md5 passwords, connections without TLS, lines that pg_hba.conf lacks, missing owners and default "
        "privileges. Nothing is changed.\n\nThe same by hand: `tmi-ops roles check`; what would put it right: "
        "`tmi-ops roles plan`, then `tmi-ops roles apply`.",
        group_name="access",
        kinds={"postgres"},
        owners=OWNERS,
        check_specs=[
            AssetCheckSpec("no_drift", asset=key, description="Nobody can do more, or less, than is declared.")
        ],
        pool=pool(environment, "access"),
    )
    def roles(environment: Environment) -> Materialized:
        from tmi_ops.access.inspection import inspect_access
        from tmi_ops.postgres.connections import connect
        from tmi_ops.settings import read_variables

        with failures_explained(), connect(environment.settings.postgres) as connection:
            findings = inspect_access(connection, environment.settings, read_variables()).check()
        return Materialized(metadata=_metadata(findings), check_results=[_check_result(findings)])

    job = define_asset_job(
        "access",
        selection=AssetSelection.assets(key),
        description="See whether roles and rights are still what is declared.",
        tags=job_tags(environment, Lane.WATCH, LONGEST_RUN),
    )
    schedule = scheduled(
        environment,
        "daily_access",
        job,
        timetable_of(environment).access,
        "before people come to work, whether anybody can do more than is declared.",
    )
    return Definitions(assets=[roles], jobs=[job], schedules=[schedule])


def _metadata(findings: tuple["Finding", ...]) -> dict[str, MetadataValue[Any]]:
    columns = [TableColumn(name, "string") for name in ("severity", "subject", "what", "what helps")]
    records = [
        TableRecord(
            {
                "severity": one.severity.value,
                "subject": one.subject,
                "what": one.what,
                "what helps": "\n".join((*(statement.sql for statement in one.statements), *one.advice)),
            }
        )
        for one in findings
    ]
    return {
        "in one line": MetadataValue.text(_in_one_line(findings)),
        "critical": MetadataValue.int(_count(findings, "critical")),
        "warnings": MetadataValue.int(_count(findings, "warning")),
        "notices": MetadataValue.int(_count(findings, "notice")),
        "findings": MetadataValue.table(records, TableSchema(columns)),
    }


def _check_result(findings: tuple["Finding", ...]) -> AssetCheckResult:
    from tmi_ops.access.drift import drifted

    return AssetCheckResult(
        check_name="no_drift",
        passed=not drifted(findings),
        severity=AssetCheckSeverity.ERROR if _count(findings, "critical") else AssetCheckSeverity.WARN,
        description=_in_one_line(findings),
    )


def _in_one_line(findings: tuple["Finding", ...]) -> str:
    from tmi_ops.access.drift import drifted

    if not drifted(findings):
        return "The roles are as declared."
    others = len(findings) - _count(findings, "notice") - 1
    more = f"; {others} more" if others else ""
    return f"{findings[0].subject}: {findings[0].what}{more}. See `tmi-ops roles plan`."


def _count(findings: tuple["Finding", ...], severity: str) -> int:
    return sum(one.severity == severity for one in findings)
