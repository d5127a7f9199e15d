"""What changes the database or removes backups runs only as its own job, or after a person confirmed it by name."""

from __future__ import annotations

from typing import Any

from dagster import AssetExecutionContext
from pydantic import Field

from tmi_ops.error_codes import Code
from tmi_ops.errors import SettingsError

# The name that Dagster gives to runs of assets picked by hand: "Materialize all" among them.
_PICKED_BY_HAND = "__ASSET_JOB"
ONLY_PLANNED = "only planned: nothing was changed. Launch its job, or set `confirm`."
Confirmation: Any = Field(
    default="",
    description="Name of the environment (TMI_ENV), typed by the person responsible for this run. Required to change "
    "anything when the asset is materialized by hand; without it, the run only plans. Its job does not need it.",
)


def is_meant(context: AssetExecutionContext, confirm: str, environment: str) -> bool:
    """Whether this run may change or remove anything.

    Raises:
        SettingsError: it was confirmed for another environment.
    """
    if confirm not in ("", environment):
        raise SettingsError(
            f"The run was not confirmed: `confirm` says {confirm!r}, the environment is {environment!r}.",
            hint="launch it without `confirm` to see the plan, then with the environment's name",
            code=Code.WRONG_CONFIRMATION,
        )
    return bool(confirm) or not context.run.job_name.startswith(_PICKED_BY_HAND)
