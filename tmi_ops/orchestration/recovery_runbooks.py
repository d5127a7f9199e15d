"""The runbooks as jobs. Not assets, so that nobody runs one by accident; and none without a word typed by a person."""

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
from tmi_ops.orchestration.launching import CODE_WORDS, Confirmation, require_allowed
from tmi_ops.orchestration.policies import EXECUTOR, OWNERS, Lane, job_tags, pool
from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.resources import Environment, failures_explained
from tmi_ops.orchestration.results import bullets, seconds
from tmi_ops.settings import Purpose

if TYPE_CHECKING:
    from tmi_ops.progress import Report
    from tmi_ops.runbooks.journal import Journal
    from tmi_ops.runbooks.plan import Plan
    from tmi_ops.runbooks.serving.steps import ServeWish
    from tmi_ops.runbooks.steps.recover import Moment
    from tmi_ops.settings import Settings
    from tmi_ops.store.objects import ObjectStore

LONGEST_RUN = timedelta(hours=24)
_EFFECTS = {"beside": "", "interrupts": " (interrupts the application)", "irreversible": " (irreversible)"}
CORRUPTION_JOB, EVERYTHING_JOB = "recover_corruption", "recover_everything"


class RunbookConfig(Config):
    """What both runbooks are told."""

    confirm: str = Field(
        default="",
        description="The name of the environment (TMI_ENV), typed by who answers for this run. It stands for the yes "
        "to every step of the plan. Empty: the plan is made and shown, and nothing is touched.",
    )
    code: str = Field(default="", description=CODE_WORDS)
    resume: str | None = Field(
        default=None, description="Go on with this run (`latest`, or its id); all else but `confirm` is left out then."
    )
    to_time: str | None = Field(default=None, description="A time, ISO 8601 with its zone: 2026-11-24T03:44:13+00:00.")
    to_lsn: str | None = Field(default=None, description="A place in the WAL: 0/3000148.")
    to_name: str | None = Field(default=None, description="A restore point.")
    latest: bool = Field(default=False, description="The end of what is archived, and nothing else.")
    backup: str | None = Field(default=None, description="The backup to begin with; else the best one.")
    candidates: int = Field(default=8, ge=1, description="How many restores the search for a good moment may take.")
    into: str | None = Field(
        default=None,
        description="The new cluster's data directory, absent or empty; without, the database is exchanged on its own "
        "server.",
    )
    cache: bool = Field(default=True, description="Bring the cache in line, where there is one.")
    port: int | None = Field(default=None, description="The new server's port. Default: POSTGRES_PORT, or 5432.")
    listen: str | None = Field(default=None, description="Where the new server listens. Default: localhost.")
    host: str | None = Field(
        default=None, description="As what the application reaches the new server. Default: 127.0.0.1."
    )
    allow: list[str] | None = Field(default=None, description="CIDRs that the new server lets in with a password.")
    env_file: str | None = Field(default=None, description="The new connection is written there.")
    secret_file: str | None = Field(default=None, description="A Kubernetes Secret is written there.")

    def require_allowed(self, variables: Mapping[str, str]) -> None:
        """Raises SettingsError: something here is more than the settings let the launchpad say."""
        require_allowed(
            variables,
            paths={"into": self.into, "env_file": self.env_file, "secret_file": self.secret_file},
            addresses={"listen": self.listen, "host": self.host, "allow": self.allow},
        )

    def moment(self) -> "Moment | None":
        """None: it is looked for.

        Raises:
            SettingsError: more than one was given, or it cannot be read.
        """
        from tmi_ops.runbooks.steps.recover import Moment

        target = DrillConfig(
            to_time=self.to_time, to_lsn=self.to_lsn, to_name=self.to_name, latest=self.latest
        ).target()
        return None if target is None else Moment(time=target.time, lsn=target.lsn, name=target.name)

    def serve(self, settings: "Settings") -> "ServeWish":
        from tmi_ops.runbooks.application import read_application
        from tmi_ops.runbooks.serving.steps import ServeWish

        given = {
            "port": self.port or settings.postgres.port,
            "addresses": self.listen,
            "host": self.host,
            "allowed": self.allow,
            "role": next(iter(read_application(settings.variables).roles), None),
            "env_file": self.env_file,
            "secret_file": self.secret_file,
        }
        return ServeWish.model_validate({name: value for name, value in given.items() if value is not None})

    def place(self) -> Path | None:
        return Path(self.into).absolute() if self.into else None


class EverythingConfig(RunbookConfig):
    """Where the new cluster goes, and all else."""

    into: str = Field(description="The new cluster's data directory, absent or empty; with `resume` the same again.")


Prepare = Callable[["Settings", "ObjectStore", RunbookConfig, "Report"], "Plan"]


