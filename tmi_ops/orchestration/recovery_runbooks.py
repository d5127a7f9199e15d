"""The runbooks as jobs. Not assets, so that nobody materializes one by accident; each must be confirmed by a person."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster import (
    Config,
    Definitions,
    JobDefinition,
    MetadataValue,
    OpExecutionContext,
    TableColumn,
    TableRecord,
    TableSchema,
    job,
    op,
)
from pydantic import Field

from tmi_ops.errors import SettingsError
from tmi_ops.orchestration.drill import DrillConfig
from tmi_ops.orchestration.launching import CODE_DESCRIPTION, Confirmation, require_allowed
from tmi_ops.orchestration.policies import EXECUTOR, OWNERS, Lane, job_tags, pool
from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.resources import Environment, failures_explained
from tmi_ops.orchestration.results import bullets, seconds
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.progress import Report
    from tmi_ops.runbooks.journal import Journal
    from tmi_ops.runbooks.plan import Plan
    from tmi_ops.runbooks.serving.steps import ServeRequest
    from tmi_ops.runbooks.steps.recover import Moment
    from tmi_ops.settings import Settings
    from tmi_ops.store.objects import ObjectStore

LONGEST_RUN = timedelta(hours=24)
_EFFECTS = {"beside": "", "interrupts": " (interrupts the application)", "irreversible": " (irreversible)"}
CORRUPTION_JOB, EVERYTHING_JOB = "recover_corruption", "recover_everything"


class RunbookConfig(Config):
    """The configuration of both runbooks."""

    confirm: str = Field(
        default="",
        description="Name of the environment (TMI_ENV), typed by the person responsible for this run. Confirms every "
        "step of the plan. Empty: show the plan and change nothing.",
    )
    code: str = Field(default="", description=CODE_DESCRIPTION)
    resume: str | None = Field(
        default=None,
        description="Continue this run (`latest`, or its id). Leave out everything else but `confirm` and `code`.",
    )
    to_time: str | None = Field(
        default=None, description="Recover to this time, ISO 8601 with a time zone: 2026-11-24T03:44:13+00:00."
    )
    to_lsn: str | None = Field(default=None, description="Recover to this LSN: 0/3000148.")
    to_name: str | None = Field(default=None, description="Recover to this restore point.")
    latest: bool = Field(default=False, description="Recover to the end of the archive; try no other moment.")
    backup: str | None = Field(default=None, description="Backup to start from. Default: the best one.")
    candidates: int = Field(default=8, ge=1, description="Maximum number of restores in the search for a good moment.")
    into: str | None = Field(
        default=None,
        description="Data directory of the new cluster, absent or empty. Default: replace the database on its own "
        "server.",
    )
    cache: bool = Field(default=True, description="Reconcile the cache, if there is one.")
    port: int | None = Field(default=None, description="Port of the new server. Default: POSTGRES_PORT, or 5432.")
    listen: str | None = Field(default=None, description="Addresses the new server listens on. Default: localhost.")
    host: str | None = Field(
        default=None, description="Host name clients use to connect to the new server. Default: 127.0.0.1."
    )
    allow: list[str] | None = Field(
        default=None, description="CIDR ranges from which the new server accepts connections with a password."
    )
    env_file: str | None = Field(default=None, description="File to write the new connection settings to.")
    secret_file: str | None = Field(default=None, description="File to write a Kubernetes Secret to.")

    def require_allowed(self, variables: Mapping[str, str]) -> None:
        """Raises SettingsError: the settings do not allow something here to be set in the launchpad."""
        require_allowed(
            variables,
            paths={"into": self.into, "env_file": self.env_file, "secret_file": self.secret_file},
            addresses={"listen": self.listen, "host": self.host, "allow": self.allow},
        )

    def moment(self) -> "Moment | None":
        """The target; None: search for it.

        Raises:
            SettingsError: more than one was given, or it cannot be read.
        """
        from tmi_ops.runbooks.steps.recover import Moment

        target = DrillConfig(
            to_time=self.to_time, to_lsn=self.to_lsn, to_name=self.to_name, latest=self.latest
        ).target()
        return None if target is None else Moment(time=target.time, lsn=target.lsn, name=target.name)

    def serve(self, settings: "Settings") -> "ServeRequest":
        from tmi_ops.runbooks.application import read_application
        from tmi_ops.runbooks.serving.steps import ServeRequest

        given = {
            "port": self.port or settings.postgres.port,
            "addresses": self.listen,
            "host": self.host,
            "allowed": self.allow,
            "role": next(iter(read_application(settings.variables).roles), None),
            "env_file": self.env_file,
            "secret_file": self.secret_file,
        }
        return ServeRequest.model_validate({name: value for name, value in given.items() if value is not None})

    def place(self) -> Path | None:
        return Path(self.into).absolute() if self.into else None


class EverythingConfig(RunbookConfig):
    """The same, with `into` required."""

    into: str = Field(
        description="Data directory of the new cluster, absent or empty; with `resume`, the same as before."
    )


Prepare = Callable[["Settings", "ObjectStore", RunbookConfig, "Report"], "Plan"]


def recovery_runbook_definitions(here: Protected) -> Definitions:
    """The jobs `recover_corruption` and `recover_everything`. No schedules: only a person starts a recovery."""
    corruption = _runbook_job(
        here,
        CORRUPTION_JOB,
        "Recover the last good moment: shut out the application, restore base backup and WAL, check them, and replace "
        "the damaged data, which is kept aside. Without `confirm`, only shows the plan. Command: "
        "`tmi-ops recover corruption`.",
        _prepare_corruption,
        RunbookConfig,
    )
    if not here.is_environment:
        return Definitions(jobs=[corruption])
    everything = _runbook_job(
        here,
        EVERYTHING_JOB,
        "Recover with nothing but the store and its key: restore a new cluster, check, configure and start it, and "
        "point the application to it. Requires `into`. Without `confirm`, only shows the plan. Command: "
        "`tmi-ops recover everything`.",
        _prepare_everything,
        EverythingConfig,
    )
    return Definitions(jobs=[corruption, everything])


def _runbook_job(
    here: Protected, name: str, description: str, prepare: Prepare, asked: type[RunbookConfig]
) -> JobDefinition:
    @op(
        name=here.called(f"{name}_steps"),
        description=here.for_people(description),
        pool=pool(here, "runbook"),
        tags={"tmi_ops/owner": OWNERS[0].replace(":", "-")},
    )
    @here.given
    def steps(
        context: OpExecutionContext,
        config: asked,  # type: ignore[valid-type]
        environment: Environment,
    ) -> None:
        with failures_explained(tried_again=False):
            report = environment.report(context.log)
            config.require_allowed(environment.variables)  # type: ignore[attr-defined]
            confirmation = Confirmation.of(environment.settings_for(Purpose.RUNBOOK), name, config)
            look = _looked_at if confirmation.plan is None else _carry_out
            metadata = look(environment, config, confirmation, prepare, report)
        context.add_output_metadata(environment.told(metadata))

    @job(
        name=here.called(name),
        resource_defs=here.of_its_jobs,
        description=here.for_people(description),
        tags=job_tags(here, Lane.RECOVERY, LONGEST_RUN),
        executor_def=EXECUTOR,
    )
    def runbook() -> None:
        steps()

    return runbook


def _carry_out(
    environment: Environment, config: RunbookConfig, confirmation: Confirmation, prepare: Prepare, report: "Report"
) -> dict[str, MetadataValue[Any]]:
    """Raises OpsError: as the runbook."""
    from tmi_ops.runbooks.catalogue import actions_for
    from tmi_ops.runbooks.execution import begin, carry_out
    from tmi_ops.runbooks.logbook import find_run

    settings, store = environment.settings_for(Purpose.RUNBOOK), environment.open_store()
    if config.resume is not None:
        logbook, journal = find_run(settings, store, config.resume)
        confirmation.require(*_to_resume(journal))
    else:
        plan = prepare(settings, store, config, report)
        confirmation.require(*_to_begin(plan))
        logbook, journal = begin(settings, store, plan, report)
    for number, step in enumerate(journal.plan.steps, 1):
        report.note(f"planned: {number}. {step.name}: {step.does}")
    return _metadata(
        carry_out(settings, store, logbook, actions_for(journal.plan), report, lambda _journal, _step: True)
    )


def _to_begin(plan: "Plan") -> tuple[list[str], list[str]]:
    """What is done: for the plan's name, without what clock and chance decide, and for a person, with it."""
    steps = [f"{number}. {step.name}: {step.does}" for number, step in enumerate(plan.steps, 1)]
    return (
        [plan.subject, plan.untouched, *(f"{step.name} {step.effect}" for step in plan.steps)],
        [f"{plan.title}: {plan.subject}", *steps, plan.untouched, *plan.notes],
    )


