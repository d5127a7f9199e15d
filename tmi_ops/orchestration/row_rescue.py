"""Rows brought back from the past as a job: a dry run unless somebody confirms it with the environment's name."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

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
from pydantic import Field

from tmi_ops.errors import RecoveryError, SettingsError
from tmi_ops.orchestration.drill import DrillConfig
from tmi_ops.orchestration.launching import CODE_WORDS, Confirmation, require_allowed
from tmi_ops.orchestration.policies import EXECUTOR, OWNERS, Lane, job_tags, pool
from tmi_ops.orchestration.progress import RunLogReport
from tmi_ops.orchestration.resources import Environment, failures_explained
from tmi_ops.orchestration.results import bullets
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.profile import Profile
    from tmi_ops.rescue.columns.planning import ColumnsPlan
    from tmi_ops.rescue.past import Moment
    from tmi_ops.rescue.planning import RescuePlan
    from tmi_ops.rescue.selection import Selection
    from tmi_ops.runbooks.journal import Journal

ROWS_JOB = "recover_rows"
LONGEST_RUN = timedelta(hours=24)
_COUNTS = ("insert", "update", "keep", "leave", "as_it_was")


class RowsConfig(Config):
    """The past, the rows, and the yes."""

    confirm: str = Field(
        default="",
        description="The name of the environment (TMI_ENV), typed by who answers for this run. Empty: a dry run.",
    )
    code: str = Field(default="", description=CODE_WORDS)
    to_time: str | None = Field(default=None, description="As it was then, ISO 8601: 2026-11-24T03:44:13+00:00.")
    to_lsn: str | None = Field(default=None, description="As it was at this place in the WAL: 0/3000148.")
    to_name: str | None = Field(default=None, description="As it was at this restore point.")
    exclusive: bool = Field(default=False, description="Just before that.")
    backup: str | None = Field(default=None, description="As this logical backup has it, where there is no WAL.")
    threat_model: str | None = Field(default=None, description="One threat model, with all that hangs on it.")
    root: str | None = Field(default=None, description="The same for a root of the profile, as name=key: order=17.")
    table: str | None = Field(default=None, description="Or rows of this table: all, if no more is said.")
    where: str | None = Field(default=None, description="Of that table, the rows this SQL condition held for then.")
    key: list[str] = Field(default_factory=list, description="Or the row with this primary key.")
    column: list[str] = Field(
        default_factory=list,
        description="Columns that `table` lost, filled in the rows that are still there; with where, key or "
        "threat_model, in those alone.",
    )
    set_column: list[str] = Field(
        default_factory=list,
        description="Only these columns' values of `table`, in rows that still exist; other columns stay.",
    )
    with_children: bool = Field(default=True, description="Also what hung on these rows.")
    conflicts: str = Field(default="stop", description="stop, keep-current, take-past or skip.")
    accept_triggers: bool = Field(default=False, description="Accept what triggers make of the rows.")
    cache: bool = Field(default=True, description="Drop the cache's stale copies afterwards.")

    def moment(self) -> "Moment":
        """Raises SettingsError: not exactly one past was given."""
        from dataclasses import replace

        from tmi_ops.rescue.past import Moment

        target = DrillConfig(to_time=self.to_time, to_lsn=self.to_lsn, to_name=self.to_name).target()
        if (target is None) == (self.backup is None):
            raise SettingsError("Which past?", next_step="give one of to_time, to_lsn, to_name and backup")
        return Moment(replace(target, inclusive=not self.exclusive) if target else None, self.backup)

    def selection(self, profile: "Profile") -> "Selection":
        """Raises SettingsError: it does not say which rows, or names no policy or no root."""
        from tmi_ops.rescue.selection import (
            POLICIES,
            Selection,
            SetColumns,
            TableColumn,
            TableRows,
            named_root,
            root_rows,
        )

        whole = named_root(self.root) if self.root else None
        if self.threat_model:
            whole = ("threat-model", self.threat_model)

        if (self.column or self.set_column) and self.table is None:
            raise SettingsError("Whose column?", next_step="give table, too")
        if self.column and self.set_column:
            raise SettingsError("A dropped column, or values?", next_step="give one of column and set_column")
        if not self.column and (self.table is None) == (whole is None):
            raise SettingsError("Which rows?", next_step="give table, threat_model or root")
        policy = next((one for one in POLICIES if one == self.conflicts), None)
        if policy is None:
            raise SettingsError(f"{self.conflicts!r} is no policy.", next_step=f"give one of {', '.join(POLICIES)}")
        if sum(map(bool, (self.where, self.key, self.threat_model, self.root))) > 1:
            raise SettingsError("Which rows?", next_step="give one of where, key, threat_model and root")
        rows = (
            root_rows(profile, *whole)
            if whole is not None
            else TableRows(self.table or "", self.where, tuple(self.key) or None)
        )
        columns = tuple(TableColumn(self.table or "", column) for column in self.column)
        chosen = () if columns and not (self.where or self.key or whole) else (rows,)
        values = SetColumns(self.table or "", tuple(self.set_column)) if self.set_column else None
        return Selection(chosen, columns, self.with_children, policy, self.accept_triggers, values)


def row_rescue_definitions(environment: str) -> Definitions:
    """The job `recover_rows`. No schedule: a disaster is declared by a person."""

    @op(
        name=f"{ROWS_JOB}_steps",
        description="The past beside the living database, the rows compared, and brought back once it is confirmed.",
        pool=pool(environment, "runbook"),
        tags={"tmi_ops/owner": OWNERS[0].replace(":", "-")},
    )
    def steps(context: OpExecutionContext, config: RowsConfig, environment: Environment) -> None:
        with failures_explained(tried_again=False):
            plan, journal, confirming = _carry_out(environment, config, RunLogReport(context.log))
        context.add_output_metadata(_metadata(plan, journal, confirming))

    @job(
        name=ROWS_JOB,
        description="Bring back rows that were deleted or changed, or columns that were dropped. A dry run unless "
        "`confirm` names the environment. "
        "By hand: `tmi-ops recover rows`.",
        tags=job_tags(environment, Lane.RECOVERY, LONGEST_RUN),
        executor_def=EXECUTOR,
    )
    def rescue() -> None:
        steps()

    return Definitions(jobs=[rescue])


def _carry_out(
    environment: Environment, config: RowsConfig, report: RunLogReport
) -> "tuple[RescuePlan | ColumnsPlan, Journal | None, str]":
    """The plan; the run, where it was carried out; how it is confirmed."""
    from tmi_ops.rescue.barriers import require_clear
    from tmi_ops.rescue.past import past_database
    from tmi_ops.rescue.planning import RescuePlan
    from tmi_ops.rescue.session import both_sides
    from tmi_ops.runbooks.execution import begin, carry_out
    from tmi_ops.runbooks.rows.actions import Opened, actions
    from tmi_ops.runbooks.rows.planning import runbook_of

    settings, store = environment.settings_for(Purpose.RUNBOOK), environment.open_store()
    require_allowed(sql={"where": config.where})
    confirmation = Confirmation.of(settings, ROWS_JOB, config)
    moment, selection = config.moment(), config.selection(settings.profile)
    with (
        past_database(settings, store, moment, report) as past,
        both_sides(past.address, settings.postgres, settings.pg_bindir, settings.profile.ties) as sides,
    ):
        opened = Opened.of(sides, selection, past.words, report)
        plan = opened.plan
        confirming = confirmation.require([plan.past, plan.database, plan.digest], _words(plan))
        if not config.confirm or (isinstance(plan, RescuePlan) and not (plan.rows or plan.unsolved)):
            return plan, None, confirming
        require_clear(plan.barriers)
        if isinstance(plan, RescuePlan) and plan.unsolved:
            raise RecoveryError(
                "; ".join(f"{one.rows:,} rows of {one.table}: {one.detail}" for one in plan.unsolved) + ".",
                next_step="choose what becomes of conflicts: keep-current, take-past or skip",
            )
        runbook = runbook_of(settings, moment, plan, with_cache=config.cache)
        logbook, _ = begin(settings, store, runbook, report)
        done = carry_out(settings, store, logbook, actions(opened), report, lambda _journal, _step: True)
        return plan, done, confirming


def _words(plan: "RescuePlan | ColumnsPlan") -> list[str]:
    """What is done, for who is to say yes to it."""
    from tmi_ops.rescue.planning import RescuePlan

    head = f"{plan.selection.words()} in {plan.database}, as of {plan.past}: {plan.rows:,} rows are written"
    if not isinstance(plan, RescuePlan):
        return [head, *plan.returning, *plan.notes]
    tables = [
        f"{one.table}: {one.insert:,} inserted, {one.update:,} changed back, {one.keep:,} kept, {one.leave:,} left out"
        for one in plan.tables
    ]
    return [head, *tables, *(f"{one.table}: {one.rows:,} rows: {one.detail}" for one in plan.conflicts), *plan.notes]


def _metadata(
    plan: "RescuePlan | ColumnsPlan", journal: "Journal | None", confirming: str
) -> dict[str, MetadataValue[Any]]:
    from tmi_ops.rescue.columns.planning import ColumnsPlan

    metadata: dict[str, MetadataValue[Any]] = {
        "what": MetadataValue.text(f"{plan.selection.words()} in {plan.database}, as of {plan.past}"),
        "rows": MetadataValue.int(plan.rows),
        **(_of_columns(plan) if isinstance(plan, ColumnsPlan) else _of_rows(plan)),
    }
    if journal is None:
        return {
            **metadata,
            "outcome": MetadataValue.text("dry run: nothing was changed"),
            "confirm it with": MetadataValue.md(confirming),
        }
    said = "; ".join(sentence for attempt in journal.attempts for sentence in attempt.said)
    return {
        **metadata,
        "outcome": MetadataValue.text(said),
        "look at it with": MetadataValue.md(f"`tmi-ops recover show {journal.run_id}`"),
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
        "comes back": bullets(plan.returning),
        "notes": bullets(plan.notes),
    }
