"""Whether anything runs by itself, and by which clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tmi_ops.errors import SettingsError
from tmi_ops.health.maintenance.limits import TIMEZONE_VARIABLE, known_zone

AUTOMATION_VARIABLE = "TMI_OPS_AUTOMATION"
# On a laptop nothing begins unasked.
MANUAL_BY_DEFAULT = "development"
_SWITCH_WORDS = dict.fromkeys(("on", "yes", "true", "1"), True) | dict.fromkeys(("off", "no", "false", "0"), False)


@dataclass(frozen=True)
class Automation:
    """Whether things run by themselves where nobody has decided otherwise in the UI, and in which time zone."""

    running: bool
    timezone: str


def read_automation(environment: str, variables: Mapping[str, str]) -> Automation:
    """TMI_OPS_AUTOMATION (on or off; by default on everywhere but in development) and TMI_OPS_TIMEZONE.

    Raises:
        SettingsError: a value that means nothing.
    """
    word = variables.get(AUTOMATION_VARIABLE, "").strip().lower()
    if word and word not in _SWITCH_WORDS:
        raise SettingsError(f"{AUTOMATION_VARIABLE} is neither on nor off: {word!r}.", hint="write on or off")
    zone = known_zone(variables.get(TIMEZONE_VARIABLE, "").strip() or "UTC")
    return Automation(_SWITCH_WORDS.get(word, environment != MANUAL_BY_DEFAULT), zone.key)
