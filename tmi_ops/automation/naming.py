"""Names of jobs, schedules and sensors if one code location serves several environments. Pure."""

from __future__ import annotations

# No name of an environment, a database, a job or a schedule contains it.
_BETWEEN = "__"


def flat_name(name: str) -> str:
    """`production/billing` with only letters, digits and _: `production__billing`."""
    return name.replace("/", _BETWEEN)


def name_among_others(name: str, plain: str) -> str:
    """`production__logical_backup`."""
    return f"{flat_name(name)}{_BETWEEN}{plain}"


def plain_name(called: str) -> str:
    """`logical_backup`, with or without an environment before it."""
    return called.rpartition(_BETWEEN)[2]


def environment_of(called: str) -> str:
    """`production`, of `production__billing__logical_backup`."""
    return called.partition(_BETWEEN)[0]


def is_called_for(called: str, name: str) -> bool | None:
    """Whether this is the job, schedule or sensor of `name`; None: it has no environment in its name."""
    whose, between, _ = called.rpartition(_BETWEEN)
    return whose == flat_name(name) if between else None