def _to_resume(journal: "Journal") -> tuple[list[str], list[str]]:
    actions, words = _to_begin(journal.plan)
    return [journal.run_id, *actions, *journal.pending], [
        f"continue {journal.run_id} with step {next(iter(journal.pending), 'none: all are done')}",
        *words,
    ]


def _prepare_corruption(settings: "Settings", store: "ObjectStore", config: RunbookConfig, report: "Report") -> "Plan":
    from tmi_ops.runbooks.corruption.planning import CorruptionRequest, prepare_corruption

    into = config.place()
    serve = config.serve(settings) if into else None
    request = CorruptionRequest(config.moment(), config.backup, into, serve, config.candidates, config.cache)
    return prepare_corruption(settings, store, request, report)


def _prepare_everything(settings: "Settings", store: "ObjectStore", config: RunbookConfig, report: "Report") -> "Plan":
    from tmi_ops.runbooks.everything.planning import EverythingRequest, prepare_everything

    into = config.place()
    if into is None:
        raise SettingsError("No data directory was given for the new cluster.", hint="set `into`")
    request = EverythingRequest(
        into,
        config.serve(settings),
        config.moment(),
        config.backup,
        limit=config.candidates,
        with_cache=config.cache,
    )
    return prepare_everything(settings, store, request, report)


