"""What the launchpad of a recovery must pass before anything is done: the settings' limits, and a code as the yes."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tmi_ops.errors import SettingsError

if TYPE_CHECKING:
    from tmi_ops.settings import Settings

CODE_WORDS = (
    "The code that `tmi-ops recover code JOB` printed for this launch, as the account that runs it. Good once, for 15 "
    "minutes."
)


def require_allowed(
    paths: Mapping[str, str | None] | None = None,
    addresses: Mapping[str, str | Sequence[str] | None] | None = None,
    sql: Mapping[str, str | None] | None = None,
) -> None:
    """Raises SettingsError: the launchpad names a path, an address or SQL that TMI_OPS_RECOVERY_* do not allow."""
    from tmi_ops.runbooks.launching import read_limits, refuse_beyond

    refuse_beyond(read_limits(), paths or {}, addresses or {}, sql or {})


def require_confirmed(settings: "Settings", job: str, confirm: str, code: str) -> None:
    """Use the code up.

    Raises:
        SettingsError: `confirm` is not this environment's name, or the code is not good.
    """
    from tmi_ops.runbooks.launching import use_code

    if confirm != settings.environment:
        raise SettingsError(
            f"The run was not confirmed: `confirm` says {confirm!r}, the environment is {settings.environment!r}.",
            next_step="launch it without `confirm` to look, then with the environment's name and a code",
        )
    use_code(settings.home, settings.environment, job, code, datetime.now(UTC))
