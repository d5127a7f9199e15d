"""The figures from which a reading is a warning or critical, and how to override them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from tmi_ops.checks.finding import Outcome
from tmi_ops.errors import SettingsError

VARIABLE_PREFIX = "TMI_OPS_HEALTH_"


@dataclass(frozen=True)
class Thresholds:
    """Two limits on one figure; None: never. `lower_is_worse`: low figures are bad."""

    warning: float | None
    critical: float | None
    unit: str
    lower_is_worse: bool = False

    def status(self, figure: float) -> Outcome:
        """The outcome for a figure; reaching a limit counts as crossing it."""
        for limit, status in ((self.critical, Outcome.CRITICAL), (self.warning, Outcome.WARNING)):
            if limit is not None and (figure <= limit if self.lower_is_worse else figure >= limit):
                return status
        return Outcome.OK

    def crossed(self, figure: float) -> bool:
        """Whether the figure is at least a warning."""
        return self.status(figure) is not Outcome.OK

    def describe(self) -> str:
        """`80 / 95 %`, a dash where there is no limit."""
        numbers = " / ".join("-" if limit is None else f"{limit:g}" for limit in (self.warning, self.critical))
        below = "below " if self.lower_is_worse else ""
        return f"{below}{numbers} {self.unit}".rstrip()


def overridden(
    defaults: Mapping[str, Thresholds], variables: Mapping[str, str], options: Iterable[str] = ()
) -> dict[str, Thresholds]:
    """The thresholds in force: options override variables, which override the defaults.

    Args:
        variables: of the environment; `TMI_OPS_HEALTH_CONNECTIONS=70,90` is read for the probe `connections`.
        options: `connections=70,90`; an empty half (`70,`) means never.

    Raises:
        SettingsError: an override is malformed, or an option names an unknown probe.
    """
    given: dict[str, tuple[str, str]] = {}
    for name in defaults:
        variable = VARIABLE_PREFIX + name.upper()
        if variables.get(variable):
            given[name] = (variable, variables[variable])
    for option in options:
        name, _, text = option.partition("=")
        if name not in defaults:
            raise SettingsError(
                f"--threshold {option} names an unknown probe: {name!r}.",
                hint=f"use one of {', '.join(sorted(defaults))}",
            )
        given[name] = (f"--threshold {name}", text)
    return {**defaults, **{name: _parse(defaults[name], *override) for name, override in given.items()}}


def _parse(default: Thresholds, where: str, text: str) -> Thresholds:
    halves = text.split(",")
    try:
        warning, critical = (float(half) if half.strip() else None for half in halves)
    except ValueError:
        raise SettingsError(
            f"{where} is malformed: {text!r} is not two numbers.",
            hint="write warning,critical, such as 70,90; leave one empty for never",
        ) from None
    changed = replace(default, warning=warning, critical=critical)
    if warning is None or critical is None:
        return changed
    if (critical > warning) if default.lower_is_worse else (critical < warning):
        raise SettingsError(
            f"{where} is malformed: {text!r} reaches critical before warning.",
            hint=f"put the {'higher' if default.lower_is_worse else 'lower'} number first",
        )
    return changed
