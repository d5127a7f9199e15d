"""Limits for recoveries that are launched from Dagster's page.

Dagster's page has no login: anyone who reaches it can fill in the launchpad. Paths, addresses and SQL are accepted
from there only if the settings of the account that runs the recovery allow them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tmi_ops.error_codes import Code
from tmi_ops.errors import SettingsError
from tmi_ops.settings import read_variables

_LIMITS = {"directories": "DIRECTORIES", "addresses": "ADDRESSES", "sql": "SQL"}
_PREFIX = "TMI_OPS_RECOVERY_"
_TRUE = {"1", "true", "yes", "on"}


@dataclass(frozen=True)
class LaunchLimits:
    """`directories`: files and clusters may be written below these; `addresses`: allowed for listening and for clients;
    `sql`: whether a condition in SQL is accepted."""

    directories: tuple[Path, ...] = ()
    addresses: tuple[str, ...] = ()
    sql: bool = False


def read_limits(variables: Mapping[str, str] | None = None) -> LaunchLimits:
    """Read TMI_OPS_RECOVERY_DIRECTORIES, _ADDRESSES and _SQL; what is unset allows nothing."""
    values = read_variables() if variables is None else variables
    said = {name: values.get(f"{_PREFIX}{suffix}", "") for name, suffix in _LIMITS.items()}
    return LaunchLimits(
        directories=tuple(Path(word) for word in said["directories"].replace(":", ",").split(",") if word.strip()),
        addresses=tuple(said["addresses"].replace(",", " ").split()),
        sql=said["sql"].lower() in _TRUE,
    )


def require_within_limits(
    limits: LaunchLimits,
    paths: Mapping[str, str | None],
    addresses: Mapping[str, str | Sequence[str] | None],
    sql: Mapping[str, str | None],
) -> None:
    """Refuse launch values that are not allowed; None means not given.

    Raises:
        SettingsError: names the first field that is not allowed, and the setting that would allow it.
    """
    for field, path in paths.items():
        if path is not None and not _is_below(Path(path), limits.directories):
            raise _refused(field, path, f"add a directory above it to {_PREFIX}DIRECTORIES")
    for field, said in addresses.items():
        words = [said] if isinstance(said, str) else said or ()
        for word in words:
            if word not in limits.addresses:
                raise _refused(field, word, f"add it to {_PREFIX}ADDRESSES")
    for field, condition in sql.items():
        if condition is not None and not limits.sql:
            raise _refused(field, condition, f"set {_PREFIX}SQL to on")


def _is_below(path: Path, directories: Iterable[Path]) -> bool:
    """Resolves links, so that none leads out of the directory."""
    place = path.absolute().resolve()
    return any(place != root.resolve() and place.is_relative_to(root.resolve()) for root in directories)


def _refused(field: str, said: str, remedy: str) -> SettingsError:
    return SettingsError(
        f"{said!r} is not accepted for `{field}` from Dagster's page.",
        hint=f"{remedy} in the settings of the account that runs the job, or use `tmi-ops recover`",
        code=Code.NOT_ALLOWED_HERE,
    )
