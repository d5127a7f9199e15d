"""Access control as an asset: compares roles and rights with what is declared, once a day."""

from datetime import timedelta

from dagster import (
    AssetCheckSpec,
    AssetSelection,
    Definitions,
    MetadataValue,
    asset,
)

from tmi_ops.orchestration.check_results import check_result, findings_metadata, summed_up, with_advice
from tmi_ops.orchestration.policies import OWNERS, Lane, job_tags, pool
from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.resources import Environment, failures_explained
from tmi_ops.orchestration.results import Materialized
from tmi_ops.orchestration.schedules import scheduled

LONGEST_RUN = timedelta(minutes=15)


def access_definitions(here: Protected) -> Definitions:
    """The asset `<environment>/access/roles` with its check `no_drift`, the job `access`, and its daily schedule."""
    key = here.key("access", "roles")

    @asset(
        key=key,
        description=here.for_people(
            "How the server differs from the declared roles: extra grants, superusers that applications use, md5 "
            "passwords, connections without TLS, missing pg_hba.conf lines, missing owners and default privileges. "
            "Changes nothing.\n\nCommand: `tmi-ops roles check`. To correct differences: `tmi-ops roles plan`, then "
            "`tmi-ops roles apply`."
        ),
        group_name="access",
        kinds={"postgres"},
        owners=OWNERS,
        check_specs=[AssetCheckSpec("no_drift", asset=key, description="Every role has exactly the declared rights.")],
        pool=pool(here, "access"),
    )
    @here.given
    def roles(environment: Environment) -> Materialized:
        from tmi_ops.access.inspection import inspect_access
        from tmi_ops.postgres.connections import connect

        with failures_explained(), connect(environment.settings.postgres) as connection:
            drifts = inspect_access(connection, environment.settings, environment.variables).check()
        findings = [one.finding for one in drifts]
        answer = summed_up(findings, "Roles and rights are as declared.")
        return Materialized(
            metadata={"summary": MetadataValue.text(with_advice(answer)), **findings_metadata(findings)},
            check_results=[check_result("no_drift", answer)],
        )

    job = here.asset_job(
        "access",
        selection=AssetSelection.assets(key),
        description="Compare roles and rights with what is declared. Changes nothing.",
        tags=job_tags(here, Lane.WATCH, LONGEST_RUN),
    )
    schedule = scheduled(
        here,
        "daily_access",
        job,
        here.timetable.access,
        "compares roles and rights with what is declared.",
    )
    return Definitions(assets=[roles], jobs=[job], schedules=[schedule])
