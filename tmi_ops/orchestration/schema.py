"""The schema as assets: its migration, and its validation with one check for every rule."""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckResult,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetSelection,
    Config,
    Definitions,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
    asset,
)
from pydantic import Field

from tmi_ops.orchestration.check_results import check_result, findings_metadata, summed_up
from tmi_ops.orchestration.confirming import ONLY_PLANNED, Confirmation, is_meant
from tmi_ops.orchestration.policies import OWNERS, Lane, job_tags, pool
from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.resources import Environment, failures_explained
from tmi_ops.orchestration.results import Materialized, megabytes, seconds
from tmi_ops.schema.rules import Rule
from tmi_ops.settings import Purpose
from tmi_ops.text import printable

if TYPE_CHECKING:
    from tmi_ops.schema.migration import MigrationResult
    from tmi_ops.schema.operations import MigrationPlan
    from tmi_ops.schema.validation import Validation

LONGEST_RUN = timedelta(hours=6)
VALIDATION_JOB = "validate_schema"
# These only inform; they cannot fail.
_NOT_CHECKED = {Rule.OTHER_NAME, Rule.SUMMARY}
CHECKED_RULES = tuple(rule for rule in Rule if rule not in _NOT_CHECKED)


class MigrationConfig(Config):
    """How the schema is migrated."""

    seed: bool = Field(default=True, description="Insert the rows that TMI needs before its first request.")
    confirm: str = Confirmation


def schema_definitions(here: Protected) -> Definitions:
    """Assets `<environment>/schema/migration` and `<environment>/schema/validation` with its checks, and their jobs."""
    migration_key = here.key("schema", "migration")
    validation_key = here.key("schema", "validation")

    @asset(
        key=migration_key,
        group_name="schema",
        kinds={"postgres", "sqlalchemy"},
        owners=OWNERS,
        pool=pool(here, "schema"),
        description=here.for_people(
            "Migrates the schema online to what TMI needs: adds what is missing, drops nothing; a second run does "
            "nothing. Materialized by hand, it only plans; its jobs migrate. Command: `tmi-ops migrate`; plan only: "
            "`tmi-ops migrate --dry-run`."
        ),
    )
    @here.given
    def migration(context: AssetExecutionContext, config: MigrationConfig, environment: Environment) -> Materialized:
        from tmi_ops.schema.migration import migrate, plan_migration

        with failures_explained():
            postgres = environment.settings_for(Purpose.OWNER).postgres
            if not is_meant(context, config.confirm, environment.name):
                return Materialized(metadata=_planned(plan_migration(postgres, seed=config.seed)))
            result = migrate(postgres, environment.report(context.log), seed=config.seed)
        return Materialized(metadata=_migration_metadata(result))

    @asset(
        key=validation_key,
        deps=[migration_key],
        group_name="schema",
        kinds={"postgres"},
        owners=OWNERS,
        check_specs=[
            AssetCheckSpec(rule.value, asset=validation_key, description=rule.meaning) for rule in CHECKED_RULES
        ],
        description=here.for_people(
            "Compares the live schema with TMI's models, one check for each rule. An error means that TMI fails or "
            "that data is not as declared. Command: `tmi-ops check`."
        ),
    )
    @here.given
    def validation(context: AssetExecutionContext, environment: Environment) -> Materialized:
        from tmi_ops.health.record import record_schema
        from tmi_ops.schema.locking import observe_settled
        from tmi_ops.schema.validation import validate_schema
        from tmi_ops.settings import Purpose

        with failures_explained():
            settings = environment.settings_for(Purpose.OWNER)
            validation = observe_settled(settings.postgres, lambda: validate_schema(settings.postgres))
            record_schema(settings, environment.variables, validation.findings)
        context.log.info(f"{validation.address}: {_counts(validation)}")
        return Materialized(metadata=_validation_metadata(validation), check_results=list(_check_results(validation)))

    job = here.asset_job(
        "migrate_and_validate",
        selection=AssetSelection.assets(migration_key, validation_key),
        description="Migrate the schema online, then validate it.",
        tags=job_tags(here, Lane.UPKEEP, LONGEST_RUN),
    )
    look = here.asset_job(
        VALIDATION_JOB,
        selection=AssetSelection.assets(validation_key),
        description="Compare the schema with what TMI needs. Changes nothing.",
        tags=job_tags(here, Lane.WATCH, LONGEST_RUN),
    )
    return Definitions(assets=[migration, validation], jobs=[job, look])


def _migration_metadata(result: "MigrationResult") -> dict[str, MetadataValue[Any]]:
    return {
        "steps taken": MetadataValue.int(len(result.operations)),
        "steps left to you": MetadataValue.int(len(result.blocked)),
        "rows seeded": MetadataValue.int(result.seeded_rows),
        "duration (s)": seconds(result.seconds),
        "database created": MetadataValue.bool(result.created_database),
        "schema errors afterwards": MetadataValue.int(len(result.validation.at("ERROR"))),
        "steps": MetadataValue.md(_steps(result)),
    }


def _planned(plan: "MigrationPlan") -> dict[str, MetadataValue[Any]]:
    return {
        "outcome": MetadataValue.text(ONLY_PLANNED),
        "steps planned": MetadataValue.int(len(plan.operations)),
        "steps left to you": MetadataValue.int(len(plan.blocked)),
        "steps": MetadataValue.md(_steps(plan)),
    }


def _steps(result: "MigrationResult | MigrationPlan") -> str:
    from tmi_ops.schema.rendering import render

    taken = [f"- {step.summary} ({step.locks})" for step in map(render, result.operations)]
    left = [f"- **left to you**: {one.table} {one.name}: {one.reason} {one.remedy}" for one in result.blocked]
    return "\n".join(map(printable, [*taken, *left])) or "Nothing to do: the schema is up to date."


def _validation_metadata(validation: "Validation") -> dict[str, MetadataValue[Any]]:
    return {
        "errors": MetadataValue.int(len(validation.at("ERROR"))),
        "warnings": MetadataValue.int(len(validation.at("WARN"))),
        "tables": MetadataValue.int(len(validation.tables)),
        "dagster/row_count": MetadataValue.int(sum(validation.tables.values())),
        "database size (MB)": megabytes(validation.database_size),
        "PostgreSQL": MetadataValue.text(validation.server_version),
        **findings_metadata([one.finding for one in (*validation.at("ERROR"), *validation.at("WARN"))]),
        "rows by table": _row_counts_table(validation),
    }


def _check_results(validation: "Validation") -> Iterator[AssetCheckResult]:
    for rule in CHECKED_RULES:
        found = [one.finding for one in validation.findings if one.rule is rule and one.level in ("ERROR", "WARN")]
        yield check_result(
            rule.value,
            summed_up(found, rule.meaning),
            metadata={"number of findings": len(found)} | (findings_metadata(found) if found else {}),
        )


def _counts(validation: "Validation") -> str:
    errors, warnings = len(validation.at("ERROR")), len(validation.at("WARN"))
    return f"{errors} errors, {warnings} warnings in {len(validation.tables)} tables"


def _row_counts_table(validation: "Validation") -> MetadataValue[Any]:
    largest_first = sorted(validation.tables.items(), key=lambda item: -item[1])
    return MetadataValue.table(
        records=[
            TableRecord({"table": name, "rows": rows, "counted": name not in validation.estimated})
            for name, rows in largest_first
        ],
        schema=TableSchema(
            [
                TableColumn("table", "string"),
                TableColumn("rows", "int"),
                TableColumn("counted", "bool", description="false: the planner's estimate of a large table"),
            ]
        ),
    )
