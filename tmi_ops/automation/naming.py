"""How what runs by itself is called where one code location serves several environments. Pure."""

from __future__ import annotations

# No name of an environment, a database, a job or a schedule of ours has two of them beside each other.
_BETWEEN = "__"


def flat_name(name: str) -> str:
    """`production/billing` where only letters, digits and _ may stand: `production__billing`."""
    return name.replace("/", _BETWEEN)


def name_among_others(name: str, plain: str) -> str:
    """`production__logical_backup`."""
    return f"{flat_name(name)}{_BETWEEN}{plain}"


def plain_name(called: str) -> str:
    """`logical_backup`, whether it is told apart from others' or not."""
    return called.rpartition(_BETWEEN)[2]


def environment_of(called: str) -> str:
    """`production`, of what is called `production__billing__logical_backup`."""
    return called.partition(_BETWEEN)[0]


def is_called_for(called: str, name: str) -> bool | None:
    """Whether this is the job, schedule or sensor of `name`; None: it is told apart from nobody's."""
    whose, between, _ = called.rpartition(_BETWEEN)
    return whose == flat_name(name) if between else None
