"""What a recovery that is launched from Dagster's page may be told.

Dagster's page has no login: whoever reaches it fills in the launchpad. So paths, addresses and SQL are taken from
there only where the settings of the account that runs the recovery allow them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tmi_ops.errors import SettingsError
from tmi_ops.settings import read_variables

_LIMITS = {"directories": "DIRECTORIES", "addresses": "ADDRESSES", "sql": "SQL"}
_PREFIX = "TMI_OPS_RECOVERY_"
_TRUE = {"1", "true", "yes", "on"}


@dataclass(frozen=True)
class LaunchLimits:
    """`directories`: below them files and clusters may be put; `addresses`: where a server may listen, and whom it may
    let in; `sql`: whether a condition in SQL is taken."""

    directories: tuple[Path, ...] = ()
    addresses: tuple[str, ...] = ()
    sql: bool = False


def read_limits(variables: Mapping[str, str] | None = None) -> LaunchLimits:
    """TMI_OPS_RECOVERY_DIRECTORIES, _ADDRESSES and _SQL; nothing is allowed where they are unset."""
    values = read_variables() if variables is None else variables
    said = {name: values.get(f"{_PREFIX}{suffix}", "") for name, suffix in _LIMITS.items()}
    return LaunchLimits(
        directories=tuple(Path(word) for word in said["directories"].replace(":", ",").split(",") if word.strip()),
        addresses=tuple(said["addresses"].replace(",", " ").split()),
        sql=said["sql"].lower() in _TRUE,
    )


def refuse_beyond(
    limits: LaunchLimits,
    paths: Mapping[str, str | None],
    addresses: Mapping[str, str | Sequence[str] | None],
    sql: Mapping[str, str | None],
) -> None:
    """See that everything the launchpad says is allowed; what is None was not said.

    Raises:
        SettingsError: it names the first field that is not, and the setting that would allow it.
    """
    for field, path in paths.items():
        if path is not None and not _is_below(Path(path), limits.directories):
            raise _refused(field, path, "DIRECTORIES", "a directory above it")
    for field, said in addresses.items():
        words = [said] if isinstance(said, str) else said or ()
        for word in words:
            if word not in limits.addresses:
                raise _refused(field, word, "ADDRESSES", "this address")
    for field, condition in sql.items():
        if condition is not None and not limits.sql:
            raise _refused(field, condition, "SQL", "`on`")


def _is_below(path: Path, directories: Iterable[Path]) -> bool:
    """Links are followed, so that none leads out."""
    place = path.absolute().resolve()
    return any(place != root.resolve() and place.is_relative_to(root.resolve()) for root in directories)


def _refused(field: str, said: str, setting: str, what: str) -> SettingsError:
    return SettingsError(
        f"`{field}` says {said!r}, which is not taken from Dagster's page.",
        hint=f"let it, in the settings of the account that runs it: {_PREFIX}{setting} must hold {what}; or use "
        "the command `tmi-ops recover`",
    )
