"""The resource of every asset (settings and store of its environment), and our errors as Dagster failures.

Secrets are read from the process when a step begins; they are never part of a run's configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dagster import (
    ConfigurableResource,
    DagsterLogManager,
    Failure,
    InitResourceContext,
    OpExecutionContext,
    RetryRequested,
)
from pydantic import Field

from tmi_ops.command_texts import with_environment
from tmi_ops.errors import OpsError, SettingsError
from tmi_ops.orchestration.policies import MAX_RETRIES, retry_delay_s
from tmi_ops.orchestration.presence import await_absence, hold_presence
from tmi_ops.orchestration.progress import RunLogReport
from tmi_ops.orchestration.telling import told_metadata
from tmi_ops.settings import Declared, Purpose, Settings, declare, load_settings, name_for_others, variables_of
from tmi_ops.store.objects import ObjectStore

PARENT_TAG = "dagster/parent_run_id"  # Dagster's own: the run that this one repeats
# How long a run waits for the one it retries: Dagster may have given that one up while its process still runs.
PARENT_TIMEOUT_S = 600.0
REFUSED = "refused"


class Environment(ConfigurableResource[object]):
    """An environment that this code location serves.

    Attributes:
        name: `production`, or `production/billing` for another database of its cluster.
        declared: its settings and where its secrets are, if they are in `declared_in` instead of a file of ours.
    """

    name: str
    declared: dict[str, str] = Field(default_factory=dict)
    declared_in: str = ""

    def setup_for_execution(self, context: InitResourceContext) -> None:
        """Hold the run's presence lock, and wait until the run that this one retries has ended.

        Raises:
            Failure: Dagster gave the run up before it started, or the run that it retries does not end.
        """
        run, instance = context.run, context.instance
        if run is None or instance is None:
            return  # a sensor's look
        hold_presence(instance, run.run_id)
        recorded = instance.get_run_by_id(run.run_id)
        if recorded is not None and recorded.is_finished:
            raise Failure("Dagster gave this run up before it started; another run does its work.")
        parent = run.tags.get(PARENT_TAG)
        if parent and not await_absence(instance, parent, PARENT_TIMEOUT_S):
            raise Failure(f"Run {parent[:8]}, which this run retries, is still running.")

    @cached_property
    def settings(self) -> Settings:
        """For what does not query the database, and for the guards, which read its WAL position."""
        return self.settings_for(Purpose.MONITOR)

    def settings_for(self, purpose: Purpose) -> Settings:
        """With the role that the environment names for this purpose."""
        return load_settings(purpose=purpose, of=self._of)

    @property
    def variables(self) -> Mapping[str, str]:
        """The variables that its settings were read from. Contains secrets."""
        return variables_of(self.settings)

    def report(self, log: DagsterLogManager) -> RunLogReport:
        """Reports progress to the run's log."""
        return RunLogReport(log, name_for_others(self.name))

    def told(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Metadata for people: each command in it names the environment."""
        return told_metadata(metadata, self.for_people)

    def for_people(self, text: str) -> str:
        """A text for people: each command in it names the environment, so that it can be pasted anywhere."""
        return with_environment(text, name_for_others(self.name))

    @property
    def _of(self) -> str | Declared:
        return declare(self.name, self.declared, Path(self.declared_in)) if self.declared else self.name

    def open_store(self) -> ObjectStore:
        """The store, with the connections that this process has."""
        from tmi_ops.store.objects import open_store

        return open_store(self.settings.store, self.settings.environment, kept=True)


@dataclass
class Skipped:
    """Why a sensor could not evaluate, in one line; empty if it could."""

    because: str = ""


@contextmanager
def refusals_skipped() -> Iterator[Skipped]:
    """Skip the tick if something cannot be reached: the guards of the objectives alert about that."""
    skipped = Skipped()
    try:
        yield skipped
    except OpsError as error:
        skipped.because = f"Skipped: {error}"


@contextmanager
def failures_explained(*, tried_again: bool = True) -> Iterator[None]:
    """Turn our errors into Dagster failures. Transient ones are retried a few times. A cancelled step is not, as it
    would be with a `RetryPolicy`.

    Args:
        tried_again: False for what only a person may launch again.

    Source: dagster/_core/execution/plan/utils.py, `op_execution_error_boundary`.
    """
    try:
        yield
    except OpsError as error:
        metadata = {"what happened": error.message, "kept safe": error.detail, "next step": error.hint}
        if isinstance(error, SettingsError):
            metadata[REFUSED] = "before anything was started"
        failure = Failure(
            description=str(error),
            metadata={name: text for name, text in metadata.items() if text},
            allow_retries=False,
        )
        if not (error.transient and tried_again):
            raise failure from error
        failure.__cause__ = error
        raise _try_again() from failure
    except OSError as error:
        if not tried_again:
            raise
        raise _try_again() from error


def _try_again() -> RetryRequested:
    number = OpExecutionContext.get().retry_number
    return RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=retry_delay_s(number))
