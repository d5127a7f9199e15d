"""What a recovery launched in Dagster must pass before anything is done: the settings' limits, and a code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dagster import Config

from tmi_ops.error_codes import Code
from tmi_ops.errors import SettingsError

if TYPE_CHECKING:
    from tmi_ops.settings import Settings

CODE_DESCRIPTION = (
    "Code printed by `recover code JOB PLAN`, run as the account that runs the job. A launch without `confirm` and "
    "otherwise the same configuration shows PLAN in its metadata. Valid once, for 15 minutes, for that plan."
)


def require_allowed(
    variables: Mapping[str, str],
    paths: Mapping[str, str | None] | None = None,
    addresses: Mapping[str, str | Sequence[str] | None] | None = None,
    sql: Mapping[str, str | None] | None = None,
) -> None:
    """Check what the launchpad asks for against the settings.

    Args:
        variables: of the environment.

    Raises:
        SettingsError: TMI_OPS_RECOVERY_* do not allow a path, an address or SQL in it.
    """
    from tmi_ops.runbooks.launching import read_limits, require_within_limits

    require_within_limits(read_limits(variables), paths or {}, addresses or {}, sql or {})


@dataclass(frozen=True)
class Confirmation:
    """A launch and the plan that it confirms; `plan` is None if it only shows one."""

    job: str
    asked: Mapping[str, object]
    settings: "Settings"
    plan: str | None

    @classmethod
    def of(cls, settings: "Settings", job: str, config: Config) -> "Confirmation":
        """Consume the code of a launch that is to do anything.

        Raises:
            SettingsError: `confirm` is not this environment's name, or the code is not valid.
        """
        from tmi_ops.runbooks.codes import use_code

        asked = config.model_dump(mode="json")
        confirm, code = asked.pop("confirm"), asked.pop("code")
        if not confirm:
            return cls(job, asked, settings, None)
        if confirm != settings.name:
            raise SettingsError(
                f"The run was not confirmed: `confirm` says {confirm!r}, the environment is {settings.name!r}.",
                hint="launch it without `confirm` to see the plan, then with the environment's name and a code",
                code=Code.WRONG_CONFIRMATION,
            )
        return cls(job, asked, settings, use_code(settings.home, settings.environment, job, code, datetime.now(UTC)))

    def require(self, actions: Sequence[str], words: Sequence[str]) -> str:
        """Check that the code, if there is one, was given for this plan; record the plan for `recover code`.

        Args:
            actions: what would be done, and to what; the same texts as long as the plan is the same.
            words: the same for a person.

        Returns:
            How to confirm the plan, in Markdown.

        Raises:
            SettingsError: the code was given for another plan.
        """
        from tmi_ops.runbooks.codes import name_plan, remember_plan, require_plan

        home, environment = self.settings.home, self.settings.environment
        name = name_plan(environment, self.job, self.asked, actions)
        remember_plan(home, environment, self.job, name, words, datetime.now(UTC))
        if self.plan is not None:
            require_plan(self.plan, name, self.job)
        return f"`tmi-ops recover code {self.job} {name}`, then launch this with `confirm` and `code`"
