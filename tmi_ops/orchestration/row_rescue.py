"""Rows brought back from the past as a job: a dry run unless somebody confirms it with the environment's name."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

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


class ToTime(Config):
    """As it was at a time."""

    kind: Literal["to_time"] = "to_time"
    at: str = Field(description="ISO 8601 with its zone: 2026-11-24T03:44:13+00:00.")
    exclusive: bool = Field(default=False, description="Just before that.")


class ToLsn(Config):
    """As it was at a place in the WAL."""

    kind: Literal["to_lsn"] = "to_lsn"
    lsn: str = Field(description="As the command `recover find` prints it: 0/3000148.")
    exclusive: bool = Field(default=False, description="Just before that.")


class ToName(Config):
    """As it was at a restore point."""

    kind: Literal["to_name"] = "to_name"
    name: str = Field(description="The restore point's name.")


class OfBackup(Config):
    """As a logical backup has it, where there is no WAL."""

    kind: Literal["backup"] = "backup"
    id: str = Field(description="A backup's id, a unique start of one, or latest.")


class OfTable(Config):
    """Rows of one table: all of them, if no more is said."""

    kind: Literal["table"] = "table"
    name: str = Field(description="The table, with its schema where several have one of that name.")
    where: str | None = Field(default=None, description="The rows that this SQL condition held for then.")
    key: list[str] = Field(default_factory=list, description="Or the row with this primary key.")
    column: list[str] = Field(
        default_factory=list,
        description="Instead of rows: columns that the table lost, filled in the rows that are still there; with "
        "where, key, threat_model or root, in those alone.",
    )
    set_column: list[str] = Field(
        default_factory=list,
        description="Instead of rows: only these columns' values, in rows that still exist; other columns stay.",
    )
    threat_model: str | None = Field(default=None, description="With column: the rows of this threat model.")
    root: str | None = Field(default=None, description="With column: the rows of this root, as name=key: order=17.")


class OfThreatModel(Config):
    """One threat model, with all that hangs on it."""

    kind: Literal["threat_model"] = "threat_model"
    id: str = Field(description="Its id.")


class OfRoot(Config):
    """A root of the profile, with all that hangs on it."""

    kind: Literal["root"] = "root"
    root: str = Field(description="As name=key: order=17.")


class RowsConfig(Config):
    """The past, the rows, and the yes. Past and rows must be given, each in one way."""

    past: ToTime | ToLsn | ToName | OfBackup = Field(discriminator="kind", description="Which past.")
    rows: OfTable | OfThreatModel | OfRoot = Field(discriminator="kind", description="What shall come back.")
    confirm: str = Field(
        default="",
        description="The name of the environment (TMI_ENV), typed by who answers for this run. Empty: a dry run.",
    )
    code: str = Field(default="", description=CODE_WORDS)
    with_children: bool = Field(default=True, description="Also what hung on these rows.")
    conflicts: str = Field(default="stop", description="stop, keep-current, take-past or skip.")
    accept_triggers: bool = Field(default=False, description="Accept what triggers make of the rows.")
    cache: bool = Field(default=True, description="Drop the cache's stale copies afterwards.")

    @property
    def where(self) -> str | None:
        return self.rows.where if isinstance(self.rows, OfTable) else None

    def moment(self) -> "Moment":
        """Raises SettingsError: it cannot be read."""
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
        """Raises SettingsError: it does not say which rows, or names no policy or no root."""
        from tmi_ops.rescue.selection import POLICIES, Selection, SetColumns, TableColumn, TableRows

        policy = next((one for one in POLICIES if one == self.conflicts), None)
        if policy is None:
            raise SettingsError(f"{self.conflicts!r} is no policy.", hint=f"give one of {', '.join(POLICIES)}")
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
            raise SettingsError("A dropped column, or values?", hint="give one of column and set_column")
        if sum(map(bool, (of.where, of.key, of.threat_model, of.root))) > 1:
            raise SettingsError("Which rows?", hint="give one of where, key, threat_model and root")
        if (of.threat_model or of.root) and not of.column:
            raise SettingsError("Which rows?", hint="give threat_model and root in the place of table, or a column")
        if of.threat_model:
            return root_rows(profile, "threat-model", of.threat_model)
        if of.root:
            return root_rows(profile, *named_root(of.root))
        return TableRows(of.name, of.where, tuple(of.key) or None)


def row_rescue_definitions(here: Protected) -> Definitions:
    """The job `recover_rows`. No schedule: a disaster is declared by a person."""

    @op(
        name=here.called(f"{ROWS_JOB}_steps"),
        description="The past beside the living database, the rows compared, and brought back once it is confirmed.",
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
            "Bring back rows that were deleted or changed, or columns that were dropped. A dry run unless `confirm` "
            "names the environment. By hand: `tmi-ops recover rows`."
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
    """The plan; the run, where it was carried out; how it is confirmed."""
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
        opened = Opened.of(sides, selection, past.words, report)
        plan = opened.plan
        confirming = confirmation.require([plan.past, plan.database, plan.digest], _words(plan))
        if not config.confirm or (isinstance(plan, RescuePlan) and not (plan.rows or plan.unsolved)):
            return plan, None, confirming
        require_clear(plan.barriers)
        if isinstance(plan, RescuePlan) and plan.unsolved:
            raise RecoveryError(
                "; ".join(f"{one.rows:,} rows of {one.table}: {one.detail}" for one in plan.unsolved) + ".",
                hint="choose what becomes of conflicts: keep-current, take-past or skip",
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