def _looked_at(
    environment: Environment, config: RunbookConfig, confirmation: Confirmation, prepare: Prepare, report: "Report"
) -> dict[str, MetadataValue[Any]]:
    """The plan of a new run, or the progress of the run to resume. Changes nothing."""
    from tmi_ops.runbooks.logbook import find_run

    settings, store = environment.settings_for(Purpose.RUNBOOK), environment.open_store()
    if config.resume is not None:
        journal = find_run(settings, store, config.resume)[1]
        shown, actions = _metadata(journal), _to_resume(journal)
    else:
        plan = prepare(settings, store, config, report)
        shown, actions = _planned(plan), _to_begin(plan)
    return {**shown, "to confirm": MetadataValue.md(confirmation.require(*actions))}


def _planned(plan: "Plan") -> dict[str, MetadataValue[Any]]:
    columns = ("step", "what it does", "way back")
    records = [
        TableRecord(dict(zip(columns, (step.name, f"{step.does}{_EFFECTS[step.effect]}", step.way_back), strict=True)))
        for step in plan.steps
    ]
    return {
        "outcome": MetadataValue.text("plan only: nothing was changed"),
        "what": MetadataValue.text(plan.subject),
        "plan": MetadataValue.table(records, TableSchema([TableColumn(name, type="string") for name in columns])),
        "not touched": MetadataValue.text(plan.untouched),
        "notes": bullets(plan.notes),
        "left to you": bullets(plan.afterwards),
    }


def _metadata(journal: "Journal") -> dict[str, MetadataValue[Any]]:
    from tmi_ops.runbooks.evidence import PAGE, evidence_of
    from tmi_ops.runbooks.logbook import FOLDER

    evidence = evidence_of(journal)
    return {
        "outcome": MetadataValue.text(evidence.outcome),
        "left to you": bullets(journal.left),
        "what": MetadataValue.text(journal.plan.subject),
        "run": MetadataValue.text(journal.run_id),
        "took (s)": seconds(evidence.rto_seconds),
        "RTO objective (s)": seconds(evidence.rto_objective_seconds),
        "steps": _step_table(journal),
        "checks": MetadataValue.table(
            [
                TableRecord({"check": one.title, "outcome": one.outcome, "answer": one.detail})
                for one in journal.answers
            ],
            TableSchema([TableColumn(name, type="string") for name in ("check", "outcome", "answer")]),
        ),
        "evidence": MetadataValue.text(f"{FOLDER}/{journal.run_id}/{PAGE}"),
        "details": MetadataValue.md(f"`tmi-ops recover show {journal.run_id} --html run.html`"),
        **{f"step: {step} (s)": seconds(spent) for step, spent in evidence.phases.items()},
    }


def _step_table(journal: "Journal") -> MetadataValue[Any]:
    columns = ("step", "outcome", "result")
    records = []
    for step in journal.plan.steps:
        attempt = journal.last(step.name)
        said = " ".join(attempt.said) if attempt else ""
        records.append(
            TableRecord(
                {
                    "step": step.name,
                    "outcome": attempt.outcome if attempt else "not started",
                    "result": said,
                    "seconds": round(attempt.seconds, 2) if attempt else 0.0,
                }
            )
        )
    return MetadataValue.table(
        records,
        TableSchema([*(TableColumn(name, type="string") for name in columns), TableColumn("seconds", type="float")]),
    )
