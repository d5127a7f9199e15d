"""What assets are given: the environment's settings and store, and failures that Dagster can show.

Secrets are read from the process when a step begins; nothing of them is part of any run configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from dagster import ConfigurableResource, Failure

from tmi_ops.errors import OpsError
from tmi_ops.settings import Settings, load_settings
from tmi_ops.store.objects import ObjectStore


class Environment(ConfigurableResource[object]):
    """The one environment this code location serves (TMI_ENV)."""

    name: str

    @cached_property
    def settings(self) -> Settings:
        return load_settings()

    def open_store(self) -> ObjectStore:
        from tmi_ops.store.objects import open_store

        return open_store(self.settings.store, self.settings.environment)


@dataclass
class Skipped:
    """Why a sensor could not look, in one line; empty where it could."""

    because: str = ""


@contextmanager
def refusals_skipped() -> Iterator[Skipped]:
    """What a sensor cannot reach now makes it skip this look: whoever guards the objectives tells of it."""
    skipped = Skipped()
    try:
        yield skipped
    except OpsError as error:
        skipped.because = f"could not look: {error}"


@contextmanager
def failures_explained() -> Iterator[None]:
    """Turn our errors into Dagster failures; only what may pass by itself is retried."""
    try:
        yield
    except OpsError as error:
        metadata = {"what happened": error.what, "kept safe": error.kept, "next step": error.next_step}
        raise Failure(
            description=str(error),
            metadata={name: text for name, text in metadata.items() if text},
            allow_retries=error.transient,
        ) from error
