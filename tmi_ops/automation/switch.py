"""Whether schedules and sensors run by default, and in which time zone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tmi_ops.errors import SettingsError
from tmi_ops.health.maintenance.limits import TIMEZONE_VARIABLE, known_zone

AUTOMATION_VARIABLE = "TMI_OPS_AUTOMATION"
# Nothing starts on its own on a laptop.
MANUAL_BY_DEFAULT = "development"
_SWITCH_WORDS = dict.fromkeys(("on", "yes", "true", "1"), True) | dict.fromkeys(("off", "no", "false", "0"), False)


@dataclass(frozen=True)
class Automation:
    """Whether schedules and sensors run unless switched in the UI, and in which time zone."""

    running: bool
    timezone: str


def read_automation(environment: str, variables: Mapping[str, str]) -> Automation:
    """TMI_OPS_AUTOMATION (on or off; default: on, except in development) and TMI_OPS_TIMEZONE.

    Raises:
        SettingsError: a value is invalid.
    """
    word = variables.get(AUTOMATION_VARIABLE, "").strip().lower()
    if word and word not in _SWITCH_WORDS:
        raise SettingsError(
            f"{AUTOMATION_VARIABLE} is {word!r}, which is neither on nor off.", hint="set it to on or off"
        )
    zone = known_zone(variables.get(TIMEZONE_VARIABLE, "").strip() or "UTC")
    return Automation(_SWITCH_WORDS.get(word, environment != MANUAL_BY_DEFAULT), zone.key)
