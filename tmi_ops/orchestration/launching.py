"""What the launchpad of a recovery must pass before anything is done: the settings' limits, and a code as the yes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dagster import Config

from tmi_ops.errors import SettingsError

if TYPE_CHECKING:
    from tmi_ops.settings import Settings

CODE_WORDS = (
    "The code that the command `recover code JOB PLAN` printed, as the account that runs the job. PLAN stands in the "
    "metadata of a launch without `confirm`, with all else as here. Good once, for 15 minutes, for that plan."
)


def require_allowed(
    variables: Mapping[str, str],
    paths: Mapping[str, str | None] | None = None,
    addresses: Mapping[str, str | Sequence[str] | None] | None = None,
    sql: Mapping[str, str | None] | None = None,
) -> None:
    """See that the launchpad keeps to the settings.

    Args:
        variables: of the environment.

    Raises:
        SettingsError: it names a path, an address or SQL that TMI_OPS_RECOVERY_* do not allow.
    """
    from tmi_ops.runbooks.launching import read_limits, refuse_beyond

    refuse_beyond(read_limits(variables), paths or {}, addresses or {}, sql or {})


@dataclass(frozen=True)
class Confirmation:
    """A launch, with what its yes was given to; `plan` is None where it only looks."""

    job: str
    asked: Mapping[str, object]
    settings: "Settings"
    plan: str | None

    @classmethod
    def of(cls, settings: "Settings", job: str, config: Config) -> "Confirmation":
        """Use the code of a launch up, if it is to do anything.

        Raises:
            SettingsError: `confirm` is not this environment's name, or the code is not good.
        """
        from tmi_ops.runbooks.codes import use_code

        asked = config.model_dump(mode="json")
        confirm, code = asked.pop("confirm"), asked.pop("code")
        if not confirm:
            return cls(job, asked, settings, None)
        if confirm != settings.name:
            raise SettingsError(
                f"The run was not confirmed: `confirm` says {confirm!r}, the environment is {settings.name!r}.",
                hint="launch it without `confirm` to look, then with the environment's name and a code",
            )
        return cls(job, asked, settings, use_code(settings.home, settings.environment, job, code, datetime.now(UTC)))

    def require(self, deeds: Sequence[str], words: Sequence[str]) -> str:
        """See that the yes, if there is one, was given to this plan; keep its words for who is to give one.

        Args:
            deeds: what would be done, and to what, in words that are the same as long as it is.
            words: the same for a person.

        Returns:
            How the plan is confirmed, in Markdown.

        Raises:
            SettingsError: it was given to another one.
        """
        from tmi_ops.runbooks.codes import name_plan, remember_plan, require_plan

        home, environment = self.settings.home, self.settings.environment
        name = name_plan(environment, self.job, self.asked, deeds)
        remember_plan(home, environment, self.job, name, words, datetime.now(UTC))
        if self.plan is not None:
            require_plan(self.plan, name, self.job)
        return f"`tmi-ops recover code {self.job} {name}`, then launch this with `confirm` and `code`"