def recovery_runbook_definitions(here: Protected) -> Definitions:
    """The jobs `recover_corruption` and `recover_everything`. No schedule: a disaster is declared by a person."""
    corruption = _runbook_job(
        here,
        CORRUPTION_JOB,
        "Back to the last good moment: the application is shut out, base backup and WAL are restored, checked, "
        "and take the place of the damaged data, which is kept aside. "
        "Without `confirm` only the plan is shown. By hand: `tmi-ops recover corruption`.",
        _prepare_corruption,
        RunbookConfig,
    )
    if not here.is_environment:
        return Definitions(jobs=[corruption])
    everything = _runbook_job(
        here,
        EVERYTHING_JOB,
        "From nothing but the store and its key: a new cluster, restored, checked, configured and started, "
        "and the application told of it. Needs `into`. Without `confirm` only the plan is shown. By hand: "
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
    """What is done, for the plan's name, and for a person, who also sees what is made by clock and chance."""
    steps = [f"{number}. {step.name}: {step.does}" for number, step in enumerate(plan.steps, 1)]
    return (
        [plan.subject, plan.untouched, *(f"{step.name} {step.effect}" for step in plan.steps)],
        [f"{plan.title}: {plan.subject}", *steps, plan.untouched, *plan.notes],
    )


def _to_resume(journal: "Journal") -> tuple[list[str], list[str]]:
    deeds, words = _to_begin(journal.plan)
    return [journal.run_id, *deeds, *journal.pending], [
        f"go on with {journal.run_id} from its step {next(iter(journal.pending), 'none: all are done')}",
        *words,
    ]


def _prepare_corruption(settings: "Settings", store: "ObjectStore", config: RunbookConfig, report: "Report") -> "Plan":
    from tmi_ops.runbooks.corruption.planning import CorruptionWish, prepare_corruption

    into = config.place()
    serve = config.serve(settings) if into else None
    wish = CorruptionWish(config.moment(), config.backup, into, serve, config.candidates, config.cache)
    return prepare_corruption(settings, store, wish, report)


def _prepare_everything(settings: "Settings", store: "ObjectStore", config: RunbookConfig, report: "Report") -> "Plan":
    from tmi_ops.runbooks.everything.planning import EverythingWish, prepare_everything

    into = config.place()
    if into is None:
        raise SettingsError("The new cluster has no place.", hint="give its data directory: `into`")
    wish = EverythingWish(
        into,
        config.serve(settings),
        config.moment(),
        config.backup,
        limit=config.candidates,
        with_cache=config.cache,
    )
    return prepare_everything(settings, store, wish, report)


def _looked_at(
    environment: Environment, config: RunbookConfig, confirmation: Confirmation, prepare: Prepare, report: "Report"
) -> dict[str, MetadataValue[Any]]:
    """The plan of a new run, or how far one came that would be gone on with. Nothing is touched."""
    from tmi_ops.runbooks.logbook import find_run

    settings, store = environment.settings_for(Purpose.RUNBOOK), environment.open_store()
    if config.resume is not None:
        journal = find_run(settings, store, config.resume)[1]
        shown, deeds = _metadata(journal), _to_resume(journal)
    else:
        plan = prepare(settings, store, config, report)
        shown, deeds = _planned(plan), _to_begin(plan)
    return {**shown, "confirm it with": MetadataValue.md(confirmation.require(*deeds))}


def _planned(plan: "Plan") -> dict[str, MetadataValue[Any]]:
    columns = ("step", "what it does", "way back")
    records = [
        TableRecord(dict(zip(columns, (step.name, f"{step.does}{_EFFECTS[step.effect]}", step.way_back), strict=True)))
        for step in plan.steps
    ]
    return {
        "outcome": MetadataValue.text("the plan only: nothing was touched"),
        "what": MetadataValue.text(plan.subject),
        "plan": MetadataValue.table(records, TableSchema([TableColumn(name, type="string") for name in columns])),
        "not touched": MetadataValue.text(plan.untouched),
        "notes": bullets(plan.notes),
        "left to you": bullets(plan.afterwards),
    }


def _metadata(journal: "Journal") -> dict[str, MetadataValue[Any]]:
    from tmi_ops.runbooks.evidence import evidence_of
    from tmi_ops.runbooks.logbook import FOLDER
    from tmi_ops.runbooks.recording import PAGE

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
        "look at it with": MetadataValue.md(f"`tmi-ops recover show {journal.run_id} --html run.html`"),
        **{f"step: {step} (s)": seconds(spent) for step, spent in evidence.phases.items()},
    }


def _step_table(journal: "Journal") -> MetadataValue[Any]:
    columns = ("step", "outcome", "what came of it")
    records = []
    for step in journal.plan.steps:
        attempt = journal.last(step.name)
        said = " ".join(attempt.said) if attempt else ""
        records.append(
            TableRecord(
                {
                    "step": step.name,
                    "outcome": attempt.outcome if attempt else "not begun",
                    "what came of it": said,
                    "seconds": round(attempt.seconds, 2) if attempt else 0.0,
                }
            )
        )
    return MetadataValue.table(
        records,
        TableSchema([*(TableColumn(name, type="string") for name in columns), TableColumn("seconds", type="float")]),
    )
