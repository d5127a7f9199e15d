"""What changes the database or removes backups runs under its job's name, or after a person typed the environment's."""

from __future__ import annotations

from typing import Any

from dagster import AssetExecutionContext
from pydantic import Field

from tmi_ops.errors import SettingsError

# The name that Dagster gives to runs of assets picked by hand: "Materialize all" among them.
_PICKED_BY_HAND = "__ASSET_JOB"
ONLY_PLANNED = "only planned: nothing was changed. Launch its job, or give `confirm`."
Confirmation: Any = Field(
    default="",
    description="The name of the environment (TMI_ENV), typed by who answers for this run. Needed where the asset is "
    "materialized by itself or with others; without, it only plans. A run of its job needs none.",
)


def is_meant(context: AssetExecutionContext, confirm: str, environment: str) -> bool:
    """Whether this run may change or remove anything.

    Raises:
        SettingsError: it was confirmed for another environment.
    """
    if confirm not in ("", environment):
        raise SettingsError(
            f"The run was not confirmed: `confirm` says {confirm!r}, the environment is {environment!r}.",
            hint="launch it without `confirm` for the plan, then with the environment's name",
        )
    return bool(confirm) or not context.run.job_name.startswith(_PICKED_BY_HAND)
