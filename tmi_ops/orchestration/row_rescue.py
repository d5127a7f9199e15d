"""Row rescue as a job: a dry run unless confirmed with the environment's name."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from dagster import (
    Config,
    Definitions,
    MetadataValue,
    OpExecutionContext,
    TableColumn,
    TableRecord,
    TableSchema,
    job,
    op,
)
from pydantic import AfterValidator, Field

from tmi_ops.errors import RecoveryError, SettingsError
from tmi_ops.orchestration.drill import DrillConfig
from tmi_ops.orchestration.launching import CODE_DESCRIPTION, Confirmation, require_allowed
from tmi_ops.orchestration.policies import EXECUTOR, OWNERS, Lane, job_tags, pool
from tmi_ops.orchestration.progress import RunLogReport
from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.resources import Environment, failures_explained
from tmi_ops.orchestration.results import bullets
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.profile import Profile
    from tmi_ops.rescue.columns.planning import ColumnsPlan
    from tmi_ops.rescue.past import Moment
    from tmi_ops.rescue.planning import RescuePlan
    from tmi_ops.rescue.selection import Selection, TableRows
    from tmi_ops.runbooks.journal import Journal

ROWS_JOB = "recover_rows"
LONGEST_RUN = timedelta(hours=24)
_COUNTS = ("insert", "update", "keep", "leave", "as_it_was")


# None is false, so that both are the same plan. With a default of false, the launchpad would fill in several of these
# alternatives, and report an error.
_Exclusive = Annotated[bool | None, AfterValidator(bool)]


class ToTime(Config):
    """The state at a time."""

    kind: Literal["to_time"] = "to_time"
    at: str = Field(description="ISO 8601 with a time zone: 2026-11-24T03:44:13+00:00.")
    exclusive: _Exclusive = Field(default=None, description="Stop just before this time.", validate_default=True)


class ToLsn(Config):
    """The state at an LSN."""

    kind: Literal["to_lsn"] = "to_lsn"
    lsn: str = Field(description="LSN as `recover find` prints it: 0/3000148.")
    exclusive: _Exclusive = Field(default=None, description="Stop just before this LSN.", validate_default=True)


class ToName(Config):
    """The state at a restore point."""

    kind: Literal["to_name"] = "to_name"
    name: str = Field(description="Name of the restore point.")


class OfBackup(Config):
    """The state in a logical backup, if there is no WAL."""

    kind: Literal["backup"] = "backup"
    id: str = Field(description="Backup id, a unique prefix of one, or `latest`.")


class OfTable(Config):
    """Rows of one table; all rows unless restricted."""

    kind: Literal["table"] = "table"
    name: str = Field(description="Table name, with the schema if several schemas have a table of that name.")
    where: str | None = Field(default=None, description="Only rows that match this SQL condition in the past state.")
    key: list[str] = Field(default_factory=list, description="Only the row with this primary key.")
    column: list[str] = Field(
        default_factory=list,
        description="Restore dropped columns, filled for rows that still exist, instead of rows. Can be restricted "
        "with where, key, threat_model or root.",
    )
    set_column: list[str] = Field(
        default_factory=list,
        description="Restore only the values of these columns, in rows that still exist, instead of rows.",
    )
    threat_model: str | None = Field(default=None, description="With column: only rows of this threat model.")
    root: str | None = Field(default=None, description="With column: only rows of this root, as name=key: order=17.")


class OfThreatModel(Config):
    """One threat model with its dependent rows."""

    kind: Literal["threat_model"] = "threat_model"
    id: str = Field(description="Id of the threat model.")


class OfRoot(Config):
    """A root of the profile with its dependent rows."""

    kind: Literal["root"] = "root"
    root: str = Field(description="Root as name=key: order=17.")


class RowsConfig(Config):
    """Which past state, which rows, and the confirmation. Past and rows are required, each in one form."""

    past: ToTime | ToLsn | ToName | OfBackup = Field(
        discriminator="kind", description="The past state to restore rows from."
    )
    rows: OfTable | OfThreatModel | OfRoot = Field(discriminator="kind", description="The rows to restore.")
    confirm: str = Field(
        default="",
        description="Name of the environment (TMI_ENV), typed by the person responsible for this run. Empty: dry run.",
    )
    code: str = Field(default="", description=CODE_DESCRIPTION)
    with_children: bool = Field(default=True, description="Also restore rows that reference these rows.")
    conflicts: str = Field(
        default="stop", description="What to do with conflicts: stop, keep-current, take-past or skip."
    )
    accept_triggers: bool = Field(default=False, description="Accept changes that triggers make to restored rows.")
    cache: bool = Field(default=True, description="Remove stale copies from the cache afterwards.")

    @property
    def where(self) -> str | None:
        return self.rows.where if isinstance(self.rows, OfTable) else None

    def moment(self) -> "Moment":
        """Raises SettingsError: the moment cannot be read."""
        from dataclasses import replace

        from tmi_ops.rescue.past import Moment

        past = self.past
        if isinstance(past, OfBackup):
            return Moment(backup=past.id)
        if isinstance(past, ToName):
            return Moment(DrillConfig(to_name=past.name).target())
        wanted = DrillConfig(to_time=past.at) if isinstance(past, ToTime) else DrillConfig(to_lsn=past.lsn)
        target = wanted.target()
        return Moment(replace(target, inclusive=not past.exclusive) if target else None)

    def selection(self, profile: "Profile") -> "Selection":
        """Raises SettingsError: no rows are selected, or the policy or the root is unknown."""
        from tmi_ops.rescue.selection import POLICIES, Selection, SetColumns, TableColumn, TableRows

        policy = next((one for one in POLICIES if one == self.conflicts), None)
        if policy is None:
            raise SettingsError(
                f"`conflicts` is {self.conflicts!r}, which is not a policy.", hint=f"use one of {', '.join(POLICIES)}"
            )
        chosen, of = self._chosen(profile), self.rows
        columns, values = [], None
        if isinstance(of, OfTable):
            columns = [TableColumn(of.name, column) for column in of.column]
            values = SetColumns(of.name, tuple(of.set_column)) if of.set_column else None
        rows: tuple[TableRows, ...] = () if columns and chosen == TableRows(self._table) else (chosen,)
        return Selection(rows, tuple(columns), self.with_children, policy, self.accept_triggers, values)

    @property
    def _table(self) -> str:
        return self.rows.name if isinstance(self.rows, OfTable) else ""

    def _chosen(self, profile: "Profile") -> "TableRows":
        from tmi_ops.rescue.selection import TableRows, named_root, root_rows

        of = self.rows
        if isinstance(of, OfThreatModel):
            return root_rows(profile, "threat-model", of.id)
        if isinstance(of, OfRoot):
            return root_rows(profile, *named_root(of.root))
        if of.column and of.set_column:
            raise SettingsError("`column` and `set_column` exclude each other.", hint="set one of them")
        if sum(map(bool, (of.where, of.key, of.threat_model, of.root))) > 1:
            raise SettingsError("`where`, `key`, `threat_model` and `root` exclude each other.", hint="set one of them")
        if (of.threat_model or of.root) and not of.column:
            raise SettingsError(
                "`threat_model` and `root` restrict a table only together with `column`.",
                hint="select them instead of the table, or set `column`",
            )
        if of.threat_model:
            return root_rows(profile, "threat-model", of.threat_model)
        if of.root:
            return root_rows(profile, *named_root(of.root))
        return TableRows(of.name, of.where, tuple(of.key) or None)


def row_rescue_definitions(here: Protected) -> Definitions:
    """The job `recover_rows`. It has no schedule: only a person starts a recovery."""

    @op(
        name=here.called(f"{ROWS_JOB}_steps"),
        description="Recovers the past state beside the database, compares the rows, and restores them if confirmed.",
        pool=pool(here, "runbook"),
        tags={"tmi_ops/owner": OWNERS[0].replace(":", "-")},
    )
    @here.given
    def steps(context: OpExecutionContext, config: RowsConfig, environment: Environment) -> None:
        with failures_explained(tried_again=False):
            plan, journal, confirming = _carry_out(environment, config, environment.report(context.log))
        context.add_output_metadata(environment.told(_metadata(plan, journal, confirming)))

    @job(
        name=here.called(ROWS_JOB),
        resource_defs=here.of_its_jobs,
        description=here.for_people(
            "Restore rows that were deleted or changed, or columns that were dropped. Dry run unless `confirm` names "
            "the environment. Command: `tmi-ops recover rows`."
        ),
        tags=job_tags(here, Lane.RECOVERY, LONGEST_RUN),
        executor_def=EXECUTOR,
    )
    def rescue() -> None:
        steps()

    return Definitions(jobs=[rescue])


def _carry_out(
    environment: Environment, config: RowsConfig, report: RunLogReport
) -> "tuple[RescuePlan | ColumnsPlan, Journal | None, str]":
    """The plan; the run, if it was carried out; how to confirm the plan."""
    from tmi_ops.rescue.barriers import require_clear
    from tmi_ops.rescue.past import past_database
    from tmi_ops.rescue.planning import RescuePlan
    from tmi_ops.rescue.session import both_sides
    from tmi_ops.runbooks.execution import begin, carry_out
    from tmi_ops.runbooks.rows.actions import Opened, actions
    from tmi_ops.runbooks.rows.planning import runbook_of

    settings, store = environment.settings_for(Purpose.RUNBOOK), environment.open_store()
    require_allowed(environment.variables, sql={"where": config.where})
    confirmation = Confirmation.of(settings, ROWS_JOB, config)
    moment, selection = config.moment(), config.selection(settings.profile)
    with (
        past_database(settings, store, moment, report) as past,
        both_sides(past.address, settings.postgres, settings.pg_bindir, settings.profile.ties) as sides,
    ):
        opened = Opened.of(sides, selection, past.text, report)
        plan = opened.plan
        confirming = confirmation.require([plan.past, plan.database, plan.digest], _describe(plan))
        if not config.confirm or (isinstance(plan, RescuePlan) and not (plan.rows or plan.unsolved)):
            return plan, None, confirming
        require_clear(plan.barriers)
        if isinstance(plan, RescuePlan) and plan.unsolved:
            raise RecoveryError(
                "; ".join(f"{one.rows:,} rows of {one.table}: {one.detail}" for one in plan.unsolved) + ".",
                hint="set `conflicts` to keep-current, take-past or skip",
            )
        runbook = runbook_of(settings, moment, plan, with_cache=config.cache)
        logbook, _ = begin(settings, store, runbook, report)
        done = carry_out(settings, store, logbook, actions(opened), report, lambda _journal, _step: True)
        return plan, done, confirming


def _describe(plan: "RescuePlan | ColumnsPlan") -> list[str]:
    """What is done, for the person who confirms it."""
    from tmi_ops.rescue.planning import RescuePlan

    head = f"{plan.selection.describe()} in {plan.database}, as of {plan.past}: {plan.rows:,} rows are written"
    if not isinstance(plan, RescuePlan):
        return [head, *plan.returning, *plan.notes]
    tables = [
        f"{one.table}: {one.insert:,} inserted, {one.update:,} updated, {one.keep:,} kept, {one.leave:,} left out"
        for one in plan.tables
    ]
    return [head, *tables, *(f"{one.table}: {one.rows:,} rows: {one.detail}" for one in plan.conflicts), *plan.notes]


def _metadata(
    plan: "RescuePlan | ColumnsPlan", journal: "Journal | None", confirming: str
) -> dict[str, MetadataValue[Any]]:
    from tmi_ops.rescue.columns.planning import ColumnsPlan

    metadata: dict[str, MetadataValue[Any]] = {
        "what": MetadataValue.text(f"{plan.selection.describe()} in {plan.database}, as of {plan.past}"),
        "rows": MetadataValue.int(plan.rows),
        **(_of_columns(plan) if isinstance(plan, ColumnsPlan) else _of_rows(plan)),
    }
    if journal is None:
        return {
            **metadata,
            "outcome": MetadataValue.text("dry run: nothing was changed"),
            "to confirm": MetadataValue.md(confirming),
        }
    said = "; ".join(sentence for attempt in journal.attempts for sentence in attempt.said)
    return {
        **metadata,
        "outcome": MetadataValue.text(said),
        "details": MetadataValue.md(f"`tmi-ops recover show {journal.run_id}`"),
    }


def _of_rows(plan: "RescuePlan") -> dict[str, MetadataValue[Any]]:
    columns = [TableColumn("table", type="string"), *(TableColumn(count, type="int") for count in _COUNTS)]
    records = [
        TableRecord({"table": table.table, **{count: getattr(table, count) for count in _COUNTS}})
        for table in plan.tables
    ]
    return {
        "unsolved conflicts": MetadataValue.int(sum(one.rows for one in plan.unsolved)),
        "tables": MetadataValue.table(records, TableSchema(columns)),
    }


def _of_columns(plan: "ColumnsPlan") -> dict[str, MetadataValue[Any]]:
    return {
        "other rows": MetadataValue.text(f"{plan.others:,} get {plan.others_get()}" if plan.others else "none"),
        "restored": bullets(plan.returning),
        "notes": bullets(plan.notes),
    }
